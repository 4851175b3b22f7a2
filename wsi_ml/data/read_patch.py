"""A patch as it was read from a slide, and what the training sees of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsi_ml.data.pairs import store_pixels
from wsi_ml.data.patch_augment import AugmentationSettings, blur_pair, draw_pose
from wsi_ml.slides.kernel import halve_pixels

BLOCK_SIDE = 8
"""Pixels of a JPEG block. The store's blocks lie on a grid from the slide's corner; a patch seldom does."""
MARGIN = 2 * BLOCK_SIDE
"""×40 pixels read on every side of a patch that is to be stored: room for whole blocks around it."""


class ReadPatch(NamedTuple):
    """Pixels of one place; `stored` is None where it is yet to be made of `base`, by the store's kernel and JPEG."""

    stored: np.ndarray | None
    """uint8 S×S×3, as the slide's own level has it."""
    base: np.ndarray | None
    """uint8 ×40: 2S×2S×3 beside `stored`, with a margin of 16 px on every side without; None where there is none."""
    phase: tuple[int, int] = (0, 0)
    """Columns and rows of the stored plane between the block before the patch and the patch, 0 to 7."""

    def seen(self) -> np.ndarray:
        """The ×20 pixels before any JPEG of ours."""
        if self.stored is not None:
            return self.stored
        return halve_pixels(_inner(self._area()))

    def finished(
        self, settings: AugmentationSettings | None = None, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The pair of ×20 and ×40 (None where there is none), varied by `settings` with `rng`.

        The pose comes before kernel and JPEG, which then see upright pixels, as in the product. Unvaried, the blocks
        lie as on the slide, so the ×20 patch has the very pixels that an ingestion by the kernel `box2` stores.
        """
        if settings is None or rng is None:
            settings, rng, phase = None, np.random.default_rng(0), self.phase
        else:
            x, y = rng.integers(0, BLOCK_SIDE, 2)
            phase = int(x), int(y)
        pose = draw_pose(settings, rng)
        if self.stored is not None:
            base = None if self.base is None else pose.apply(self.base)
            return blur_pair(pose.apply(self.stored), base, settings, rng)
        area = pose.apply(self._area())
        return blur_pair(_stored(area, phase), np.ascontiguousarray(_inner(area)), settings, rng)

    def _area(self) -> np.ndarray:
        if self.base is None:
            raise ValueError("neither picture was read")
        return self.base


def _inner(area: np.ndarray) -> np.ndarray:
    """The ×40 patch without its margin."""
    return area[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _stored(area: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """What the store keeps of the patch in the middle of a ×40 area, whose blocks start `phase` pixels before it."""
    x, y = phase
    side = (area.shape[0] - 2 * MARGIN) // 2
    return store_pixels(area[MARGIN - 2 * y :, MARGIN - 2 * x :])[y : y + side, x : x + side]
