"""Patches for super-resolution from whole slides without annotations, in blocks, as paper A draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wsi_ml.data.batches import NO_CLASS, PatchBatch, batches_an_epoch, make_batch
from wsi_ml.data.dense_patches import PlacedPatch, PlacedPatches
from wsi_ml.data.entropy import GATE, brightness_entropy
from wsi_ml.data.patch_augment import AugmentationSettings
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.read_patch import ReadPatch
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region

BLOCK = 15
"""Patches on a side of a block."""
SHARE = 0.3
"""Patches drawn from a block, as a share of those that would fill it."""
BLOCK_PATCHES = int(SHARE * BLOCK * BLOCK)
BLOCKS = 10
"""Blocks drawn from a slide before the next slide is drawn."""
BLOCK_TRIES = 100
TRIES = 20
"""Places in a block that may be glass before a patch is sought elsewhere on the slide."""
MISSES = 500
MARGIN = 0.05
"""By how much a place's overview must fail the gate for its pixels not to be read; it is off by a pixel at the rim."""


class DrawnPatch(NamedTuple):
    """A patch that passed the gate: where it lies, in stored pixels, and what was read there."""

    slide: str
    x: int
    y: int
    read: ReadPatch


class TissuePlaces:
    """Random places on one slide that pass the brightness gate. Raises BadRequestError for one smaller than a patch."""

    def __init__(self, slide: PatchReader, side: int):
        if min(slide.size) < side:
            raise BadRequestError(f"“{slide.name}” is smaller than a patch of {side} px at ×20.")
        self.slide, self.side = slide, side
        self.overview = slide.overview(side)

    def block(self, rng: np.random.Generator) -> Region:
        """A block of 15 × 15 patches, in stored pixels, that the overview does not show to be glass."""
        width, height = (min(BLOCK * self.side, length) for length in self.slide.size)
        for _ in range(BLOCK_TRIES):
            x = int(rng.integers(self.slide.size.width - width + 1))
            y = int(rng.integers(self.slide.size.height - height + 1))
            if self.overview is None or self.overview.at(x, y, min(width, height)) > GATE / 2:
                break
        return Region(x, y, width, height)

    def draw(self, block: Region, rng: np.random.Generator) -> DrawnPatch:
        """A patch in the block or, after 20 misses, in another one.

        Raises BadRequestError after 500 misses.
        """
        for miss in range(MISSES):
            if miss and miss % TRIES == 0:
                block = self.block(rng)
            x = block.x + int(rng.integers(block.width - self.side + 1))
            y = block.y + int(rng.integers(block.height - self.side + 1))
            if self.overview is not None and self.overview.at(x, y, self.side) < GATE - MARGIN:
                continue
            read = self.slide.read(x, y, self.side)
            if brightness_entropy(read.seen()) > GATE:
                return DrawnPatch(self.slide.name, x, y, read)
        raise BadRequestError(
            f"{MISSES} random places on “{self.slide.name}” were all too bright or too dark: it shows no tissue; leave "
            "the slide out."
        )


class SlidePatches:
    """Endless: 67 patches at random of a block of 15 × 15, ten blocks of a slide drawn at random, then another slide.

    Patches that fail the brightness gate (entropy.py) are drawn again. Patch n depends on the seed and n alone, so any
    process can make any batch. An epoch is the slides' area in patches, ΣA / side², at most `length` batches. Raises
    BadRequestError for no slides or one smaller than a patch.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self, slides: Sequence[PatchReader], batch: int, side: int, seed: int,
        augmentation: AugmentationSettings | None = None, length: int | None = None,
    ):  # fmt: skip
        if not slides:
            raise BadRequestError("There is no slide to take patches from.")
        self.places = [TissuePlaces(slide, side) for slide in slides]
        self.size, self.seed, self.augmentation = batch, seed, augmentation
        patches = sum(slide.size.width * slide.size.height for slide in slides) / side**2
        self.length = batches_an_epoch(patches, batch, length)

    def batch(self, index: int) -> PatchBatch:
        """Batch `index`; rows have a ×40 picture where their slide has, and no class."""
        rows = []
        for number in range(index * self.size, (index + 1) * self.size):
            drawn, rng = self._draw(number)
            rows.append(drawn.read.finished(self.augmentation, rng))
        return make_batch([small for small, _ in rows], [large for _, large in rows], [NO_CLASS] * len(rows))

    def places_of(self, index: int) -> list[tuple[str, int, int]]:
        """Slide and upper left corner, in stored pixels, of each row of batch `index`."""
        drawn = [self._draw(number)[0] for number in range(index * self.size, (index + 1) * self.size)]
        return [(each.slide, each.x, each.y) for each in drawn]

    def __len__(self) -> int:
        return self.length

    def _draw(self, number: int) -> tuple[DrawnPatch, np.random.Generator]:
        """Patch `number` as read, and the state of chance after it."""
        block = number // BLOCK_PATCHES
        slide = int(np.random.default_rng([self.seed, 0, block // BLOCKS]).integers(len(self.places)))
        places = self.places[slide]
        region = places.block(np.random.default_rng([self.seed, 1, block]))
        rng = np.random.default_rng([self.seed, 2, number])
        return places.draw(region, rng), rng


def spread_patches(slides: Sequence[PatchReader], batch: int, side: int, per_slide: int, seed: int) -> PlacedPatches:
    """Finite: `per_slide` places of tissue on each slide, drawn once with `seed`, without classes; for validation.

    Raises BadRequestError for a slide that shows no tissue or is smaller than a patch.
    """
    patches = []
    for number, slide in enumerate(slides):
        places, rng = TissuePlaces(slide, side), np.random.default_rng([seed, number])
        for _ in range(per_slide):
            drawn = places.draw(places.block(rng), rng)
            patches.append(PlacedPatch(number, drawn.x, drawn.y, NO_CLASS))
    return PlacedPatches(slides, patches, batch, side)
