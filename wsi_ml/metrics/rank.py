"""Rank correlation: how well one measure puts things in the order of another, whatever the units."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 of N values, float64; equal values have the mean of their ranks."""
    values = np.asarray(values).ravel()
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's ρ of two equally long series, −1…1; NaN where one of them is constant or holds fewer than two values.

    Pearson's correlation of mean ranks (Spearman 1904), so ties are right. Raises ValueError for other lengths.
    """
    if np.size(one) != np.size(other):
        raise ValueError(f"the series have {np.size(one)} and {np.size(other)} values")
    x, y = ranks(one), ranks(other)
    if len(x) < 2:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else float("nan")
