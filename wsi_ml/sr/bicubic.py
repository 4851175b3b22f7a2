"""Bicubic interpolation as an upscaler: the comparison every synthesised tile is held against. Needs no torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from wsi_ml.sr.upscaler import UpscalerCard

SCALE = 2
# Keys' kernel reaches two pixels from the sample; a sub-pixel lies a quarter pixel off the centre, so two rows matter.
HALO = 2
DEFINITION = "bicubic x2, Keys a=-0.75, pixel centres aligned at (i+0.5)/2-0.5, border repeated (OpenCV INTER_CUBIC)"


def definition_sha256() -> str:
    """Hex SHA-256 of the definition: stands in for the weights' hash in addresses and caches."""
    return hashlib.sha256(DEFINITION.encode()).hexdigest()


class BicubicUpscaler:
    """See `wsi_ml.sr.upscaler.Upscaler`."""

    def __init__(self, card: UpscalerCard):
        self.card = card

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """RGB uint8 H×W×3 → 2H×2W×3."""
        height, width = rgb.shape[:2]
        size = (SCALE * width, SCALE * height)
        return cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_CUBIC)

    def batch(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        """Each picture by itself: there is nothing to gain from joining them."""
        return [self(tile) for tile in tiles]
