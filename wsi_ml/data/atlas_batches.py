"""Pairs of the ×40 tile sets as a source: patches without classes, each with its ×40 picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wsi_ml.data.augment import AugmentConfig
from wsi_ml.data.batches import NO_CLASS, PatchBatch, batches_an_epoch, make_batch, slice_of
from wsi_ml.data.pairs import PairSampler, PatchConfig, store_pixels
from wsi_ml.data.patch_augment import AugmentationSettings, blur_pair
from wsi_ml.errors import BadRequestError


class AtlasBatches:
    """Endless: patches of augmented tiles through the store's kernel and many a JPEG (see pairs.PairSampler).

    `blur` adds the blur of a preset; its geometry is left to `augmentation`, which turns whole tiles and loses nothing.
    An epoch of `length` batches; by default as many as the tiles' area holds patches.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        slides: Mapping[str, list[np.ndarray]],
        patches: PatchConfig,
        augmentation: AugmentConfig,
        seed: int,
        length: int | None = None,
        blur: AugmentationSettings | None = None,
    ):
        if patches.batch % patches.per_tile:
            raise BadRequestError(f"A batch of {patches.batch} is no multiple of {patches.per_tile} patches a tile.")
        self.sampler = PairSampler(dict(slides), patches, augmentation, seed)
        self.seed, self.blur = seed, blur
        area = sum(tile.shape[0] * tile.shape[1] for tiles in slides.values() for tile in tiles)
        self.length = batches_an_epoch(area / (2 * patches.side) ** 2, patches.batch, length)

    def batch(self, index: int) -> PatchBatch:
        """Batch `index`; every row has a ×40 picture and no class."""
        stored, base = self.sampler.batch(index)
        if self.blur is not None:
            rng = np.random.default_rng([self.seed, index, 1])
            pairs = [blur_pair(small, large, self.blur, rng) for small, large in zip(stored, base, strict=True)]
            return make_batch([small for small, _ in pairs], [large for _, large in pairs], [NO_CLASS] * len(pairs))
        return PatchBatch(stored, base, np.ones(len(stored), bool), np.full(len(stored), NO_CLASS, np.int64))

    def __len__(self) -> int:
        return self.length


class FixedPatches:
    """Finite: given patches, in order; for validation and tests."""

    def __init__(
        self,
        stored: Sequence[np.ndarray],
        base: Sequence[np.ndarray | None],
        labels: Sequence[int],
        slides: Sequence[str],
        batch: int,
        classes: tuple[str, ...] = (),
    ):
        if not len(stored) == len(base) == len(labels) == len(slides):
            raise BadRequestError("Fixed patches need a ×40 picture or None, a label and a slide for each.")
        self.stored, self.base, self.labels, self.slides = stored, base, labels, slides
        self.size, self.classes = batch, classes

    def batch(self, index: int) -> PatchBatch:
        """Batch `index`; raises IndexError beyond the end."""
        rows = slice_of(index, self.size, len(self.stored))
        cut = slice(rows.start, rows.stop)
        return make_batch(self.stored[cut], self.base[cut], self.labels[cut])

    def slides_of(self, index: int) -> tuple[str, ...]:
        """Name of the slide of each row of batch `index`."""
        rows = slice_of(index, self.size, len(self.stored))
        return tuple(self.slides[rows.start : rows.stop])

    def __len__(self) -> int:
        return -(-len(self.stored) // self.size)


def fixed_pairs(tiles: Mapping[str, Sequence[np.ndarray]], side: int, batch: int) -> FixedPatches:
    """Finite: every whole square of `side` stored pixels of ×40 tiles, as the store would keep it, slide by slide.

    The tile goes through the store's JPEG whole. Raises BadRequestError where tiles are smaller than one patch.
    """
    stored, base, slides = [], [], []
    for slide, pictures in tiles.items():
        for picture in pictures:
            small = store_pixels(picture)
            for y in range(0, small.shape[0] - side + 1, side):
                for x in range(0, small.shape[1] - side + 1, side):
                    stored.append(small[y : y + side, x : x + side])
                    base.append(picture[2 * y : 2 * (y + side), 2 * x : 2 * (x + side)])
                    slides.append(slide)
    if not stored:
        raise BadRequestError(f"No tile holds a patch of {side} stored pixels; give a smaller side.")
    return FixedPatches(stored, base, [NO_CLASS] * len(stored), slides, batch)
