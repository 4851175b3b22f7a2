"""Rings that stand side by side in a file, put into one another: holes into the outlines around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.rings import Place, Repairer, check_tangle, check_valid, closed_ring, polygonal

NESTING_LIMIT = 1_000_000
"""Pairs of rings of one feature of which one lies in the other."""
_STEP = 64


def with_holes(outline: shapely.Geometry, holes: Sequence[shapely.Geometry], place: Place) -> shapely.Geometry | None:
    """The outline less the holes; None when nothing is left.

    A hole inside one part, apart from the others, becomes a ring with every point kept; the rest are cut out. Raises
    AnnotationFileError where they cross too often.
    """
    parts = list(shapely.get_parts(outline))
    rings = [list(part.interiors) for part in parts]
    inside = set()
    pairs = shapely.STRtree(parts).query(list(holes), predicate="covered_by")
    for hole, part in pairs.T.tolist():
        if holes[hole].geom_type == "Polygon" and not holes[hole].interiors:
            rings[part].append(holes[hole].exterior)
            inside.add(hole)
    whole = _joined([shapely.Polygon(part.exterior, found) for part, found in zip(parts, rings, strict=True)])
    if not whole.is_valid:
        return polygonal(outline.difference(united(holes, place)))
    rest = [hole for number, hole in enumerate(holes) if number not in inside]
    return polygonal(whole.difference(united(rest, place))) if rest else whole


def united(areas: Sequence[shapely.Geometry], place: Place) -> shapely.Geometry:
    """The union of some areas; raises AnnotationFileError where they cross too often."""
    check_tangle(shapely.GeometryCollection(list(areas)), place)
    return shapely.union_all(list(areas))


def even_odd(rings: Sequence[np.ndarray], place: Place, repairer: Repairer) -> shapely.Geometry | None:
    """The area that an odd number of rings (n × 2 points, the last edge implied) surrounds; None when nothing is left.

    A ring inside an even number of others is an outline, the rest are holes. Rings that cross are a fault.
    """
    polygons: list[shapely.Polygon] = []
    for number, points in enumerate(rings):
        spot = replace(place, ring=number)
        ring = closed_ring(points, spot, repairer, implied=True)
        found = None if ring is None else check_valid(shapely.Polygon(ring), spot, repairer)
        polygons += [] if found is None else list(shapely.get_parts(found))
    if not polygons:
        return None
    polygons.sort(key=lambda polygon: -polygon.area)
    around = _around(polygons, place)
    parts: dict[int, list[shapely.LinearRing]] = {
        number: list(polygon.interiors) for number, polygon in enumerate(polygons) if len(around[number]) % 2 == 0
    }
    for number, polygon in enumerate(polygons):
        if number not in parts:
            owner = max((each for each in around[number] if each in parts), default=None)
            parts.setdefault(number if owner is None else owner, []).append(polygon.exterior)
    whole = _joined([shapely.Polygon(polygons[number].exterior, holes) for number, holes in parts.items()])
    return check_valid(whole, place, repairer)


def _around(polygons: list[shapely.Polygon], place: Place) -> list[list[int]]:
    """The larger outlines (by number, which falls with size) around each of some polygons."""
    found: list[list[int]] = [[] for _ in polygons]
    tree = shapely.STRtree([shapely.Polygon(polygon.exterior) for polygon in polygons])
    spots = [polygon.representative_point() for polygon in polygons]
    count = 0
    for start in range(0, len(spots), _STEP):
        pairs = tree.query(spots[start : start + _STEP], predicate="intersects")
        count += pairs.shape[1]
        if count > NESTING_LIMIT:
            raise AnnotationFileError(f"{place}: its rings lie in one another too often. Split it.")
        for inner, outer in pairs.T.tolist():
            if outer < start + inner:
                found[start + inner].append(outer)
    return found


def _joined(parts: list[shapely.Polygon]) -> shapely.Geometry:
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
