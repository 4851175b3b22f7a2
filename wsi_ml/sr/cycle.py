"""Cycle error: what the store's kernel makes of synthesised pixels, against the stored pixels they were made from.

A picture that was enlarged rightly gives, halved again by the kernel of the store, the picture it came from. The
difference is known without any scan. It tells whether synthesis agrees with what it was given; it does not tell whether
the detail it added is that of the glass (`benchmarks/results/cycle.md` says how well the one goes with the other).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from wsi_ml.slides.kernel import halve_pixels

CELL = 32
"""Side of a cell in stored pixels: 16 µm at ×20, about one nucleus and what surrounds it."""


class CycleCells(NamedTuple):
    """Cycle error per cell, rows × columns, in grey levels (0…255); cells at the right and bottom may be cut."""

    mean: np.ndarray
    """float32: mean absolute difference over the cell's stored pixels and colours."""
    most: np.ndarray
    """uint8: largest absolute difference of any stored pixel and colour of the cell."""


def cycle_difference(stored_rgb: np.ndarray, upscaled: np.ndarray) -> np.ndarray:
    """|box2(upscaled) − stored| in grey levels, uint8 H×W×3, for stored H×W×3 and upscaled 2H×2W×3, both RGB uint8.

    Raises ValueError when the upscaled picture is not twice the stored one.
    """
    height, width = stored_rgb.shape[:2]
    if upscaled.shape != (2 * height, 2 * width, 3):
        raise ValueError(f"an upscaled picture of shape {upscaled.shape} is not twice one of {stored_rgb.shape}")
    return cv2.absdiff(halve_pixels(np.ascontiguousarray(upscaled)), np.ascontiguousarray(stored_rgb))


def cycle_error(stored_rgb: np.ndarray, upscaled: np.ndarray) -> float:
    """Mean absolute cycle difference of a whole picture in grey levels; raises like `cycle_difference`."""
    return float(cycle_difference(stored_rgb, upscaled).mean())


def cycle_cells(stored_rgb: np.ndarray, upscaled: np.ndarray, cell: int = CELL) -> CycleCells:
    """Cycle error per cell of `cell` × `cell` stored pixels; raises like `cycle_difference`."""
    difference = cycle_difference(stored_rgb, upscaled)
    return CycleCells(cell_means(difference, cell), cell_maxima(difference, cell))


def cell_means(values: np.ndarray, cell: int) -> np.ndarray:
    """float32 rows × columns: mean over cells and colours of H×W×C; a cut cell is the mean of the pixels it has."""
    height, width, colours = values.shape
    rows, columns = np.arange(0, height, cell), np.arange(0, width, cell)
    lines = np.add.reduceat(values.sum(axis=2, dtype=np.float64), rows, axis=0)
    sums = np.add.reduceat(lines, columns, axis=1)
    heights, widths = np.diff(rows, append=height), np.diff(columns, append=width)
    return (sums / (colours * heights[:, None] * widths[None])).astype(np.float32)


def cell_maxima(values: np.ndarray, cell: int) -> np.ndarray:
    """Rows × columns: largest value over cells and colours of H×W×C, in its type."""
    height, width = values.shape[:2]
    lines = np.maximum.reduceat(values.max(axis=2), np.arange(0, height, cell), axis=0)
    return np.maximum.reduceat(lines, np.arange(0, width, cell), axis=1)
