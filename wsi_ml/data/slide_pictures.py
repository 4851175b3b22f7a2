"""Small pictures of whole slides with a label for each patch: what “segmentation only” of paper D learns from.

Takahama et al. 2019 compare with a network that sees the slide itself at ⅛ of the resolution, 1024 px a side: 32 × 32
patches of 256 px, as many as a map of features has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wsi_ml.data.batches import batches_an_epoch
from wsi_ml.data.patch_grid import NOLABEL, Placement, centred, label_map
from wsi_ml.data.patch_slide_batches import in_other_light
from wsi_ml.data.patch_slides import PatchSlide
from wsi_ml.data.slide_maps import groups_of, shuffled
from wsi_ml.errors import BadRequestError

SHRINK = 8
GLASS = 255
"""Shown where the slide does not reach."""


class SlidePicture(NamedTuple):
    """One picture: a slide's or the surroundings of one lump of tissue."""

    numbers: np.ndarray
    """Of the patches on the picture."""
    rgb: np.ndarray
    """uint8 S×S×3, S = side of the map × pixels a patch."""
    labels: np.ndarray
    """int64 side×side."""
    placement: Placement
    """Of the patches in `numbers`; its `kept` are places in this list."""


class PictureBatch(NamedTuple):
    """Pictures of one step."""

    pictures: np.ndarray
    """uint8 N×S×S×3."""
    labels: np.ndarray
    """int64 N×side×side."""


def cell_pixels(patch_side: int, shrink: int) -> int:
    """Pixels on a side of a patch in the picture; raises BadRequestError where they are not whole."""
    if shrink < 1 or patch_side % shrink:
        raise BadRequestError(f"Patches of {patch_side} px cannot be shown at 1/{shrink}: it must divide them.")
    return patch_side // shrink


def slide_pictures(slide: PatchSlide, side: int, maps_of: str, shrink: int = SHRINK) -> list[SlidePicture]:
    """The pictures of a slide, patches where `slide_maps` puts them; what lies beyond a picture is cut off."""
    pixels = cell_pixels(slide.side, shrink)
    small = slide.pixels.reduced(shrink)
    pictures = []
    for numbers in groups_of(slide.cells, maps_of):
        placement = centred(slide.cells[numbers], side)
        first = slide.cells[numbers[placement.kept[0]]]
        down, right = (np.array([placement.rows[0], placement.columns[0]]) - first) * pixels
        rgb = _moved(small, int(down), int(right), side * pixels)
        labels = label_map(slide.labels[numbers], placement, side)
        pictures.append(SlidePicture(numbers, rgb, labels, placement))
    return pictures


def _moved(small: np.ndarray, down: int, right: int, side: int) -> np.ndarray:
    """A square of `side` that shows a picture moved by so many pixels, glass beyond."""
    square = np.full((side, side, 3), GLASS, np.uint8)
    height, width = small.shape[:2]
    top, left, bottom, end = max(0, down), max(0, right), min(side, height + down), min(side, width + right)
    square[top:bottom, left:end] = small[top - down : bottom - down, left - right : end - right]
    return square


class PictureRows:
    """Endless: every picture with a label once an epoch, in another order, pose and light each time.

    Raises BadRequestError where no patch on any picture is labelled.
    """

    def __init__(self, pictures: Sequence[SlidePicture], batch: int, seed: int):
        self.pictures = [each for each in pictures if (each.labels != NOLABEL).any()]
        if not self.pictures:
            raise BadRequestError("No patch on the pictures to train on has a label.")
        self.size, self.seed = batch, seed

    def batch(self, index: int) -> PictureBatch:
        """Batch `index`, the same at every call."""
        pictures, labels = [], []
        for number in range(index * self.size, (index + 1) * self.size):
            picture = self.pictures[shuffled(number, len(self.pictures), (self.seed, 4))]
            rgb, truth = self._varied(picture, np.random.default_rng([self.seed, 5, number]))
            pictures.append(rgb)
            labels.append(truth)
        return PictureBatch(np.stack(pictures), np.stack(labels))

    def __len__(self) -> int:
        return batches_an_epoch(len(self.pictures), self.size)

    @staticmethod
    def _varied(picture: SlidePicture, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Picture and labels turned and mirrored together, the picture in another light."""
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        rgb, labels = (np.rot90(each, turns) for each in (picture.rgb, picture.labels))
        if mirrored:
            rgb, labels = rgb[:, ::-1], labels[:, ::-1]
        return in_other_light(rgb, rng), np.ascontiguousarray(labels)
