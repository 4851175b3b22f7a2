"""The one downsampling kernel of the store: mean of 2 × 2 pixels, rounded to nearest, applied once per halving."""

from __future__ import annotations

import cv2
import numpy as np

KERNEL = "box2"


def halve_pixels(rgb: np.ndarray) -> np.ndarray:
    """Half-size picture, uint8 H×W×3 → ceil(H/2)×ceil(W/2)×3; an odd last row or column is repeated first.

    Each value is floor((a + b + c + d + 2) / 4): the mean of the four pixels rounded to nearest.
    """
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = cv2.copyMakeBorder(rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
