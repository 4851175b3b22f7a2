"""Estimated difference: how far synthesised pixels are likely to be from a scan, by how much fine detail lies there.

An upscaler errs where there is much to synthesise. The detail of the stored pixels says so far better than the cycle
error does (`benchmarks/results/cycle.md`), and a monotone table per upscaler turns it into grey levels. The table is
fitted on slides whose scan is known (`train/calibrate_trust.py`) and kept in the upscaler's card, field `trust`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from wsi_ml.sr.cycle import CELL, cell_means

MOST_KNOTS = 12
SHARES = (0, 0.01, 0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.85, 0.92, 0.97, 0.99, 1)
"""Shares of the cells, in the order of their detail, between which a knot stands: finer at both ends, where cells are
few and the curve bends."""


@dataclass(frozen=True)
class Calibration:
    """Estimated mean |SR − scan| of a cell in grey levels as a function of its detail, linear between knots."""

    knots: tuple[tuple[float, float], ...]
    """(detail, difference) in grey levels, 2 to MOST_KNOTS; detail rises, difference never falls."""

    def __call__(self, detail: np.ndarray) -> np.ndarray:
        """float32 of the shape of `detail`; below the first knot and above the last the value is theirs."""
        details, differences = zip(*self.knots, strict=True)
        return np.interp(detail, details, differences).astype(np.float32)


def detail_picture(stored_rgb: np.ndarray) -> np.ndarray:
    """int16 H×W×3: absolute Laplacian (4 neighbours less 4 times the pixel) of each colour, in grey levels, 0…1020.

    The picture is mirrored at its edge. A pixel needs its neighbours only: a part is right except for its outermost px.
    """
    return np.abs(cv2.Laplacian(np.ascontiguousarray(stored_rgb), cv2.CV_16S, ksize=1))


def detail_cells(stored_rgb: np.ndarray, cell: int = CELL) -> np.ndarray:
    """float32 rows × columns: mean detail of each cell of `cell` × `cell` stored pixels, RGB uint8, in grey levels."""
    return cell_means(detail_picture(stored_rgb), cell)


def fit_calibration(detail: np.ndarray, true: np.ndarray) -> Calibration:
    """The table that cells of known difference make: means of groups by detail, pooled until none falls.

    Pool-adjacent-violators (Ayer et al. 1955) gives the least-squares monotone values. Raises ValueError when the cells
    have fewer than two different details.
    """
    order = np.argsort(detail, kind="stable")
    edges = np.unique(np.rint(np.array(SHARES) * len(order)).astype(int))
    groups = [order[start:end] for start, end in pairwise(edges)]
    counts = np.array([len(group) for group in groups])
    differences = pooled(np.array([true[group].mean() for group in groups]), counts)
    knots: dict[float, float] = {}
    for group, difference in zip(groups, differences, strict=True):
        knots[round(float(detail[group].mean()), 3)] = round(float(difference), 3)
    if len(knots) < 2:
        raise ValueError("a calibration needs cells of different detail")
    return Calibration(tuple(knots.items()))


def pooled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64: the series that never falls and lies nearest to `values` in weighted squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        block = (float(value), float(weight), 1)
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            weight_of_both = before[1] + block[1]
            mean = (before[0] * before[1] + block[0] * block[1]) / weight_of_both
            block = (mean, weight_of_both, before[2] + block[2])
        blocks.append(block)
    return np.repeat([value for value, _, _ in blocks], [count for _, _, count in blocks])


def calibration_from_knots(knots: Any) -> Calibration:
    """The calibration of a JSON list of pairs; raises ValueError that says what is wrong with it."""
    try:
        pairs = tuple((float(detail), float(difference)) for detail, difference in knots)
    except (TypeError, ValueError) as error:
        raise ValueError("trust.knots is no list of pairs of numbers") from error
    values = np.array(pairs)
    if not 2 <= len(pairs) <= MOST_KNOTS or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"trust.knots must be 2 to {MOST_KNOTS} pairs of grey levels")
    if (np.diff(values[:, 0]) <= 0).any() or (np.diff(values[:, 1]) < 0).any():
        raise ValueError("trust.knots must rise")
    return Calibration(pairs)


def calibration_of(trust: Mapping[str, Any], sha256: str) -> Calibration | None:
    """The calibration in a card's field `trust` for weights of that hash; None where there is none, or one of others.

    Raises ValueError that says what is wrong with the field.
    """
    if not trust:
        return None
    calibration = calibration_from_knots(trust.get("knots"))
    return calibration if trust.get("sha256") == sha256 else None
