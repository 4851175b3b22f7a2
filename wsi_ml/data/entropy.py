"""The patch filter of paper A, which it calls entropy and which is a gate on brightness."""

from __future__ import annotations

import numpy as np

GATE = 0.2
SMALL = 0.001
"""Keeps the logarithm of a black pixel finite."""


def brightness_entropy(rgb: np.ndarray) -> float:
    """H = −mean(p · log2(p + 0.001)) over the pixels, p = mean of RGB in 0…1, for uint8 H×W×3.

    Not the entropy of a histogram: every pixel counts by its own brightness, whatever the others are. Of one grey it is
    largest, 0.53, at p ≈ 0.37 and falls to 0 towards black and white (paper A, equation 1, with the mean and the 0.001
    of the authors' program).
    """
    # Means of three bytes take 766 values: the sum over pixels is one over those.
    sums = rgb[..., 0].astype(np.uint16) + rgb[..., 1] + rgb[..., 2]  # thrice as fast as a sum over the last axis
    counts = np.bincount(sums.ravel(), minlength=766)
    p = np.arange(766) / 765.0
    return float(-(counts * p * np.log2(p + SMALL)).sum() / counts.sum())


def passes_brightness_gate(rgb: np.ndarray) -> bool:
    """True where the entropy above exceeds 0.2: of flat patches, those with 0.0450 < p < 0.8482 (grey 11.5 to 216.3).

    Meant to leave out glass; it leaves out very dark places as well, and keeps grey dirt.
    """
    return brightness_entropy(rgb) > GATE
