"""Gradient magnitude similarity deviation: how unevenly edges and texture were kept (Xue et al. 2014). No weights.

W. Xue, L. Zhang, X. Mou, A. C. Bovik, “Gradient Magnitude Similarity Deviation: A Highly Efficient Perceptual Image
Quality Index”, IEEE Transactions on Image Processing 23(2), 2014.
"""

from __future__ import annotations

import numpy as np

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114])
STABILITY = 170.0
"""Constant c of the paper's eq. 4, for grey levels 0…255."""
MIN_SIDE = 8


def gmsd(picture: np.ndarray, truth: np.ndarray) -> float:
    """GMSD of two RGB uint8 H×W×3 pictures: 0 for equal ones, larger is worse, about 0.3 for ruins.

    As the authors' code: the luma (0…255) halved by the mean of 2 × 2 pixels, Prewitt gradients over 3, standard
    deviation (of a sample) of their similarity; but of windows wholly inside the picture, where theirs pads with
    zeros. Raises ValueError for shapes that differ or sides below 8 px.
    """
    if picture.shape != truth.shape or min(picture.shape[:2]) < MIN_SIDE:
        raise ValueError(f"GMSD needs two pictures of one shape, at least {MIN_SIDE} px wide and tall")
    x, y = _gradient(_half(picture @ GREY_WEIGHTS)), _gradient(_half(truth @ GREY_WEIGHTS))
    similarity = (2 * x * y + STABILITY) / (x * x + y * y + STABILITY)
    return float(np.std(similarity, ddof=1))


def _half(grey: np.ndarray) -> np.ndarray:
    """Mean of each 2 × 2 pixels; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in grey.shape)
    return grey[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


def _gradient(grey: np.ndarray) -> np.ndarray:
    """Magnitude of the Prewitt gradient, each mask divided by 3; H×W → (H − 2)×(W − 2)."""
    rows = grey[:-2] + grey[1:-1] + grey[2:]
    columns = grey[:, :-2] + grey[:, 1:-1] + grey[:, 2:]
    across = (rows[:, 2:] - rows[:, :-2]) / 3.0
    down = (columns[2:] - columns[:-2]) / 3.0
    return np.sqrt(across * across + down * down)
