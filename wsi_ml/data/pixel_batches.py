"""Pictures of which some have a class per pixel and some one class only, all of one side; batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from wsi_ml.data.augment import change_stain, dihedral
from wsi_ml.data.batches import NO_CLASS, batches_an_epoch
from wsi_ml.errors import BadRequestError
from wsi_ml.slides.kernel import halve_pixels


class LabelledPicture(NamedTuple):
    """A picture and what is known of it."""

    name: str
    slide: str
    """What it was cut from: pictures of one slide are never on both sides of a split."""
    rgb: np.ndarray
    """uint8 H×W×3."""
    mask: np.ndarray | None
    """int8 H×W: class of each pixel, −1 where nobody knows; None for a picture without pixel labels."""
    label: int
    """Class of the picture, −1 where nobody knows."""


class PixelBatch(NamedTuple):
    """Pictures of one step."""

    stored: np.ndarray
    """uint8 N×S×S×3."""
    masks: np.ndarray
    """int64 N×S×S, −1 where there is no label."""
    labels: np.ndarray
    """int64 N, −1 for a picture without a class."""


def check_picture(picture: LabelledPicture, classes: int) -> LabelledPicture:
    """The picture as it is; raises BadRequestError for a mask of another size or a class that does not exist."""
    if picture.rgb.ndim != 3 or picture.rgb.shape[2] != 3 or not picture.rgb.size:
        raise BadRequestError(f"“{picture.name}” is no RGB picture: its array is {picture.rgb.shape}.")
    if not NO_CLASS <= picture.label < classes:
        raise BadRequestError(f"“{picture.name}” has class {picture.label}; there are {classes}.")
    mask = picture.mask
    if mask is None:
        return picture
    if mask.shape != picture.rgb.shape[:2]:
        (height, width), (rows, columns) = picture.rgb.shape[:2], mask.shape
        raise BadRequestError(f"“{picture.name}” is {width} × {height} px but its mask {columns} × {rows} px.")
    if int(mask.min()) < NO_CLASS or int(mask.max()) >= classes:
        raise BadRequestError(
            f"The mask of “{picture.name}” has values from {int(mask.min())} to {int(mask.max())}; classes are 0 to "
            f"{classes - 1}, and {NO_CLASS} is no label."
        )
    if not (mask != NO_CLASS).any():
        raise BadRequestError(f"The mask of “{picture.name}” labels no pixel; leave the file out.")
    return picture


def class_of_mask(mask: np.ndarray, present: float) -> int:
    """Class of a picture by its pixels: the most frequent class above 0 if it covers more than the share `present`.

    Shares are of the labelled pixels; else the class is 0, and −1 where no pixel is labelled.
    """
    known = mask[mask != NO_CLASS].astype(np.int64)
    if not len(known):
        return NO_CLASS
    counts = np.bincount(known, minlength=2)
    first = 1 + int(counts[1:].argmax())
    return first if counts[first] > present * len(known) else 0


def halved(picture: LabelledPicture) -> LabelledPicture:
    """The picture at half the size, as the store halves; a pixel's class is that of most of its labelled four.

    Of as many each, the higher class. An odd last row or column is repeated first.
    """
    if picture.mask is None:
        return picture._replace(rgb=halve_pixels(picture.rgb))
    rows, columns = picture.mask.shape
    even = np.pad(picture.mask, ((0, rows % 2), (0, columns % 2)), "edge")
    four = np.stack([even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]])
    highest = max(int(four.max()), 0)
    votes = np.stack([(four == value).sum(0) for value in range(highest, -1, -1)])
    mask = np.where(votes.any(0), highest - votes.argmax(0), NO_CLASS).astype(np.int8)
    return picture._replace(rgb=halve_pixels(picture.rgb), mask=mask)


def cut_to_side(picture: LabelledPicture, side: int, present: float) -> Iterator[LabelledPicture]:
    """Squares of a picture on a grid from its corner; what is left over at the right and below is not used.

    A picture of exactly the side stays as it is. Squares of a larger one take their class from their own pixels where
    these are labelled, else that of the picture. A shorter edge is continued by its mirror image.
    """
    height, width = picture.rgb.shape[:2]
    if height < side or width < side:
        picture = _enlarged(picture, side)
        height, width = picture.rgb.shape[:2]
    whole = (height, width) == (side, side)
    for y in range(0, height - side + 1, side):
        for x in range(0, width - side + 1, side):
            window = (slice(y, y + side), slice(x, x + side))
            mask = None if picture.mask is None else picture.mask[window]
            label = picture.label
            if mask is not None and (not whole or label == NO_CLASS):
                label = class_of_mask(mask, present)
            if mask is not None and not (mask != NO_CLASS).any():
                mask = None
            name = picture.name if whole else f"{picture.name}-{x}-{y}"
            yield LabelledPicture(name, picture.slide, picture.rgb[window], mask, label)


def _enlarged(picture: LabelledPicture, side: int) -> LabelledPicture:
    height, width = picture.rgb.shape[:2]
    edges = (0, max(0, side - height), 0, max(0, side - width))
    rgb = cv2.copyMakeBorder(picture.rgb, *edges, cv2.BORDER_REFLECT)
    mask = None if picture.mask is None else cv2.copyMakeBorder(picture.mask, *edges, cv2.BORDER_REFLECT)
    return picture._replace(rgb=rgb, mask=mask)


def batch_of(pictures: Sequence[LabelledPicture]) -> PixelBatch:
    """Pictures of one side as they are, one row each."""
    side = pictures[0].rgb.shape[:2]
    masks = [np.full(side, NO_CLASS) if each.mask is None else each.mask for each in pictures]
    labels = np.array([each.label for each in pictures], np.int64)
    return PixelBatch(np.stack([each.rgb for each in pictures]), np.stack(masks).astype(np.int64), labels)


class PictureBatches:
    """Endless: every picture once an epoch, in another order each time, mirrored and turned by right angles.

    With `stain` the amount of each stain is multiplied by a factor of its own between e^−stain and e^stain. Batch
    `index` is a pure function of the seed. Raises BadRequestError for no pictures.
    """

    def __init__(self, pictures: Sequence[LabelledPicture], batch: int, seed: int, stain: float = 0.0):
        if not pictures:
            raise BadRequestError("There is no picture with the labels that this training needs.")
        self.pictures, self.size, self.seed, self.stain = list(pictures), batch, seed, stain

    def batch(self, index: int) -> PixelBatch:
        """See the class."""
        numbers, count = range(index * self.size, (index + 1) * self.size), len(self.pictures)
        epochs = range(numbers[0] // count, numbers[-1] // count + 1)
        orders = {epoch: np.random.default_rng([self.seed, 0, epoch]).permutation(count) for epoch in epochs}
        return batch_of([self._varied(number, orders[number // count][number % count]) for number in numbers])

    def __len__(self) -> int:
        return batches_an_epoch(len(self.pictures), self.size)

    def _varied(self, number: int, place: int) -> LabelledPicture:
        """The picture at a place of the list, in the pose of sample `number` of the endless row."""
        picture = self.pictures[place]
        pose = int(np.random.default_rng([self.seed, 1, number]).integers(8))
        mask = None if picture.mask is None else np.ascontiguousarray(dihedral(picture.mask, pose))
        rgb = np.ascontiguousarray(dihedral(picture.rgb, pose))
        if self.stain:
            rng = np.random.default_rng([self.seed, 2, number])
            rgb = change_stain(rgb, np.exp(rng.uniform(-self.stain, self.stain, 3)), np.zeros(3))
        return picture._replace(rgb=rgb, mask=mask)
