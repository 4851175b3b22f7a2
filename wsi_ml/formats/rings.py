"""Coordinates to valid polygons: each fault is refused with feature, ring and coordinate, or repaired on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import shapely

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.report import LossReport
from wsi_ml.geometry import Size

OUTSIDE_TOLERANCE = 2.0
"""Base-plane pixels (half a micrometre) an outline may stand over the slide's edge: programs differ in rounding."""
COORDINATE_LIMIT = 1e8
"""Pixels; geometry on far larger numbers overflows, and no slide is near as large."""
CROSSING_LIMIT = 5_000
"""Crossings in one feature that repair takes on; its cost grows with their square."""
_REASON_WORDS = {
    "Self-intersection": "the outline crosses itself",
    "Ring Self-intersection": "the ring touches itself",
    "Hole lies outside shell": "the hole lies outside the outline",
    "Holes are nested": "one hole lies inside another",
    "Nested shells": "one polygon lies inside another of the same feature",
    "Interior is disconnected": "holes cut the polygon apart",
    "Duplicate Rings": "two rings are the same",
    "Too few points in geometry component": "the ring has too few different points",
}


@dataclass(frozen=True)
class Place:
    """Where in a file a fault is; features, polygons and rings are counted from 0, ring 0 is the outline."""

    feature: int
    polygon: int | None = None
    ring: int | None = None

    def __str__(self) -> str:
        words = f"Feature {self.feature} (counted from 0)"
        words += "" if self.polygon is None else f", polygon {self.polygon}"
        return words + ("" if self.ring is None else f", ring {self.ring}" + (" (a hole)" if self.ring else ""))


@dataclass
class Repairer:
    """What to do with a fault: refuse it, or with `repair` mend it and list it in the report."""

    report: LossReport
    repair: bool = False

    def fault(self, place: Place, fault: str, fix: str, mended: str) -> None:
        """Raise AnnotationFileError, or note that the fault was `mended`."""
        if not self.repair:
            raise AnnotationFileError(f"{place}: {fault}. {fix}, or import with --repair.")
        self.report.repair(mended, place.feature)


def polygon_of(rings: Any, place: Place, repairer: Repairer) -> shapely.Polygon | None:
    """Polygon of GeoJSON's list of rings, not yet checked for crossings; None when repair left nothing of it."""
    if not isinstance(rings, list) or not rings:
        raise AnnotationFileError(f"{place}: a polygon is a list of at least one ring. Write [[[x, y], …]].")
    shell, *holes = (_ring_of(ring, replace(place, ring=number), repairer) for number, ring in enumerate(rings))
    if shell is None:
        return None
    return shapely.Polygon(shell, [hole for hole in holes if hole is not None])


def _ring_of(ring: Any, place: Place, repairer: Repairer) -> np.ndarray | None:
    if not isinstance(ring, list):
        raise AnnotationFileError(f"{place}: a ring is a list of points. Write [[x, y], …].")
    points = points_of(ring, place)
    if 3 in set(map(len, ring)):
        repairer.report.lose("third coordinate (z) of points", place.feature)
    return closed_ring(points, place, repairer)


def outline_of(points: np.ndarray, place: Place, repairer: Repairer) -> shapely.Geometry | None:
    """Valid area inside the n × 2 points of one ring that its format leaves open; None when repair left nothing."""
    ring = closed_ring(points, replace(place, ring=place.ring or 0), repairer, implied=True)
    return None if ring is None else check_valid(shapely.Polygon(ring), place, repairer)


def closed_ring(points: np.ndarray, place: Place, repairer: Repairer, *, implied: bool = False) -> np.ndarray | None:
    """The n × 2 points with the first repeated at the end; None when repair removed a ring of too few.

    An open ring is a fault, unless its format implies the last edge (`implied`).
    """
    if len(points) and (points[0] != points[-1]).any():
        first, last = _words(points[0]), _words(points[-1])
        if not implied:
            repairer.fault(
                place,
                f"the ring is not closed: it starts at {first} and ends at {last}",
                f"Repeat {first} at the end",
                "open ring closed",
            )
        points = np.vstack([points, points[:1]])
    if len(points) < 4:
        at = f" at {_words(points[0])}" if len(points) else ""
        repairer.fault(
            place,
            f"the ring{at} has {len(points)} points, and a closed ring has at least 4",
            "Remove it or complete it",
            "ring of fewer than 4 points removed",
        )
        return None
    return points


def points_of(ring: list[Any], place: Place) -> np.ndarray:
    """The points of one ring as n × 2 numbers; raises AnnotationFileError that names the first bad point."""
    # bool is an int to isinstance, so types are compared. The maps run in C, the loop only to find what is wrong.
    lengths = set(map(len, ring)) if set(map(type, ring)) <= {list} else {0}
    if not lengths <= {2, 3} or not set(map(type, chain.from_iterable(ring))) <= {int, float}:
        for number, point in enumerate(ring):
            if type(point) is not list or len(point) not in (2, 3) or not set(map(type, point)) <= {int, float}:
                found = str(point)[:60]
                raise AnnotationFileError(f"{place}, point {number}: {found} is not a point. Write [x, y] in numbers.")
    return on_slide_scale(np.array([point[:2] for point in ring], np.float64).reshape(-1, 2), place)


def on_slide_scale(points: np.ndarray, place: Place) -> np.ndarray:
    """The same points; raises AnnotationFileError for one beyond `COORDINATE_LIMIT`."""
    if np.abs(points).max(initial=0) > COORDINATE_LIMIT:
        number = int(np.abs(points).max(axis=1).argmax())
        raise AnnotationFileError(f"{place}, point {number}: {_words(points[number])} lies on no slide. Correct it.")
    return points


def check_valid(geometry: shapely.Geometry, place: Place, repairer: Repairer) -> shapely.Geometry | None:
    """The geometry when it is valid and has an area, else mended, or None when nothing with an area is left."""
    if geometry.is_valid and geometry.area > 0:
        return geometry
    reason, spot = fault_of(geometry)
    fault_place, words = place, _REASON_WORDS.get(reason, reason.lower())
    if spot is not None:
        fault_place = _ring_at(geometry, spot, place)
    if geometry.convex_hull.area == 0:  # the signed area of a bow tie is 0, too
        spot = shapely.Point(shapely.get_coordinates(geometry)[0])
        fault_place, words = replace(place, ring=0), "the polygon has no area"
    at = f" at {_words(shapely.get_coordinates(spot)[0])}" if spot is not None else ""
    repairer.fault(fault_place, words + at, "Correct the outline", f"{words}: made valid")
    check_tangle(geometry, place)
    return polygonal(shapely.make_valid(geometry, method="structure", keep_collapsed=False))


def check_tangle(geometry: shapely.Geometry, place: Place) -> None:
    """Raise AnnotationFileError where edges meet more than `CROSSING_LIMIT` times."""
    if _crossings(geometry, CROSSING_LIMIT) > CROSSING_LIMIT:
        raise AnnotationFileError(
            f"{place}: too tangled to repair, its edges meet over {CROSSING_LIMIT:,} times. Redraw it."
        )


def _crossings(geometry: shapely.Geometry, limit: int) -> int:
    """How often edges meet other edges than their two neighbours, counted no further than a little past `limit`."""
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(_flat(geometry))]
    edges = shapely.linestrings(np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings]))
    tree = shapely.STRtree(edges)
    found = 0
    for start in range(0, len(edges), 8):
        batch = edges[start : start + 8]
        found += tree.query(batch, predicate="intersects").shape[1] - 3 * len(batch)
        if found > 2 * limit:  # each crossing is found from both of its edges
            break
    return found // 2


def fault_of(geometry: shapely.Geometry) -> tuple[str, shapely.Point | None]:
    """(reason in GEOS's words, place) of an invalid geometry."""
    reason, _, spot = str(shapely.is_valid_reason(geometry)).partition("[")
    numbers = spot.rstrip("]").split()
    return reason.strip(), shapely.Point(*map(float, numbers[:2])) if len(numbers) >= 2 else None


def _ring_at(geometry: shapely.Geometry, spot: shapely.Point, place: Place) -> Place:
    """The ring a fault belongs to: one that crosses itself at that spot, else the last ring that passes there."""
    if geometry.geom_type == "Polygon" and not geometry.interiors:
        return replace(place, ring=0)
    found = place
    nearest = float("inf")
    several = geometry.geom_type == "MultiPolygon"
    for polygon_number, polygon in enumerate(shapely.get_parts(geometry)):
        for ring_number, ring in enumerate((polygon.exterior, *polygon.interiors)):
            distance = -1.0 if not ring.is_simple and ring.distance(spot) < 1e-6 else ring.distance(spot)
            if distance <= nearest:
                nearest = distance
                found = replace(place, polygon=polygon_number if several else None, ring=ring_number)
    return found


def polygonal(geometry: shapely.Geometry) -> shapely.Geometry | None:
    """The parts of a geometry that have an area, as Polygon or MultiPolygon; None when there are none."""
    parts = [part for part in _flat(geometry) if part.geom_type == "Polygon" and part.area > 0]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts) if parts else None


def _flat(geometry: shapely.Geometry) -> list[shapely.Geometry]:
    parts = list(shapely.get_parts(geometry))
    return [geometry] if parts == [geometry] else [leaf for part in parts for leaf in _flat(part)]


def check_inside(
    geometry: shapely.Geometry, base_size: Size, place: Place, repairer: Repairer
) -> shapely.Geometry | None:
    """The base-plane geometry when it lies on the slide, else clipped to it, or None when nothing of it does."""
    x0, y0, x1, y1 = geometry.bounds
    limit = OUTSIDE_TOLERANCE
    if x0 >= -limit and y0 >= -limit and x1 <= base_size.width + limit and y1 <= base_size.height + limit:
        return geometry
    ring, spot = _first_outside(geometry, base_size)
    repairer.fault(
        replace(place, polygon=ring[0] if geometry.geom_type == "MultiPolygon" else None, ring=ring[1]),
        f"the point {_words(spot)} in base-plane pixels is outside the slide, {base_size.width} × {base_size.height}",
        "Check that the file belongs to this slide and give the plane of its coordinates (--plane scan or stored)",
        "outline clipped to the slide",
    )
    return polygonal(shapely.clip_by_rect(geometry, 0, 0, base_size.width, base_size.height))


def _first_outside(geometry: shapely.Geometry, base_size: Size) -> tuple[tuple[int, int], np.ndarray]:
    """((polygon, ring), point) of the first point beyond the tolerance."""
    for polygon_number, polygon in enumerate(shapely.get_parts(geometry)):
        for ring_number, ring in enumerate((polygon.exterior, *polygon.interiors)):
            points = shapely.get_coordinates(ring)
            outside = (points < -OUTSIDE_TOLERANCE) | (points > np.array(base_size) + OUTSIDE_TOLERANCE)
            rows = np.flatnonzero(outside.any(axis=1))
            if len(rows):
                return (polygon_number, ring_number), points[rows[0]]
    raise ValueError("no point lies outside")


def _words(point: Sequence[float] | np.ndarray) -> str:
    return f"({point[0]:.10g}, {point[1]:.10g})"
