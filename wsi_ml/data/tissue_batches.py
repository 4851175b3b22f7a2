"""The weakly labelled tissue patches as a source: classes without ×40 pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_ml.data import nuclei_stain
from wsi_ml.data.atlas_batches import FixedPatches
from wsi_ml.data.batches import PatchBatch, batches_an_epoch, make_batch
from wsi_ml.data.patch_augment import AugmentationSettings, blur_pair, draw_pose
from wsi_ml.data.tissue import CLASSES, SIDE, TissuePatch, TissueSampler
from wsi_ml.errors import BadRequestError

CLASS_NAMES = tuple(CLASSES.values())


class TissueBatches:
    """Endless: every class equally often, in other sizes, poses and stains (see tissue.TissueSampler).

    `stain` False leaves colours and sizes alone, as paper A does; but here single classes come from single slides, and
    what is told from a slide's colours is no class. `augmentation` adds the geometry and blur of a preset. A `side`
    below 224 cuts a random square, so that rows can stand beside small pairs. Rows have no ×40 picture.
    """

    classes = CLASS_NAMES

    def __init__(
        self,
        patches: Sequence[TissuePatch],
        batch: int,
        side: int,
        augmentation: AugmentationSettings | None,
        seed: int,
        length: int | None = None,
        stain: bool = True,
    ):
        if not 0 < side <= SIDE:
            raise BadRequestError(f"A tissue patch has {SIDE} px a side; a side of {side} px cannot be cut from it.")
        if not patches:
            raise BadRequestError("There are no tissue patches to train on.")
        self.sampler = TissueSampler(patches, batch, 0.0, seed)
        self.size, self.side, self.seed, self.stain = batch, side, seed, stain
        self.augmentation = augmentation
        self.length = batches_an_epoch(len(patches), batch, length)

    def batch(self, index: int) -> PatchBatch:
        """Batch `index`; no row has a ×40 picture, every row a class."""
        rng = np.random.default_rng([self.seed, index])
        rows = [self._row(rng) for _ in range(self.size)]
        return make_batch([rgb for rgb, _ in rows], [None] * len(rows), [label for _, label in rows])

    def _row(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        rgb, label = self.sampler.varied(rng) if self.stain else self.sampler.plain(rng)
        rgb = draw_pose(self.augmentation, rng).apply(rgb)
        y, x = rng.integers(0, SIDE - self.side + 1, 2)
        rgb = rgb[y : y + self.side, x : x + self.side]
        if self.stain:
            rgb = nuclei_stain.degrade(nuclei_stain.change_light(rgb, rng), rng)
        rgb, _ = blur_pair(rgb, None, self.augmentation, rng)
        return rgb, label

    def __len__(self) -> int:
        return self.length


def fixed_tissue(patches: Sequence[TissuePatch], side: int, batch: int) -> FixedPatches:
    """Finite: the middle `side` pixels of each patch, in order."""
    start = (SIDE - side) // 2
    cut = slice(start, start + side)
    return FixedPatches(
        [patch.rgb[cut, cut] for patch in patches], [None] * len(patches), [patch.label for patch in patches],
        [patch.slide for patch in patches], batch, CLASS_NAMES,
    )  # fmt: skip
