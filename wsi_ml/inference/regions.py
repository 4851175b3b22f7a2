"""Connected regions of a map that is read cell by cell: polygons as if it had been read at once.

The map is cut into square cells that lie fixed in map coordinates. Each cell is traced alone, with a frame of one pixel
that tells what lies beyond. Regions that end inside a cell are finished there. The pieces of the others are kept as
rings, not as pixels, until no cell to come can touch them; then the edges on which pieces meet cancel, and what remains
is the region's border. All of it is integer arithmetic on the same points that one tracing of the whole map gives, so
the polygons are equal to that tracing's, whatever the side of the cells.

Simplification happens in the cell, for the coverage of all its regions (those that are not drawn included), with the
cell's frame held: a border that crosses from one cell to the next keeps its exact point there, and both sides agree
on it. What a cell gives depends on the pixels of the cell and its frame alone, and the cells' places on the map alone.
So the simplified polygons do not depend on the order in which cells are read, on what else is read, or on the region
asked for as far as its pixels go; there are no gaps, and memory holds one row of cells and the rings of open regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely

from wsi_ml.geometry import Region, Size, ceil_div, clip
from wsi_ml.inference.joining import OpenPieces, Piece, whole
from wsi_ml.inference.polygons import class_regions, first_pixels, region_polygons, simplify_coverage

CELL = 512
"""Side of a cell in map pixels. Simplifying a coverage costs more than its size, so cells are small."""

Reader = Callable[[Region], tuple[np.ndarray, np.ndarray]]
"""Gives (values, weights), both uint8 h×w, of a box inside the map. Value 0 is not drawn."""


@dataclass(frozen=True)
class Regions:
    """Regions as columns, row i of each belonging together."""

    polygons: np.ndarray
    """Object array, in map pixels."""
    values: np.ndarray
    pixels: np.ndarray
    """Number of pixels: the area before simplification."""
    totals: np.ndarray
    """Sum of the pixels' weights."""
    anchors: np.ndarray
    """n × 2, row and column of the first pixel by rows."""

    def __len__(self) -> int:
        return len(self.polygons)

    @property
    def means(self) -> np.ndarray:
        """Mean weight of the pixels of each, 0 to 255."""
        return self.totals / np.maximum(self.pixels, 1)

    def take(self, chosen: np.ndarray) -> Regions:
        """The regions of a mask or of indices."""
        return Regions(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


class RegionReader:
    """The regions of one map; `tolerance` in map pixels (0: exact), `least` pixels that a region must have."""

    def __init__(self, read: Reader, size: Size, *, tolerance: float = 0.0, least: int = 1, side: int = CELL):
        self._read, self._size, self._tolerance, self._least, self._side = read, size, tolerance, least, side
        self._open = OpenPieces(size)
        self.rows, self.columns = ceil_div(size.height, side), ceil_div(size.width, side)

    def row(self, row: int, before_cell: Callable[[], None] = lambda: None) -> Regions:
        """The regions that are finished with this row of cells, sorted by their first pixels by rows.

        Rows must be asked for in order, each once. `before_cell` is called before each cell and may raise.
        """
        found = []
        for column in range(self.columns):
            before_cell()
            box = clip(Region(column * self._side, row * self._side, self._side, self._side), self._size)
            found.append(self._cell(box))
        for pieces in self._open.end_row(last=row == self.rows - 1):
            polygon = whole(pieces, self._side, self._size) if sum(p.pixels for p in pieces) >= self._least else None
            found.append(_joined(pieces, polygon))
        return _sorted(found, self._least)

    def _cell(self, box: Region) -> Regions:
        """Regions that end in a cell; those that may go on are handed to the open pieces."""
        framed, weights = self._framed(box)
        values = framed[1:-1, 1:-1]
        if not values.any():
            self._open.add(box, np.zeros(values.shape, np.int32), values, np.zeros(0, np.int32), [])
            return _NONE
        numbers, owners = class_regions(values)
        drawn = np.flatnonzero(owners) + 1
        polygons = self._polygons(framed, numbers, owners, box)
        regions = Regions(polygons, *_facts(numbers, weights, owners, box, drawn))
        touching = np.isin(drawn, self._edge_numbers(numbers, box))
        pieces = self._pieces(regions.take(touching), framed, box)
        self._open.add(box, numbers, values, drawn[touching], pieces)
        return regions.take(~touching)

    def _framed(self, box: Region) -> tuple[np.ndarray, np.ndarray]:
        """(values of a cell and of one pixel around it, 0 beyond the map; weights of the cell)."""
        around = clip(Region(box.x - 1, box.y - 1, box.width + 2, box.height + 2), self._size)
        values, weights = self._read(around)
        left, top = box.x - around.x, box.y - around.y
        framed = np.zeros((box.height + 2, box.width + 2), np.uint8)
        framed[1 - top : 1 - top + around.height, 1 - left : 1 - left + around.width] = values
        return framed, weights[top : top + box.height, left : left + box.width]

    def _polygons(self, framed: np.ndarray, numbers: np.ndarray, owners: np.ndarray, box: Region) -> np.ndarray:
        """Polygon of each drawn region of a cell, in map pixels."""
        traced = -1 - framed.astype(np.int32)
        # What is not drawn has borders of its own only where it must give way to none.
        kept = np.arange(len(owners) + 1, dtype=np.int32)
        if self._tolerance <= 0:
            kept[1:][owners == 0] = 0
        traced[1:-1, 1:-1] = kept[numbers]
        found, polygons = region_polygons(traced, framed=True)
        polygons = simplify_coverage(polygons, self._tolerance)[owners[found - 1] > 0]
        return shapely.transform(polygons, lambda points: points + np.array([box.x, box.y]))

    def _edge_numbers(self, numbers: np.ndarray, box: Region) -> np.ndarray:
        """Numbers of the regions that touch a line beyond which there is another cell."""
        sides = [
            (box.y > 0, numbers[0]),
            (box.y_end < self._size.height, numbers[-1]),
            (box.x > 0, numbers[:, 0]),
            (box.x_end < self._size.width, numbers[:, -1]),
        ]
        inner = [side for is_inner, side in sides if is_inner]
        return np.unique(np.concatenate(inner)) if inner else np.zeros(0, np.int32)

    def _pieces(self, regions: Regions, framed: np.ndarray, box: Region) -> list[Piece]:
        if not len(regions):
            return []
        _, points, (ring_ends, polygon_ends) = shapely.to_ragged_array(regions.polygons)
        points = points.astype(np.int64)
        x, y = points[:, 0] - box.x, points[:, 1] - box.y
        a, b, c, d = framed[y, x], framed[y, x + 1], framed[y + 1, x], framed[y + 1, x + 1]
        # A simplified border keeps the points at which it goes from cell to cell: they are what both cells agree on.
        pins = (((a == b) & (c == d)) | ((a == c) & (b == d))) & (self._tolerance <= 0)
        pieces = []
        for n, (first, last) in enumerate(pairwise(polygon_ends)):
            ends = ring_ends[first : last + 1]
            outline = slice(ends[0], ends[1] - 1)
            is_open = np.ones(ends[-1] - ends[1], bool)
            is_open[ends[2:] - ends[1] - 1] = False
            row, column = regions.anchors[n].tolist()
            pieces.append(
                Piece(
                    outline=points[outline].astype(np.int32),
                    pins=pins[outline],
                    holes=points[ends[1] : ends[-1]][is_open].astype(np.int32),
                    hole_ends=np.cumsum(np.diff(ends[1:]) - 1),
                    value=int(regions.values[n]),
                    pixels=int(regions.pixels[n]),
                    total=int(regions.totals[n]),
                    anchor=(row, column),
                )
            )
        return pieces


_NONE = Regions(
    np.zeros(0, object), np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
)


def _facts(
    numbers: np.ndarray, weights: np.ndarray, owners: np.ndarray, box: Region, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(values, pixels, totals, anchors) of the drawn regions of a cell."""
    flat = numbers.ravel()
    pixels = np.bincount(flat, minlength=len(owners) + 1)[drawn]
    # Sums of bytes stay far below 2⁵³, so they are exact.
    totals = np.bincount(flat, weights.ravel(), minlength=len(owners) + 1)[drawn].astype(np.int64)
    first = first_pixels(numbers, len(owners) + 1)
    anchors = np.stack([first[drawn] // box.width + box.y, first[drawn] % box.width + box.x], -1)
    return owners[drawn - 1], pixels, totals, anchors


def _joined(pieces: list[Piece], polygon: shapely.Polygon | None) -> Regions:
    polygons = np.empty(1, object)
    polygons[0] = polygon
    pixels, total = sum(piece.pixels for piece in pieces), sum(piece.total for piece in pieces)
    anchor = min(piece.anchor for piece in pieces)
    return Regions(
        polygons, np.array([pieces[0].value], np.uint8), np.array([pixels]), np.array([total]), np.array([anchor])
    )


def _sorted(found: list[Regions], least: int) -> Regions:
    joined = Regions(*(np.concatenate([getattr(f, name) for f in found]) for name in Regions.__dataclass_fields__))
    joined = joined.take(joined.pixels >= least)
    return joined.take(np.lexsort([joined.anchors[:, 1], joined.anchors[:, 0]]))
