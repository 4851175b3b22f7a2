"""Fidelity of a synthesised tile: how like the scan it is, as it is served.

The measure is `wsi_ml.metrics.image.ssim` (SSIM with a 7×7 uniform window, mean over colours), computed with OpenCV's
box filter: the same number to within 1e-9, an order of magnitude sooner, for a slide has a hundred thousand tiles.
"""

from __future__ import annotations

import cv2
import numpy as np

from wsi_ml.metrics.image import C1, C2, UNIFORM_SIDE
from wsi_ml.slides.codec import SERVED_QUALITY, SERVED_SUBSAMPLING, decode_jpeg
from wsi_ml.sr.synthesis import SYNTHESIS_CODE

SERVED_TEXT = f"JPEG quality {SERVED_QUALITY} {':'.join(SERVED_SUBSAMPLING)}, code {SYNTHESIS_CODE}"
"""How the compared tile is encoded, for the identity of kept tiles: another encoding is another comparison."""
DEFAULT_FLOOR = 0.95
"""Recommended floor: what ordinary tissue reaches (docs/faithful.md), so that only exceptions are kept."""


def fidelity(shown: np.ndarray, scan: np.ndarray) -> float:
    """SSIM of two uint8 RGB pictures of one size, −1…1; sides under 7 px are repeated at their edge up to 7 first.

    Raises ValueError when the shapes differ.
    """
    if shown.shape != scan.shape:
        raise ValueError(f"the pictures differ in shape: {shown.shape} and {scan.shape}")
    x, y = _at_least_a_window(shown), _at_least_a_window(scan)
    count = UNIFORM_SIDE * UNIFORM_SIDE
    mean_x, mean_y = _window_means(x), _window_means(y)
    correction = count / (count - 1)
    square = _window_means(x * x) + _window_means(y * y) - mean_x * mean_x - mean_y * mean_y
    cov = correction * (_window_means(x * y) - mean_x * mean_y)
    numerator = (2 * mean_x * mean_y + C1) * (2 * cov + C2)
    denominator = (mean_x * mean_x + mean_y * mean_y + C1) * (correction * square + C2)
    return float(np.mean(numerator / denominator))


def served_fidelity(data: bytes, scan: np.ndarray) -> float:
    """Fidelity of a tile's JPEG, as it is served, to the scan's tile."""
    return fidelity(decode_jpeg(data), scan)


def _at_least_a_window(rgb: np.ndarray) -> np.ndarray:
    """The picture as float64, no side smaller than the window."""
    height, width = rgb.shape[:2]
    missing = max(0, UNIFORM_SIDE - height), max(0, UNIFORM_SIDE - width)
    if any(missing):
        rgb = cv2.copyMakeBorder(np.ascontiguousarray(rgb), 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    return rgb.astype(np.float64)


def _window_means(values: np.ndarray) -> np.ndarray:
    """Mean in every window that lies wholly inside."""
    half = UNIFORM_SIDE // 2
    means = cv2.boxFilter(values, cv2.CV_64F, (UNIFORM_SIDE, UNIFORM_SIDE))
    return means[half:-half, half:-half]
