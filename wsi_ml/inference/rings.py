"""Borders of regions of pixels as closed rings of integer corners: exact, and always rings that OGC calls simple.

Pixel (column, row) covers the square from (column, row) to (column + 1, row + 1). Rings keep their region on the left
in raw coordinates (on a screen, where y points down, they run clockwise), so outlines have a positive shoelace area
and holes a negative one.

Where two pixels of one region touch by a corner only, the rings are led so that the region passes through the corner
and what surrounds it is parted. A 4-connected region is joined elsewhere too, so no ring of it comes by the corner
twice: the corner becomes a point where an outline and a hole, or two holes, touch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

EAST, SOUTH, WEST, NORTH = range(4)
SHORT = 192
"""Rings up to this many corners are walked side by side, longer ones are ranked by pointer doubling."""


@dataclass(frozen=True)
class Border:
    """Corners of the regions of an image, sorted by rows and columns; each is one visit of one ring to a point."""

    points: np.ndarray
    """n × 2 int32 (x, y)."""
    regions: np.ndarray
    """The value of the region that the corner belongs to."""
    after: np.ndarray
    """Index of the corner that follows on the ring."""
    pinches: np.ndarray
    """m × 2, pairs of corners of one region at the same point."""


@dataclass(frozen=True)
class Rings:
    """Closed rings one after the other, sorted by region; the first point of a ring is not repeated at its end.

    Each ring starts at its point that comes first by rows, and the rings of a region are sorted by that point. So a
    4-connected region has its outline first and its holes after it.
    """

    points: np.ndarray
    """n × 2 (x, y)."""
    ends: np.ndarray
    """Where each ring ends in `points`."""
    regions: np.ndarray
    """Value of the region of each ring, rising."""
    corners: np.ndarray
    """Index in the traced Border of each point."""

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def starts(self) -> np.ndarray:
        """Where each ring starts in `points`."""
        return ring_starts(self.ends)

    def areas(self) -> np.ndarray:
        """Twice the signed area of each ring, exact for integer points."""
        if not len(self):
            return np.zeros(0, np.int64)
        x, y = self.points[:, 0].astype(np.int64), self.points[:, 1].astype(np.int64)
        after = following(self.ends)
        return np.add.reduceat(x * y[after] - x[after] * y, self.starts)


def ring_starts(ends: np.ndarray) -> np.ndarray:
    """Where rings start that lie one after the other and end at `ends`."""
    return np.concatenate([[0], ends[:-1]]).astype(np.intp) if len(ends) else np.zeros(0, np.intp)


def following(ends: np.ndarray) -> np.ndarray:
    """Index of the point after each, round its ring, for rings that end at `ends`."""
    after = np.arange(1, (ends[-1] if len(ends) else 0) + 1)
    after[ends - 1] = ring_starts(ends)
    return after


def trace(regions: np.ndarray, *, nodes: bool = False, framed: bool = False) -> Border:
    """Corners of the regions of an integer image H×W; `order_rings` puts them into rings.

    Values above 0 are regions, the rest is left out. With `nodes` a straight border has a corner, too, where two other
    values meet on it: then neighbours have the same points along a shared border. With `framed` the outermost pixels
    only tell what lies beyond; their values must be ≤ 0, and coordinates count from the pixel inside them.
    """
    padded = regions if framed else np.pad(regions, 1)
    at, quads = _turning_points(padded)
    width = padded.shape[1] - 1
    columns = at % width
    by_column = np.argsort(columns.astype(np.uint16) if width < 1 << 16 else columns, kind="stable")
    turns, owners = _turns(quads, nodes)
    numbers = np.full((len(at), 4), -1, np.int32)
    place = np.flatnonzero(owners.ravel())
    numbers.ravel()[place] = np.arange(len(place), dtype=np.int32)
    after = np.empty(len(place), np.int32)
    for way, order in ((EAST, None), (WEST, None), (SOUTH, by_column), (NORTH, by_column)):
        left, reached = np.flatnonzero(_ordered(owners[:, way] > 0, order)), _ordered(turns[:, way] >= 0, order)
        reached = np.flatnonzero(reached)
        if order is not None:
            left, reached = order[left], order[reached]
        # Along one line the runs of one direction follow one another, so the n-th start belongs to the n-th end.
        after[numbers[left, way]] = numbers[reached, turns[reached, way]]
    point = place >> 2
    points = np.stack([columns[point], at[point] // width], -1).astype(np.int32)
    return Border(points, owners.ravel()[place], after, _pinches(quads, numbers))


def _ordered(mask: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    return mask if order is None else mask[order]


def _turning_points(padded: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(flat index of the lattice points where the four pixels around make no straight border, those pixels)."""
    across = padded[:, 1:] == padded[:, :-1]
    down = padded[1:] == padded[:-1]
    straight = (across[:-1] & across[1:]) | (down[:, :-1] & down[:, 1:])
    at = np.flatnonzero(~straight)
    flat = padded.ravel()
    corner = at + at // straight.shape[1]
    width = padded.shape[1]
    return at, (flat[corner], flat[corner + 1], flat[corner + width], flat[corner + width + 1])


def _turns(quads: tuple[np.ndarray, ...], nodes: bool) -> tuple[np.ndarray, np.ndarray]:
    """(direction in which a ring that comes in a direction leaves, −1 for none; owner of the ring that leaves, 0)."""
    a, b, c, d = quads
    ab, ac, ad, bc, bd, cd = a != b, a != c, a != d, b != c, b != d, c != d
    diagonal, anti = ~ad & (a > 0), ~bc & (b > 0)
    turns = np.full((len(a), 4), -1, np.int8)
    owners = np.zeros((len(a), 4), a.dtype)
    ways = [
        (ad & bd & cd & (d > 0), d, NORTH, EAST),
        (ac & bc & cd & (c > 0), c, EAST, SOUTH),
        (ab & ac & ad & (a > 0), a, SOUTH, WEST),
        (ab & bc & bd & (b > 0), b, WEST, NORTH),
        (anti & bd, b, WEST, SOUTH),
        (diagonal & ac, a, NORTH, WEST),
        (anti & ab, b, EAST, NORTH),
        (diagonal & ab, a, SOUTH, EAST),
    ]
    if nodes:
        ways += [
            (~ab & ac & ad & (a > 0), a, WEST, WEST),
            (~cd & ac & bc & (c > 0), c, EAST, EAST),
            (~ac & ab & ad & (a > 0), a, SOUTH, SOUTH),
            (~bd & ab & bc & (b > 0), b, NORTH, NORTH),
        ]
    for mask, owner, coming, leaving in ways:
        chosen = np.flatnonzero(mask)
        turns[chosen, coming] = leaving
        owners[chosen, leaving] = owner[chosen]
    return turns, owners


def _pinches(quads: tuple[np.ndarray, ...], numbers: np.ndarray) -> np.ndarray:
    a, b, c, d = quads
    one = np.flatnonzero((a == d) & (a > 0) & (a != b) & (a != c))
    other = np.flatnonzero((b == c) & (b > 0) & (a != b) & (d != b))
    return np.concatenate([numbers[one][:, [EAST, WEST]], numbers[other][:, [SOUTH, NORTH]]])


# -- order ---------------------------------------------------------------------------------------------------------


def order_rings(border: Border) -> Rings:
    """The corners of a Border ring by ring."""
    ring, rank, first = walk(border.after, _first_corners(border.regions))
    lengths = np.bincount(ring, minlength=len(first))
    regions = border.regions[first]
    order = np.lexsort([first, regions])
    ends = np.cumsum(lengths[order])
    offsets = np.empty(len(first), np.intp)
    offsets[order] = ends - lengths[order]
    corners = np.empty(len(ring), np.int32)
    corners[offsets[ring] + rank] = np.arange(len(ring), dtype=np.int32)
    return Rings(border.points[corners], ends, regions[order], corners)


def _first_corners(regions: np.ndarray) -> np.ndarray:
    """Index of the first corner of each region, in no order."""
    if not len(regions):
        return np.zeros(0, np.intp)
    if regions.max() > 8 * len(regions):
        return np.unique(regions, return_index=True)[1]
    first = np.full(int(regions.max()) + 1, -1, np.intp)
    first[regions[::-1]] = np.arange(len(regions))[::-1]
    return first[first >= 0]


def walk(after: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ring of each item, its rank in the ring, first item of each ring) of a permutation `after`.

    A ring is counted from its lowest item. `first` are the lowest items of some rings, which makes short ones cheap.
    """
    ring = np.full(len(after), -1, np.intp)
    rank = np.zeros(len(after), np.intp)
    active, at = np.arange(len(first)), first
    for step in range(SHORT):
        if not len(active):
            break
        ring[at], rank[at] = active, step
        at = after[at]
        going = at != first[active]
        active, at = active[going], at[going]
    known = np.ones(len(first) + 1, bool)
    known[active] = False
    known[-1] = False
    rest = np.flatnonzero(~known[ring])
    number = np.cumsum(known[:-1]) - 1
    kept = known[ring]
    ring[kept] = number[ring[kept]]
    first = first[known[:-1]]
    if len(rest):
        local = np.empty(len(after), np.intp)
        local[rest] = np.arange(len(rest))
        lowest, rank[rest] = _doubled(local[after[rest]])
        heads, ring_rest = np.unique(lowest, return_inverse=True)
        ring[rest] = ring_rest + len(first)
        first = np.concatenate([first, rest[heads]])
    return ring, rank, first


def _doubled(after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lowest item of each item's ring, rank from there) of a permutation, in log₂(longest ring) sweeps."""
    items = np.arange(len(after))
    lowest, jump = items, after
    while True:
        lower = np.minimum(lowest, lowest[jump])
        if np.array_equal(lower, lowest):
            break
        lowest, jump = lower, jump[jump]
    back = np.empty_like(items)
    back[after] = items
    rank = np.ones(len(after), np.intp)
    rank[lowest == items] = 0
    back[lowest == items] = items[lowest == items]
    while not np.array_equal(back, lowest):
        rank += rank[back]
        back = back[back]
    return lowest, rank


# -- polygons ------------------------------------------------------------------------------------------------------


def ring_polygons(points: np.ndarray, ends: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(region of each, polygons) of rings sorted by region, the outline of each region before its holes."""
    if not len(ends):
        return regions[:0], np.zeros(0, object)
    heads = np.flatnonzero(np.diff(regions, prepend=regions[0] - 1))
    starts = ring_starts(ends)
    closed = np.empty(len(points) + len(ends), np.intp)
    rings = np.arange(len(ends))
    closed_ends = ends + rings + 1
    is_last = np.zeros(len(closed), bool)
    is_last[closed_ends - 1] = True
    closed[~is_last] = np.arange(len(points))
    closed[is_last] = starts
    offsets = np.concatenate([[0], closed_ends]), np.concatenate([heads, [len(ends)]])
    coordinates = np.ascontiguousarray(points[closed], np.float64)
    return regions[heads], shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, offsets)
