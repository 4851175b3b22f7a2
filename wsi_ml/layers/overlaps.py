"""What two sets of outlines share, measured once: overlapping pairs, and areas that can be summed at any threshold.

Outlines of one layer may overlap each other. So every outline gets an *own* area: what it covers and no earlier outline
of its layer (and class) does, earlier meaning a higher score, then a lower number. The outlines that pass a score
threshold are the first ones in that order: the sum of their own areas is the area of their union, at every threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

LARGE = 1000
"""Corners of an outline from which containment is asked before an intersection is made."""
SPECK = 1 / 512
"""Base-plane px² below which two outlines touch rather than overlap: half a unit square of the features file."""

Group = np.ndarray
"""int64 class number of each outline; zeros where classes do not matter."""


@dataclass(frozen=True)
class Outlines:
    """Outlines of one layer around some place, as columns."""

    number: np.ndarray
    """int64, number of the feature in its layer."""
    geometry: np.ndarray
    """Object array of shapely Polygons and MultiPolygons, base-plane pixels."""
    group: Group
    rank: np.ndarray
    """int64: score in 1/10000, 65535 for none; a higher one comes first."""

    def __len__(self) -> int:
        return len(self.number)

    def take(self, places: np.ndarray) -> Outlines:
        """Outlines at places or under a mask."""
        return Outlines(self.number[places], self.geometry[places], self.group[places], self.rank[places])


def shared_areas(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area of a[i] ∩ b[i] for arrays of geometries of one length, float64 px²."""
    areas = np.empty(len(a))
    open_ = np.ones(len(a), bool)
    for large, small in ((a, b), (b, a)):
        asked = open_ & (shapely.get_num_coordinates(large) >= LARGE)
        if asked.any():
            shapely.prepare(large[asked])
            inside = np.zeros(len(a), bool)
            inside[asked] = shapely.contains(large[asked], small[asked])
            areas[inside] = shapely.area(small[inside])
            open_ &= ~inside
    areas[open_] = shapely.area(shapely.intersection(a[open_], b[open_]))
    return areas


@dataclass(frozen=True)
class Overlaps:
    """Pairs of outlines that share more than a SPECK, in order of `at`, then `other`."""

    at: np.ndarray
    """Places in the one set."""
    other: np.ndarray
    """Places in the other."""
    area: np.ndarray
    """Shared area, px²."""


def overlapping(a: np.ndarray, b: np.ndarray) -> Overlaps:
    """Overlaps of two sets of geometries."""
    return _measured(a, b, *_meeting(a, b))


def own_parts(outlines: Outlines, around: Outlines) -> tuple[np.ndarray, np.ndarray]:
    """(own part of each outline, mask of those that overlap another of their group).

    `around` holds all outlines of the layer that meet these, themselves included. A part that nothing was cut from is
    the outline itself, the same object.
    """
    parts = outlines.geometry.copy()
    at, other = _meeting(outlines.geometry, around.geometry)
    kept = (outlines.group[at] == around.group[other]) & (outlines.number[at] != around.number[other])
    found = _measured(outlines.geometry, around.geometry, at[kept], other[kept])
    at, other = found.at, found.other
    overlapped = np.zeros(len(outlines), bool)
    overlapped[at] = True
    rank, rank_other = outlines.rank[at], around.rank[other]
    earlier = (rank_other > rank) | ((rank_other == rank) & (around.number[other] < outlines.number[at]))
    for place in np.unique(at[earlier]):
        before = shapely.union_all(around.geometry[other[earlier & (at == place)]])
        parts[place] = shapely.difference(parts[place], before)
    return polygonal(parts), overlapped


def covered_areas(
    parts: np.ndarray, outlines: Outlines, truth: Outlines, overlapped: np.ndarray, overlaps: Overlaps
) -> np.ndarray:
    """Area of each outline's own part that the union of the truths of its group covers.

    `overlapped` is the truths' mask of `own_parts`, `overlaps` those of the outlines with the truths.
    """
    areas = np.zeros(len(parts))
    same = outlines.group[overlaps.at] == truth.group[overlaps.other]
    at, other, shared = overlaps.at[same], overlaps.other[same], overlaps.area[same]
    uncut = np.fromiter((part is whole for part, whole in zip(parts, outlines.geometry, strict=True)), bool, len(parts))
    plain = uncut[at] & ~np.isin(at, at[overlapped[other]])
    np.add.at(areas, at[plain], shared[plain])
    for place in np.unique(at[~plain]):
        union = shapely.union_all(truth.geometry[other[at == place]])
        areas[place] = shapely.area(shapely.intersection(parts[place], union))
    return areas


def in_box(parts: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """What of each part lies in a box of base-plane pixels (x0, y0, x1, y1)."""
    return polygonal(shapely.intersection(parts, shapely.box(*box)))


def polygonal(geometries: np.ndarray) -> np.ndarray:
    """Each geometry without the lines and points that cutting may leave; empty where nothing else is left."""
    kinds = shapely.get_type_id(geometries)
    plain = np.isin(kinds, (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    if plain.all():
        return geometries
    result = geometries.copy()
    for place in np.flatnonzero(~plain):
        parts = shapely.get_parts(geometries[place])
        result[place] = shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    return result


def _meeting(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places in a, places in b) of all pairs that share a point."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at, other = shapely.STRtree(b).query(a, predicate="intersects")
    return at, other


def _measured(a: np.ndarray, b: np.ndarray, at: np.ndarray, other: np.ndarray) -> Overlaps:
    areas = shared_areas(a[at], b[other])
    kept = np.flatnonzero(areas > SPECK)
    kept = kept[np.lexsort((other[kept], at[kept]))]
    return Overlaps(at[kept], other[kept], areas[kept])
