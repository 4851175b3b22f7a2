"""Finite sets of patches at given places, among them the dense grid of a test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wsi_ml.data.batches import PatchBatch, make_batch, slice_of
from wsi_ml.data.labelled_patches import checked_classes
from wsi_ml.data.patch_reader import AnnotatedSlide, PatchReader
from wsi_ml.data.regions import dense_places
from wsi_ml.errors import BadRequestError

INTERSECTION = 0.95
"""Share of a test patch that must lie in its region, as the authors cut their test set."""


class PlacedPatch(NamedTuple):
    """A patch by its slide, its upper left corner in stored pixels, and its class (−1 for none)."""

    slide: int
    x: int
    y: int
    label: int


class PlacedPatches:
    """Finite: patches at given places, in order, unchanged; pixels are read when asked for."""

    def __init__(
        self, slides: Sequence[PatchReader], patches: Sequence[PlacedPatch], batch: int, side: int,
        classes: tuple[str, ...] = (),
    ):  # fmt: skip
        self.slides, self.patches, self.size, self.side, self.classes = slides, patches, batch, side, classes

    def batch(self, index: int) -> PatchBatch:
        """Batch `index`; raises IndexError beyond the end."""
        rows = self._rows(index)
        pairs = [self.slides[row.slide].read(row.x, row.y, self.side).finished() for row in rows]
        return make_batch([small for small, _ in pairs], [large for _, large in pairs], [row.label for row in rows])

    def slides_of(self, index: int) -> tuple[str, ...]:
        """Name of the slide of each row of batch `index`."""
        return tuple(self.slides[row.slide].name for row in self._rows(index))

    def __len__(self) -> int:
        return -(-len(self.patches) // self.size)

    def _rows(self, index: int) -> Sequence[PlacedPatch]:
        rows = slice_of(index, self.size, len(self.patches))
        return self.patches[rows.start : rows.stop]


def dense_patches(
    slides: Sequence[AnnotatedSlide], batch: int, side: int, *, classes: tuple[str, ...] = (),
    stride: int | None = None, intersection: float = INTERSECTION, most: int | None = None, seed: int = 0,
) -> PlacedPatches:  # fmt: skip
    """Every place of a dense grid in every region: slide by slide, class by class, region by region.

    `stride` is the side by default: no overlap. `most` keeps that many patches of each class, drawn with `seed`, in
    their order. A class needs no region on these slides, but one in all (BadRequestError).
    """
    readers = [slide.pixels for slide in slides]
    names = classes or checked_classes(slides)
    patches = [
        PlacedPatch(number, x, y, label)
        for number, slide in enumerate(slides)
        for label, name in enumerate(names)
        for region in slide.regions.get(name, ())
        for x, y in dense_places(region, slide.pixels.size, side, stride or side, intersection)
    ]
    if not patches:
        raise BadRequestError(
            f"No region of {', '.join(names)} holds a patch of {side} px with {intersection:g} of its area in it."
        )
    if most is not None:
        patches = _thinned(patches, len(names), most, seed)
    return PlacedPatches(readers, patches, batch, side, names)


def _thinned(patches: list[PlacedPatch], classes: int, most: int, seed: int) -> list[PlacedPatch]:
    rng = np.random.default_rng(seed)
    kept: list[int] = []
    for label in range(classes):
        places = [place for place, patch in enumerate(patches) if patch.label == label]
        kept += rng.permutation(places)[:most].tolist()
    return [patches[place] for place in sorted(kept)]
