"""Batches of labelled patches of slides for the extractor of paper D, and the turns of slides for its last stage.

Variation (Takahama et al. 2019, section 4.1): a random square of 224 of 256 pixels, quarter turns, mirror images, and
saturation, contrast, brightness and sharpness by factors from 0.75 to 1.25; unvaried, the middle square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from wsi_ml.data.batches import batches_an_epoch, slice_of
from wsi_ml.data.patch_grid import NOLABEL, NORMAL, TUMOUR
from wsi_ml.data.patch_slides import PatchSlide
from wsi_ml.errors import BadRequestError

CROP = 224
FACTORS = (0.75, 1.25)
ENHANCERS = (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)


class LabelledRows(NamedTuple):
    """Patches of one step."""

    stored: np.ndarray
    """uint8 N×S×S×3, RGB at ×20."""
    labels: np.ndarray
    """int64 N: NORMAL or TUMOUR."""


class SlideTurn(NamedTuple):
    """Whose turn a step is."""

    slide: np.ndarray
    """int64, one number: place in the list of slides."""


def varied(rgb: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of `crop` pixels in a random pose and light, uint8."""
    y, x = rng.integers(0, rgb.shape[0] - crop + 1, 2)
    square = np.rot90(rgb[y : y + crop, x : x + crop], int(rng.integers(4)))
    if rng.random() < 0.5:
        square = square[:, ::-1]
    return in_other_light(square, rng)


def in_other_light(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Saturation, contrast, brightness and sharpness by factors of FACTORS, uint8."""
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    for enhancer in ENHANCERS:
        picture = enhancer(picture).enhance(float(rng.uniform(*FACTORS)))
    return np.asarray(picture)


def middle(rgb: np.ndarray, crop: int) -> np.ndarray:
    """The middle square of `crop` pixels."""
    start = (rgb.shape[0] - crop) // 2
    return rgb[start : start + crop, start : start + crop]


def check_crop(slides: Sequence[PatchSlide], crop: int) -> None:
    """Raise BadRequestError where patches are smaller than the square to be cut from them."""
    small = [slide for slide in slides if slide.side < crop]
    if small:
        raise BadRequestError(f"A square of {crop} px cannot be cut from patches of {small[0].side} px.")


def labelled_places(slides: Sequence[PatchSlide]) -> np.ndarray:
    """N×3 (slide, patch, label) of all patches with a label; raises BadRequestError where there is none."""
    rows = [
        np.column_stack([np.full(len(slide.labels), number), np.arange(len(slide.labels)), slide.labels])
        for number, slide in enumerate(slides)
    ]
    places = np.concatenate(rows) if rows else np.empty((0, 3), int)
    places = places[places[:, 2] != NOLABEL]
    if not len(places):
        raise BadRequestError(f"No patch of the slides {', '.join(slide.name for slide in slides)} has a label.")
    return places


class PatchRows:
    """Endless, in epochs of their own shuffle: every labelled patch once, or as many of either class (`balance`).

    Batch `index` depends on the seed and on `index` alone. With `balance` an epoch draws from the larger class as many
    patches as the smaller one has, anew each time. Raises BadRequestError where a class has no patch.
    """

    def __init__(self, slides: Sequence[PatchSlide], batch: int, crop: int, seed: int, balance: bool = False):
        check_crop(slides, crop)
        self.slides, self.size, self.crop, self.seed = slides, batch, crop, seed
        self.places = labelled_places(slides)
        self.balance = balance
        counts = [int((self.places[:, 2] == label).sum()) for label in (NORMAL, TUMOUR)]
        if not min(counts):
            raise BadRequestError(
                f"No patch of the slides to train on is labelled {'tumour' if counts[0] else 'normal'}."
            )
        self.epoch_patches = 2 * min(counts) if balance else sum(counts)
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def batch(self, index: int) -> LabelledRows:
        """Batch `index`, varied."""
        stored, labels = [], []
        for number in range(index * self.size, (index + 1) * self.size):
            slide, patch, label = self._place(number).tolist()
            rng = np.random.default_rng([self.seed, 1, number])
            stored.append(varied(self.slides[slide].read(patch), self.crop, rng))
            labels.append(label)
        return LabelledRows(np.stack(stored), np.asarray(labels, np.int64))

    def __len__(self) -> int:
        return batches_an_epoch(self.epoch_patches, self.size)

    def _place(self, number: int) -> np.ndarray:
        epoch = number // self.epoch_patches
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._order(np.random.default_rng([self.seed, 0, epoch]))
        return self.places[self._epoch[1][number % self.epoch_patches]]

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        if not self.balance:
            return rng.permutation(len(self.places))
        classes = [np.flatnonzero(self.places[:, 2] == label) for label in (NORMAL, TUMOUR)]
        half = self.epoch_patches // 2
        return rng.permutation(np.concatenate([rng.permutation(each)[:half] for each in classes]))


class MiddleRows:
    """Finite: the middle of `most` labelled patches spread evenly over the slides (0: of all), in order."""

    def __init__(self, slides: Sequence[PatchSlide], batch: int, crop: int, most: int = 0):
        check_crop(slides, crop)
        self.slides, self.size, self.crop = slides, batch, crop
        places = labelled_places(slides)
        if 0 < most < len(places):
            places = places[np.linspace(0, len(places) - 1, most).round().astype(int)]
        self.places = places

    def batch(self, index: int) -> LabelledRows:
        """Batch `index`, the last one perhaps shorter; raises IndexError from the length on."""
        places = self.places[slice_of(index, self.size, len(self.places))]
        stored = [middle(self.slides[slide].read(patch), self.crop) for slide, patch, _ in places.tolist()]
        return LabelledRows(np.stack(stored), places[:, 2].astype(np.int64))

    def __len__(self) -> int:
        return -(-len(self.places) // self.size)


class SlideTurns:
    """Endless: every slide once an epoch, each epoch in another order."""

    def __init__(self, slides: int, seed: int):
        self.slides, self.seed = slides, seed

    def batch(self, index: int) -> SlideTurn:
        """The slide of step `index`."""
        epoch, place = divmod(index, self.slides)
        return SlideTurn(np.random.default_rng([self.seed, 2, epoch]).permutation(self.slides)[place : place + 1])

    def __len__(self) -> int:
        return self.slides


def read_chunk(slide: PatchSlide, numbers: Sequence[int], crop: int, turn: Sequence[int] | None = None) -> np.ndarray:
    """Patches of a slide by number, uint8 n×crop×crop×3: their middle, or varied by `turn` and number alone.

    So the same patches come out when they are read for the second time in the same turn.
    """
    if turn is None:
        return np.stack([middle(slide.read(number), crop) for number in numbers])
    return np.stack([varied(slide.read(number), crop, np.random.default_rng([*turn, number])) for number in numbers])
