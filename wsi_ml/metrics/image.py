"""Fidelity of a picture to its truth: PSNR and SSIM of uint8 RGB pictures, numpy only.

Two SSIM definitions are in use and give different numbers, so results must name theirs:

* `ssim` — the mean over colours of SSIM (Wang et al. 2004, eq. 13) with a 7×7 uniform window, sample covariance,
  windows wholly inside the picture; what `skimage.metrics.structural_similarity(channel_axis=-1)` gives by default
* `ssim_gaussian` — the mean over colours with an 11×11 Gaussian window, σ 1.5, as BasicSR reports it; `ssim_luma` is
  the same of the luma alone (its option `test_y_channel`)
"""

from __future__ import annotations

import numpy as np

PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
UNIFORM_SIDE = 7
GAUSSIAN_SIDE, GAUSSIAN_SIGMA = 11, 1.5


def mean_squared_error(picture: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared difference over all pixels and colours; raises ValueError when the shapes differ."""
    if picture.shape != truth.shape:
        raise ValueError(f"the pictures differ in shape: {picture.shape} and {truth.shape}")
    difference = picture.astype(np.float32) - truth.astype(np.float32)
    return float(np.mean(difference * difference, dtype=np.float64))


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """10·log10(255² / MSE) in dB over all pixels and colours, no border cut; infinite for equal pictures."""
    error = mean_squared_error(picture, truth)
    return float("inf") if error == 0.0 else 10.0 * float(np.log10(PEAK * PEAK / error))


def psnr_luma(picture: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in dB of the luma of ITU-R BT.601 in its 16…235 range, unrounded, as super-resolution papers give it."""
    return psnr(luma(picture), luma(truth))


def luma(rgb: np.ndarray) -> np.ndarray:
    """Luma of ITU-R BT.601 in its 16…235 range, unrounded, float64 H×W, of a H×W×3 picture."""
    return rgb @ (np.array([65.481, 128.553, 24.966]) / 255.0) + 16.0


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """SSIM with the 7×7 uniform window (see module), 0…1; sides must be at least 7."""
    weights = np.full(UNIFORM_SIDE, 1.0 / UNIFORM_SIDE)
    count = UNIFORM_SIDE * UNIFORM_SIDE
    return _ssim(picture, truth, weights, count / (count - 1))


def ssim_gaussian(picture: np.ndarray, truth: np.ndarray) -> float:
    """SSIM with the 11×11 Gaussian window (see module), 0…1; sides must be at least 11."""
    offsets = np.arange(GAUSSIAN_SIDE) - GAUSSIAN_SIDE // 2
    weights = np.exp(-(offsets**2) / (2 * GAUSSIAN_SIGMA**2))
    return _ssim(picture, truth, weights / weights.sum(), 1.0)


def ssim_luma(picture: np.ndarray, truth: np.ndarray) -> float:
    """`ssim_gaussian` of the luma alone."""
    return ssim_gaussian(luma(picture), luma(truth))


def _ssim(picture: np.ndarray, truth: np.ndarray, weights: np.ndarray, correction: float) -> float:
    """Mean SSIM of H×W or H×W×C pictures under a separable window; `correction` turns variance into sample variance."""
    if picture.shape != truth.shape or min(picture.shape[:2]) < len(weights):
        raise ValueError(f"SSIM needs two pictures of one shape, at least {len(weights)} px wide and tall")
    x, y = picture.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _window_mean(x, weights), _window_mean(y, weights)
    var_x = correction * (_window_mean(x * x, weights) - mean_x * mean_x)
    var_y = correction * (_window_mean(y * y, weights) - mean_y * mean_y)
    cov = correction * (_window_mean(x * y, weights) - mean_x * mean_y)
    numerator = (2 * mean_x * mean_y + C1) * (2 * cov + C2)
    denominator = (mean_x * mean_x + mean_y * mean_y + C1) * (var_x + var_y + C2)
    return float(np.mean(numerator / denominator))


def _window_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean in every window that lies wholly inside, by two passes of one dimension."""
    rows = _line_mean(values, weights)
    return _line_mean(rows.swapaxes(0, 1), weights).swapaxes(0, 1)


def _line_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean along the first axis; one shifted add per tap, an order faster than a sliding view's product."""
    length = len(values) - len(weights) + 1
    total = weights[0] * values[:length]
    for tap in range(1, len(weights)):
        total += weights[tap] * values[tap : tap + length]
    return total
