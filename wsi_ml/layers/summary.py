"""The conserved summary: area and count per cell, class and score bin, exact at every level.

The area of a feature is split over the cells it covers by coverage accumulation, as font rasterisers do it: every edge
is cut at the cells' borders, each piece adds the area between itself and the right border to its own cell and its
height to all cells on its right, and a running sum along each row of cells turns heights into areas. Holes run the
other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wsi_ml.geometry import Size, ceil_div
from wsi_ml.layers.columns import (
    NO_SCORE,
    FeatureColumns,
    area_units,
    ragged_indices,
    ring_areas,
    ring_signs,
    starts_of,
)

CELL_SIDE = 128
"""Side of a cell of level 0 in base-plane pixels; each further level doubles it."""
CELL_BITS = 11
"""A cell of level 0 is 2^11 units wide."""
CELL_UNITS = 1 << CELL_BITS
NO_BIN = 255
BIN_STEPS = 100
"""Ten-thousandths of score in one bin: bins are hundredths, and 100 holds exactly 1.0."""
GRID_CELLS = 1 << 20
"""Cells that one pass of the accumulation may hold (one feature alone may hold more)."""
HEIGHT_STEPS = float(1 << 24)
"""Heights are summed along a row of cells in this part of a unit: exact, and far below a unit of area."""
_ROW, _COLUMN, _CLASS = np.uint64(40), np.uint64(24), np.uint64(8)


@dataclass(frozen=True)
class SummaryEntries:
    """Entries of one level, sorted by row, column, class and bin; no two agree in all four."""

    columns: np.ndarray
    """uint16"""
    rows: np.ndarray
    """uint16"""
    class_numbers: np.ndarray
    """uint16"""
    bins: np.ndarray
    """uint16: score in hundredths rounded down (0 to 100), NO_BIN for features without a score."""
    counts: np.ndarray
    """uint32: features whose bounds have their centre in the cell."""
    areas: np.ndarray
    """int64: area inside the cell in units of UNIT_AREA."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def keys(self) -> np.ndarray:
        """uint64 that sorts as the entries do."""
        parts = (self.rows, self.columns, self.class_numbers, self.bins)
        row, column, class_number, score_bin = (part.astype(np.uint64) for part in parts)
        return row << _ROW | column << _COLUMN | class_number << _CLASS | score_bin

    def take(self, rows: np.ndarray) -> SummaryEntries:
        """Entries of these rows (a mask, integers or a slice)."""
        return SummaryEntries(*(getattr(self, name)[rows] for name in _FIELDS))

    def coarser(self) -> SummaryEntries:
        """The same area and count in cells of twice the side."""
        parts = (self.columns >> 1, self.rows >> 1, self.class_numbers, self.bins, self.counts, self.areas)
        return reduced([SummaryEntries(*parts)])


_FIELDS = ("columns", "rows", "class_numbers", "bins", "counts", "areas")


def level_count(base_size: Size) -> int:
    """Number of levels of a summary; the last has one cell."""
    cells = max(ceil_div(base_size.width, CELL_SIDE), ceil_div(base_size.height, CELL_SIDE))
    return (cells - 1).bit_length() + 1


def level_cells(base_size: Size, level: int) -> Size:
    """Columns and rows of cells of one level."""
    side = CELL_SIDE << level
    return Size(ceil_div(base_size.width, side), ceil_div(base_size.height, side))


def score_bins(scores: np.ndarray) -> np.ndarray:
    """uint16 bins of scores in ten-thousandths."""
    return np.where(scores == NO_SCORE, NO_BIN, scores // BIN_STEPS).astype(np.uint16)


def reduced(pieces: Sequence[SummaryEntries]) -> SummaryEntries:
    """All entries sorted, those of equal cell, class and bin added up; at least one piece."""
    joined = SummaryEntries(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in _FIELDS))
    if not len(joined):
        return joined
    keys = joined.keys
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] ^ np.uint64(1)))
    first = joined.take(order[starts])
    counts = np.add.reduceat(joined.counts[order], starts, dtype=np.int64).astype(np.uint32)
    areas = np.add.reduceat(joined.areas[order], starts)
    return SummaryEntries(first.columns, first.rows, first.class_numbers, first.bins, counts, areas)


def no_entries() -> SummaryEntries:
    """A summary of nothing."""
    none = np.empty(0, np.uint16)
    return SummaryEntries(none, none, none, none, none.astype(np.uint32), none.astype(np.int64))


def entries_of(columns: FeatureColumns, base_size: Size) -> Iterator[SummaryEntries]:
    """Entries of level 0 for features, in pieces, not added up; each feature's sum to exactly its area and 1.

    What lies beyond the base plane is counted in the cells at its edge.
    """
    boxes = columns.boxes >> CELL_BITS
    boxes[:, 2:] = np.maximum((columns.boxes[:, 2:] - 1) >> CELL_BITS, boxes[:, :2])
    areas, bins = area_units(columns), score_bins(columns.scores)
    cells = level_cells(base_size, 0)
    widths, heights = (boxes[:, 2:] - boxes[:, :2] + 1).astype(np.int64).T
    alone = widths * heights == 1
    yield _entries(boxes[alone, :2], columns.class_numbers[alone], bins[alone], 1, areas[alone], cells)
    rest = np.flatnonzero(~alone)
    for rows in _passes(rest, (widths * heights)[rest]):
        owners, places, shares = _split(columns.take(rows), boxes[rows], areas[rows])
        centres = (columns.boxes[rows, :2].astype(np.int64) + columns.boxes[rows, 2:]) >> (CELL_BITS + 1)
        # The centre of a box that ends on a cell's border may lie on the border itself: then it is the cell before.
        own = (places == np.minimum(centres, boxes[rows, 2:])[owners]).all(axis=1)
        kept = own | (shares != 0)
        chosen = rows[owners[kept]]
        yield _entries(
            places[kept], columns.class_numbers[chosen], bins[chosen], own[kept].astype(np.uint32), shares[kept], cells
        )


def _entries(
    places: np.ndarray,
    class_numbers: np.ndarray,
    bins: np.ndarray,
    counts: np.ndarray | int,
    areas: np.ndarray,
    cells: Size,
) -> SummaryEntries:
    return SummaryEntries(
        np.clip(places[:, 0], 0, cells.width - 1).astype(np.uint16),
        np.clip(places[:, 1], 0, cells.height - 1).astype(np.uint16),
        class_numbers,
        bins,
        np.broadcast_to(np.asarray(counts, np.uint32), len(places)),
        areas,
    )


def _passes(rows: np.ndarray, cells: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of rows that together need at most GRID_CELLS cells, or one row alone."""
    ends = np.cumsum(cells)
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + GRID_CELLS, side="right")))
        yield rows[start:end]
        start = end


def _split(columns: FeatureColumns, boxes: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row of the feature, its cell as x and y, its area there) for every cell of every feature's box of cells."""
    widths, heights = (boxes[:, 2:] - boxes[:, :2] + 1).astype(np.int64).T
    counts = widths * heights
    starts = starts_of(np.cumsum(counts))
    own, cover = _coverage(columns, boxes, widths, heights, starts, int(counts.sum()))
    owners = np.repeat(np.arange(len(columns)), counts)
    inside = np.arange(len(owners)) - starts[owners]
    places = boxes[owners, :2] + np.stack([inside % widths[owners], inside // widths[owners]], axis=1)
    # In whole numbers, for a running sum of floats would make one feature's shares hang on those before it.
    steps = np.rint(cover * HEIGHT_STEPS).astype(np.int64)
    before = np.cumsum(steps) - steps
    left = (before - before[np.arange(len(owners)) - inside % widths[owners]]) / HEIGHT_STEPS
    found = 2 * (own + left * CELL_UNITS)
    return owners, places, _rounded(found, starts, counts, areas)


def _rounded(found: np.ndarray, starts: np.ndarray, counts: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Areas as whole units that sum to each feature's exactly: the largest cell takes what rounding leaves."""
    shares = np.rint(found).astype(np.int64)
    left = areas - np.add.reduceat(shares, starts)
    # Rings that cross themselves have no area that could be split: theirs goes to one cell.
    crossed = (np.abs(left) > counts) | (np.minimum.reduceat(shares, starts) < 0)
    if crossed.any():
        shares[ragged_indices(starts[crossed], counts[crossed])] = 0
        left[crossed] = areas[crossed]
    most = np.repeat(np.maximum.reduceat(shares, starts), counts)
    candidates = np.flatnonzero(shares == most)
    owners = np.repeat(np.arange(len(starts)), counts)[candidates]
    first = candidates[np.unique(owners, return_index=True)[1]]
    shares[first] += left
    return shares


def _coverage(
    columns: FeatureColumns,
    boxes: np.ndarray,
    widths: np.ndarray,
    heights: np.ndarray,
    starts: np.ndarray,
    total: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Per cell: square units between the edges in it and its right border, and the height of those edges, signed."""
    owners, a, b = _edges(columns)
    # Counted from the left top cell of each feature's box, so that sums stay small and their rounding harmless.
    corner = boxes[owners, :2].astype(np.int64) << CELL_BITS
    owners, a, b = _cut(owners, (a - corner).astype(np.float64), (b - corner).astype(np.float64))
    middle, heights_of = (a + b) / 2, b[:, 1] - a[:, 1]
    cell_x, cell_y = np.floor(middle / CELL_UNITS).astype(np.int64).T
    # An edge along the right border of the box has nothing to its right that is in the box.
    inside = (cell_x < widths[owners]) & (cell_y < heights[owners])
    owners, cell_x, cell_y = owners[inside], cell_x[inside], cell_y[inside]
    heights_of, middle_x = heights_of[inside], middle[inside, 0]
    place = starts[owners] + cell_y * widths[owners] + cell_x
    own = np.bincount(place, heights_of * ((cell_x + 1) * CELL_UNITS - middle_x), total)
    return own, np.bincount(place, heights_of, total)


def _edges(columns: FeatureColumns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(feature, from, to) of every edge that is not level; outlines run one way round, holes the other."""
    starts, ends = starts_of(columns.point_ends), columns.point_ends.astype(np.int64)
    after = np.arange(1, len(columns.points) + 1)
    after[ends - 1] = starts
    areas = ring_areas(columns)
    turned = np.repeat(ring_signs(columns, areas) > 0, ends - starts)[:, None]
    here, there = columns.points.astype(np.int64), columns.points[after].astype(np.int64)
    owners = np.repeat(np.arange(len(columns)), np.diff(columns.feature_point_ends, prepend=0))
    steep = here[:, 1] != there[:, 1]
    a, b = np.where(turned, there, here), np.where(turned, here, there)
    return owners[steep], a[steep], b[steep]


def _cut(owners: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same edges cut wherever they cross a border of cells."""
    low, high = np.minimum(a, b) / CELL_UNITS, np.maximum(a, b) / CELL_UNITS
    first = np.floor(low).astype(np.int64) + 1
    crossings = np.maximum(np.ceil(high).astype(np.int64) - first, 0)
    cut = crossings.any(axis=1)
    if not cut.any():
        return owners, a, b
    whole = ~cut
    rows = np.flatnonzero(cut)
    edges, times = [np.repeat(rows, 2)], [np.tile([0.0, 1.0], len(rows))]
    for axis in (0, 1):
        count = crossings[rows, axis]
        edge = np.repeat(rows, count)
        border = ragged_indices(first[rows, axis], count) * float(CELL_UNITS)
        times.append((border - a[edge, axis]) / (b[edge, axis] - a[edge, axis]))
        edges.append(edge)
    edge, time = np.concatenate(edges), np.concatenate(times)
    order = np.lexsort((time, edge))
    edge, time = edge[order], time[order]
    points = np.where(time[:, None] == 1, b[edge], a[edge] + (b[edge] - a[edge]) * time[:, None])
    pairs = np.flatnonzero(edge[1:] == edge[:-1])
    return (
        np.concatenate([owners[whole], owners[edge[pairs]]]),
        np.concatenate([a[whole], points[pairs]]),
        np.concatenate([b[whole], points[pairs + 1]]),
    )
