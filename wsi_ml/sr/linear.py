"""The best linear ×2 upsampler of given pictures: what any network has to beat that claims to do more than filter.

Each of the four sub-pixels of a stored pixel, in each colour, is a weighted sum of the 9×9 stored pixels around it in
all three colours and a constant; the weights have the least squared error over the pairs they were fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from wsi_ml.errors import BadRequestError

SIDE = 9
"""Side of the window in stored pixels."""
REACH = SIDE // 2
EVERY = 5
"""Stored pixels between two that are fitted on, along both axes: neighbours say nearly the same."""
CENTRE = 127.5
"""Grey level that is taken off while sums are made: they lose fewer digits."""
RIDGE = 1e-8
"""Variance added to every stored pixel, as a share of CENTRE², so that flat pictures have an answer."""


class LinearUpscaler:
    """RGB uint8 H×W×3 → 2H×2W×3, border repeated; holds float32 weights 2×2×3×9×9×3 and constants 2×2×3."""

    def __init__(self, weights: np.ndarray, constants: np.ndarray):
        self.weights, self.constants = weights, constants

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """The doubled picture, rounded to nearest."""
        planes = cv2.split(np.ascontiguousarray(rgb, np.float32))
        made = np.empty((2 * rgb.shape[0], 2 * rgb.shape[1], 3), np.float32)
        for row, column, colour in np.ndindex(2, 2, 3):
            taps = self.weights[row, column, colour]
            total = np.full(rgb.shape[:2], self.constants[row, column, colour], np.float32)
            for source, plane in enumerate(planes):
                kernel = np.ascontiguousarray(taps[..., source])
                total += cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
            made[row::2, column::2, colour] = total
        return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def fit_linear(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> LinearUpscaler:
    """The upsampler of least squared error over (stored H×W×3, scanned 2H×2W×3) pairs, uint8, by the normal equations.

    Raises BadRequestError when no pair is large enough to hold a window.
    """
    inputs = SIDE * SIDE * 3 + 1
    gram, moments = np.zeros((inputs, inputs)), np.zeros((inputs, 12))
    for stored, base in pairs:
        if min(stored.shape[:2]) < SIDE:
            continue
        seen, wanted = _samples(stored, base)
        gram += seen.T @ seen
        moments += seen.T @ wanted
    if not gram.any():
        raise BadRequestError(f"The linear upsampler needs pictures of at least {SIDE} stored pixels to be fitted on.")
    count, mean, goal = gram[-1, -1], gram[-1, :-1] / gram[-1, -1], moments[-1] / gram[-1, -1]
    spread = gram[:-1, :-1] - count * np.outer(mean, mean)
    np.fill_diagonal(spread, spread.diagonal() + RIDGE * count * CENTRE**2)
    solved = np.linalg.solve(spread, moments[:-1] - count * np.outer(mean, goal)).T
    constants = goal + CENTRE - solved @ (mean + CENTRE)
    weights = solved.reshape(2, 2, 3, SIDE, SIDE, 3)
    return LinearUpscaler(weights.astype(np.float32), constants.reshape(2, 2, 3).astype(np.float32))


def _samples(stored: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows as rows of 9·9·3 values and a one, and the 12 values wanted of each: sub-pixel row, column, colour."""
    windows = np.lib.stride_tricks.sliding_window_view(stored, (SIDE, SIDE), axis=(0, 1))[::EVERY, ::EVERY]
    height, width = windows.shape[:2]
    seen = windows.transpose(0, 1, 3, 4, 2).reshape(height * width, -1).astype(np.float64) - CENTRE
    cells = base[: 2 * stored.shape[0], : 2 * stored.shape[1]].reshape(stored.shape[0], 2, stored.shape[1], 2, 3)
    inner = cells[REACH : stored.shape[0] - REACH : EVERY, :, REACH : stored.shape[1] - REACH : EVERY]
    wanted = inner.transpose(0, 2, 1, 3, 4).reshape(height * width, 12).astype(np.float64) - CENTRE
    return np.concatenate([seen, np.ones((len(seen), 1))], axis=1), wanted
