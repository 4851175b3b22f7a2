"""Pieces of regions, one from each cell that a region reaches into, made whole: exact, with no trace of the cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from wsi_ml.geometry import Region, Size
from wsi_ml.inference.rings import following, ring_polygons, walk


@dataclass
class Piece:
    """What one cell holds of a region that may go on in another cell."""

    outline: np.ndarray
    """n × 2 int32, map pixels; the first point is not repeated."""
    pins: np.ndarray
    """Bool, points of the outline that are there only because a cell ends: they go when the region is whole."""
    holes: np.ndarray
    """m × 2 int32, hole after hole."""
    hole_ends: np.ndarray
    """Where each hole ends in `holes`."""
    value: int
    pixels: int
    total: int
    """Sum of the pixels' weights."""
    anchor: tuple[int, int]
    """Row and column of the first pixel by rows."""


class OpenPieces:
    """Pieces of regions that cells to come may still touch, linked where two pieces of one value meet."""

    def __init__(self, size: Size):
        self._size = size
        self._parents: dict[int, int] = {}
        self._pieces: dict[int, Piece] = {}
        self._count = 0
        # (piece of each pixel, −1 for none; value of each pixel) above the row at hand, left of the cell at hand.
        self._above = self._nothing(size.width)
        self._below = self._nothing(size.width)
        self._left = self._nothing(0)

    def add(self, box: Region, numbers: np.ndarray, values: np.ndarray, open_: np.ndarray, pieces: list[Piece]) -> None:
        """A cell's open regions: their numbers in the cell, rising, and a piece for each. Cells come by rows."""
        lookup = np.full(int(numbers.max()) + 1, -1, np.int64)
        lookup[open_] = np.arange(len(open_)) + self._count
        for piece in pieces:
            self._pieces[self._count] = piece
            self._parents[self._count] = self._count
            self._count += 1
        across = slice(box.x, box.x_end)
        if box.y:
            self._link((self._above[0][across], self._above[1][across]), (lookup[numbers[0]], values[0]))
        if box.x:
            self._link(self._left, (lookup[numbers[:, 0]], values[:, 0]))
        self._left = lookup[numbers[:, -1]], values[:, -1].copy()
        self._below[0][across], self._below[1][across] = lookup[numbers[-1]], values[-1]

    def end_row(self, last: bool) -> Iterator[list[Piece]]:
        """Ends a row of cells; gives, region by region, the pieces that nothing to come can touch."""
        self._above, self._below = self._below, self._nothing(self._size.width)
        touched = [] if last else np.unique(self._above[0]).tolist()
        going_on = {self._root(number) for number in touched if number >= 0}
        closed: dict[int, list[int]] = {}
        for number in list(self._pieces):
            root = self._root(number)
            if root not in going_on:
                closed.setdefault(root, []).append(number)
        for numbers in closed.values():
            yield [self._pieces.pop(number) for number in numbers]
        # Roots of what goes on may be pieces further up; they are still in place.
        self._parents = {number: self._parents[number] for number in self._pieces}

    def _link(self, one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
        meeting = (one[0] >= 0) & (other[0] >= 0) & (one[1] == other[1])
        for a, b in np.unique(np.stack([one[0][meeting], other[0][meeting]], -1), axis=0).tolist():
            first, second = sorted((self._root(a), self._root(b)))
            self._parents[second] = first

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = number = self._parents[self._parents[number]]
        return number

    @staticmethod
    def _nothing(length: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full(length, -1, np.int64), np.zeros(length, np.uint8)


def whole(pieces: list[Piece], cell: int, size: Size) -> shapely.Polygon:
    """The polygon of all pieces of one region; `size` is the map's, `cell` the side of the cells.

    Only outlines meet other pieces: a hole of a piece ends inside its cell, and what touches the edge of the cell
    cannot lie in it. So outlines are linked anew, and holes are taken as they are.
    """
    points, lengths = _outlines(pieces, cell, size)
    inner_lengths = np.concatenate([np.diff(piece.hole_ends, prepend=0) for piece in pieces])
    points = np.concatenate([points, *(piece.holes for piece in pieces)])
    lengths = np.concatenate([lengths, inner_lengths])
    starts = np.cumsum(lengths) - lengths
    x, y = points[starts].T
    order = np.lexsort([x, y, np.arange(len(starts)) > 0])
    ends = np.cumsum(lengths[order])
    points = points[np.arange(len(points)) + np.repeat(starts[order] - (ends - lengths[order]), lengths[order])]
    return ring_polygons(points, ends, np.zeros(len(ends), np.int8))[1][0]


def _outlines(pieces: list[Piece], cell: int, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """(points, length of each ring) of the rings that the pieces' outlines make together, the whole's outline first."""
    sources = np.concatenate([piece.outline for piece in pieces]).astype(np.int64)
    targets = sources[following(np.cumsum([len(piece.outline) for piece in pieces]))]
    kept = np.flatnonzero(~_meeting(sources, targets, cell, size))
    kept = kept[np.lexsort([sources[kept, 0], sources[kept, 1]])]
    pins = np.concatenate([piece.pins for piece in pieces])[kept]
    sources, targets = sources[kept], targets[kept]
    ring, rank, first = walk(_linked(sources, targets, size), np.zeros(0, np.intp))
    areas = np.bincount(ring, sources[:, 0] * targets[:, 1] - targets[:, 0] * sources[:, 1])
    # One ring has a positive area: the outline.
    rings = np.lexsort([first, areas < 0])
    lengths = np.bincount(ring)[rings]
    offsets = np.empty_like(lengths)
    offsets[rings] = np.cumsum(lengths) - lengths
    corners = np.empty(len(ring), np.intp)
    corners[offsets[ring] + rank] = np.arange(len(ring))
    stay = ~pins[corners]
    return sources[corners][stay].astype(np.int32), np.add.reduceat(stay, np.cumsum(lengths) - lengths, dtype=np.intp)


def _meeting(sources: np.ndarray, targets: np.ndarray, cell: int, size: Size) -> np.ndarray:
    """Mask of the edges that run both ways: there two pieces of the region meet at the line between two cells."""
    same = sources == targets
    inner = (sources % cell == 0) & (sources > 0) & (sources < np.array(size))
    rows = np.flatnonzero((same & inner).any(axis=1))
    points = np.concatenate([_keys(sources[rows], size), _keys(targets[rows], size)])
    _, numbers = np.unique(points, return_inverse=True)
    start, end = numbers.reshape(2, -1)
    forth, back = start * (len(points) + 1) + end, end * (len(points) + 1) + start
    mask = np.zeros(len(sources), bool)
    mask[rows] = np.isin(forth, back)
    return mask


def _keys(points: np.ndarray, size: Size) -> np.ndarray:
    return points[:, 1] * (size.width + 1) + points[:, 0]


def _linked(sources: np.ndarray, targets: np.ndarray, size: Size) -> np.ndarray:
    """Index of the edge that follows each, for edges sorted by where they start.

    Where two edges leave a point, the region touches itself by a corner: the ring goes on with the edge next to the
    one it came by on its right, the side that is outside. So the region passes through and what surrounds it is
    parted, as `rings` does it.
    """
    starts, ends = _keys(sources, size), _keys(targets, size)
    after = np.searchsorted(starts, ends)
    double = np.flatnonzero(np.searchsorted(starts, ends, side="right") - after > 1)
    back = sources[double] - targets[double]
    choices = after[double][:, None] + [0, 1]
    leaving = targets[choices] - sources[choices]
    cross = back[:, None, 0] * leaving[..., 1] - back[:, None, 1] * leaving[..., 0]
    along = (back[:, None] * leaving).sum(axis=-1)
    turn = np.arctan2(cross, along) % (2 * np.pi)
    after[double] += turn.argmin(axis=1)
    return after
