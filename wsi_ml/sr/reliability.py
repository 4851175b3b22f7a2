"""How well an estimated difference holds where the scan is known: rank correlation, and estimate against truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np

from wsi_ml.metrics.rank import rank_correlation
from wsi_ml.sr.calibration import Calibration, detail_cells
from wsi_ml.sr.cycle import CELL, CycleCells, cell_means, cycle_cells


class JudgedCells(NamedTuple):
    """A value for each cell of some pictures, all in grey levels, 1-D and equally long."""

    detail: np.ndarray
    """Of the stored pixels; see `wsi_ml.sr.calibration`."""
    cycle_mean: np.ndarray
    cycle_most: np.ndarray
    true: np.ndarray
    """Mean absolute difference of synthesised pixels and scan."""

    @property
    def cycle(self) -> CycleCells:
        """The cycle error of the cells."""
        return CycleCells(self.cycle_mean, self.cycle_most)


def judge(upscale: Callable[[np.ndarray], np.ndarray], pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> JudgedCells:
    """The cells of (stored, scanned) pictures, RGB uint8 H×W×3 and 2H×2W×3."""
    found = []
    for stored, base in pairs:
        made = upscale(stored)
        true = cell_means(cv2.absdiff(made, base), 2 * CELL)
        found.append([each.ravel() for each in (detail_cells(stored), *cycle_cells(stored, made), true)])
    return JudgedCells(*(np.concatenate(each) for each in zip(*found, strict=True)))


def joined(parts: Iterable[JudgedCells]) -> JudgedCells:
    """The cells of several slides as those of one."""
    return JudgedCells(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def held_up(calibration: Calibration, cells: JudgedCells) -> dict[str, Any]:
    """How the estimate did on cells it was not fitted on: means in grey levels, and Spearman's ρ with the truth.

    `off` is the mean |estimate − truth| of a cell, `cycle_correlation` the ρ of the cycle error beside it; a ρ is None
    where one of the two is the same in all cells, which have no order then (JSON knows no NaN).
    """
    estimated = calibration(cells.detail)
    return {
        "cells": len(cells.true),
        "true": round(float(cells.true.mean()), 3),
        "estimated": round(float(estimated.mean()), 3),
        "off": round(float(np.abs(estimated - cells.true).mean()), 3),
        "correlation": _order(estimated, cells.true),
        "cycle_correlation": _order(cells.cycle_mean, cells.true),
    }


def _order(values: np.ndarray, truth: np.ndarray) -> float | None:
    found = rank_correlation(values, truth)
    return None if math.isnan(found) else round(found, 3)


def reliability(calibration: Calibration, cells: JudgedCells, limits: Sequence[float]) -> list[dict[str, Any]]:
    """Estimate against truth by ranges of the estimate, ranges without cells left out; the last ends nowhere.

    `p5` and `p95` are quantiles of the true difference; everything is in grey levels.
    """
    estimated, rows = calibration(cells.detail), []
    for low, high in pairwise((-np.inf, *limits, np.inf)):
        inside = (estimated > low) & (estimated <= high)
        if inside.any():
            true = cells.true[inside]
            rows.append({
                "above": round(max(low, 0.0), 3), "to": None if high == np.inf else round(high, 3),
                "cells": int(inside.sum()), "estimated": round(float(estimated[inside].mean()), 3),
                "true": round(float(true.mean()), 3), "p5": round(float(np.quantile(true, 0.05)), 3),
                "p95": round(float(np.quantile(true, 0.95)), 3),
            })  # fmt: skip
    return rows
