"""Which windows of a slide a predictor sees: a grid over its tissue, in a fixed order and in fixed batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size, ceil_div
from wsi_ml.inference.card import PredictorCard
from wsi_ml.inference.tissue import TissueMask

STRIP = 4096
"""Stored pixels, about, of a strip of windows: strips are walked column by column, so that few tiles are decoded twice
and few decoded ones have to be kept."""


@dataclass(frozen=True)
class Grid:
    """Windows of a stored plane. Window (column, row) tells the stored pixels from step·column, step·row on."""

    stored_size: Size
    core: int
    """Side of what a window tells, in stored pixels."""
    halo: int
    """What it sees beyond that on each side."""
    step: int
    """Stored pixels from a window to the next; less than `core` where windows overlap."""
    stride: int
    """Stored pixels per map pixel of the stitched map: the predictor's, or a fraction of it where windows overlap."""
    windows: np.ndarray
    """n × 2 int32, column and row, in the order of computing."""
    stored_region: Region
    """What was asked for; the map is zero outside it."""

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def counts(self) -> Size:
        """Columns and rows of the whole grid, windows without tissue among them."""
        return Size(ceil_div(self.stored_size.width, self.step), ceil_div(self.stored_size.height, self.step))

    @property
    def map_size(self) -> Size:
        """Size of the stitched map in map pixels."""
        return Size(ceil_div(self.stored_size.width, self.stride), ceil_div(self.stored_size.height, self.stride))

    @property
    def map_region(self) -> Region:
        """`stored_region` in map pixels, rounded outwards."""
        x, y = self.stored_region.x // self.stride, self.stored_region.y // self.stride
        x_end, y_end = (ceil_div(end, self.stride) for end in (self.stored_region.x_end, self.stored_region.y_end))
        return Region(x, y, x_end - x, y_end - y)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Rows × columns int32: number of the window at each place of the grid, -1 where there is none."""
        numbers = np.full((self.counts.height, self.counts.width), -1, np.int32)
        numbers[self.windows[:, 1], self.windows[:, 0]] = np.arange(len(self.windows))
        return numbers

    def stored_window(self, number: int) -> Region:
        """All that a window sees, halo included, in stored pixels; it may reach beyond the plane."""
        column, row = (int(each) for each in self.windows[number])
        side = self.core + 2 * self.halo
        return Region(column * self.step - self.halo, row * self.step - self.halo, side, side)


def make_grid(
    card: PredictorCard, stored_size: Size, stored_region: Region, tissue: TissueMask, overlap: float = 0.0
) -> Grid:
    """The grid of a predictor over the tissue of a region (stored pixels, inside the plane).

    `overlap` is the share of a window that the next one tells again (0 ≤ overlap < 1). Raises BadRequestError when
    the predictor's windows cannot overlap by that.
    """
    step = step_of(card, overlap)
    columns, rows = (ceil_div(side, step) for side in stored_size)
    x0, y0 = np.arange(columns) * step, np.arange(rows) * step
    x_spans = _spans(x0, card.core, stored_region.x, stored_region.x_end, tissue, tissue.mask.shape[1])
    y_spans = _spans(y0, card.core, stored_region.y, stored_region.y_end, tissue, tissue.mask.shape[0])
    found = np.argwhere(_sums(tissue.mask, y_spans, x_spans) > 0)
    windows = _in_strips(found[:, ::-1], step)
    return Grid(stored_size, card.core, card.halo, step, math.gcd(card.stride, step), windows, stored_region)


def chosen_grid(card: PredictorCard, stored_size: Size, stored_region: Region, windows: np.ndarray) -> Grid:
    """The grid of those of a predictor's own windows (n × 2, column and row) whose cores meet a region."""
    low = windows * card.core
    first, last = np.array(stored_region[:2]), np.array([stored_region.x_end, stored_region.y_end])
    meeting = ((low < last) & (low + card.core > first)).all(axis=1)
    ordered = _in_strips(windows[meeting], card.core)
    return Grid(stored_size, card.core, card.halo, card.core, card.stride, ordered, stored_region)


def _in_strips(windows: np.ndarray, step: int) -> np.ndarray:
    """Windows (column, row) in the order of computing, int32."""
    column, row = windows[:, 0], windows[:, 1]
    return windows[np.lexsort((row, column, row // max(1, STRIP // step)))].astype(np.int32)


def step_of(card: PredictorCard, overlap: float) -> int:
    """Stored pixels from window to window; raises BadRequestError for an overlap the predictor cannot do."""
    step = round(card.core * (1 - overlap))
    multiple = int(card.about.get("multiple", 1))
    if step < 1 or step % multiple or (card.kind != "patch" and step % card.stride):
        unit = multiple if card.kind == "patch" else math.lcm(multiple, card.stride)
        raise BadRequestError(
            f"Windows of {card.name} cannot overlap by {overlap:g}: {card.core} × (1 − overlap) must be a multiple "
            f"of {unit} stored pixels."
        )
    return step


def batch_size(card: PredictorCard, numbers: str) -> int:
    """Windows in a batch where nobody says: small on a CPU, whose caches they must fit, large on a GPU."""
    pixels = 1 << (23 if numbers.startswith("cuda") else 19)
    return max(1, min(256, pixels // card.side**2))


def _spans(starts: np.ndarray, core: int, low: int, high: int, tissue: TissueMask, length: int) -> np.ndarray:
    """N × 2: first and one past last mask pixel of each window's core within the region, equal where it has none."""
    step = 1 << tissue.halvings
    first, last = np.maximum(starts, low), np.minimum(starts + core, high)
    spans = np.stack([first // step, -(-last // step)], axis=1)
    spans[first >= last] = 0
    return np.clip(spans, 0, length)


def _sums(mask: np.ndarray, y_spans: np.ndarray, x_spans: np.ndarray) -> np.ndarray:
    """Rows × columns: how many pixels of a mask are set in each pair of spans (by its summed-area table)."""
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    table[1:, 1:] = mask.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    y0, y1, x0, x1 = y_spans[:, :1], y_spans[:, 1:], x_spans[None, :, 0], x_spans[None, :, 1]
    return table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
