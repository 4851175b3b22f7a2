"""Label and class images as polygons: exact to the pixel, valid, and on request smoother within a stated error.

Coordinates are those of the image (pixel (column, row) covers column to column + 1, row to row + 1); the polygons of
an image tile its labelled pixels: areas are pixel counts, holes are kept, neighbours share their border.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import shapely

from wsi_ml.inference.rings import Border, Rings, following, order_rings, ring_polygons, trace

LEAST_SMOOTHING = 0.5**0.5 / 2
"""Hausdorff distance between exact rings and rings through the middles of pixel sides, in pixels: 0.354."""
LEAST_REST = 0.25
"""Tolerance in pixels from which simplifying smooth rings saves points (measured: none at 0.25, 4 % at 0.3)."""
SHEET = 1 << 24
"""Pixels in which labels that need a closer look are looked at together."""
MOST_CORNERS = 200_000
"""Coverages with more corners are left exact: so many in one cell are noise, which loses nothing by simplification
(it grows) and costs minutes."""


def class_regions(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number of each pixel's region, from 1, int32 H×W; class of each region) of a uint8 image H×W.

    A region is a 4-connected set of pixels of one class; class 0 counts as any other.
    """
    numbers = np.zeros(classes.shape, np.int32)
    owners: list[np.ndarray] = []
    count = 0
    for value in np.flatnonzero(np.bincount(classes.ravel(), minlength=1)):
        mask = classes == value
        found, parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        np.add(parts, count, out=numbers, where=mask)
        owners.append(np.full(found - 1, value, classes.dtype))
        count += found - 1
    return numbers, np.concatenate(owners) if owners else np.zeros(0, classes.dtype)


def class_polygons(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(class of each region, polygons) of a uint8 image H×W in which 0 means no class.

    A region is a 4-connected set of pixels of one class, its polygon's area the number of its pixels. Neighbours have
    the same points along their shared border, so the polygons are a valid coverage.
    """
    numbers, owners = class_regions(classes)
    drawn = np.flatnonzero(owners) + 1
    kept = np.zeros(len(owners) + 1, np.int32)
    kept[drawn] = drawn
    number, polygons = region_polygons(kept[numbers])
    return owners[number - 1], polygons


def region_polygons(regions: np.ndarray, *, framed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(value of each, polygons) of the 4-connected regions of an integer image, values ≤ 0 left out, as a coverage.

    `framed`: the outermost pixels only tell what lies beyond (see `rings.trace`).
    """
    rings = order_rings(trace(regions, nodes=True, framed=framed))
    return ring_polygons(rings.points, rings.ends, rings.regions)


def simplify_coverage(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    """Polygons of a coverage with fewer points, still without gaps and overlaps; its outer border stays as it is.

    Visvalingam and Whyatt's method takes away corners whose triangle is smaller than `tolerance` squared (pixels), and
    none that would make borders cross. Points where three regions meet stay. The points of the result are points of
    the input.
    """
    if tolerance <= 0 or not len(polygons) or shapely.get_num_coordinates(polygons).sum() > MOST_CORNERS:
        return polygons
    simpler = shapely.orient_polygons(shapely.coverage_simplify(polygons, tolerance, simplify_boundary=False))
    # No input is known for which this fails; if one is, exact borders are better than invalid ones.
    return simpler if bool(shapely.is_valid(simpler).all()) else polygons


def first_pixels(numbers: np.ndarray, count: int) -> np.ndarray:
    """Flat index of the first pixel by rows of each number below `count` of an image; 0 for one that is not there."""
    first = np.zeros(count, np.int64)
    first[numbers.ravel()[::-1]] = np.arange(numbers.size)[::-1]
    return first


# -- objects -------------------------------------------------------------------------------------------------------


def label_polygons(labels: np.ndarray, tolerance: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(labels above 0 that occur, rising; a geometry for each) of an integer image H×W.

    With `tolerance` below LEAST_SMOOTHING the geometries are exact: areas are pixel counts. From there on rings run
    through the middles of pixel sides, with the corners cut: half a pixel less area, fewer points, objects that touch
    still do not overlap, Hausdorff distance 0.354 px. From about 0.9 px on they are simplified further. The Hausdorff
    distance between exact and given borders is never more than `tolerance` pixels.
    A geometry is a Polygon, and a MultiPolygon where the pixels of a label are not 4-connected. All are valid.
    """
    border = trace(labels)
    rings = order_rings(border)
    doubtful = _doubtful_labels(border, rings)
    whole = ~np.isin(rings.regions, doubtful)
    points, ends = _chosen(rings.points, rings.ends, whole)
    numbers, polygons = ring_polygons(*_smoothed(points, ends, rings.regions[whole], tolerance))
    if len(doubtful):
        others, parted = _parted(labels, border, doubtful, tolerance)
        numbers, polygons = np.concatenate([numbers, others]), np.concatenate([polygons, parted])
        order = np.argsort(numbers, kind="stable")
        numbers, polygons = numbers[order], polygons[order]
    # GEOS may move a ring by its tolerance twice: once along the ring, once where the ring starts.
    rest = (tolerance - LEAST_SMOOTHING) / 2
    return numbers, _simplified(polygons, rest) if rest >= LEAST_REST else polygons


def _doubtful_labels(border: Border, rings: Rings) -> np.ndarray:
    """Labels whose pixels may not be 4-connected: several outlines, or pixels that touch by a corner only."""
    outlines = rings.regions[rings.areas() > 0]
    several = outlines[1:][outlines[1:] == outlines[:-1]]
    return np.unique(np.concatenate([several, border.regions[border.pinches[:, 0]]]))


def _parted(
    labels: np.ndarray, border: Border, doubtful: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """(label, geometry) of labels by their 4-connected parts: their pixels, numbered by part, traced once more."""
    own = np.isin(border.regions, doubtful)
    place = np.searchsorted(doubtful, border.regions[own])
    corners = np.full((2, len(doubtful), 2), [[[np.iinfo(np.int32).max] * 2], [[0, 0]]], np.int64)
    np.minimum.at(corners[0], place, border.points[own])
    np.maximum.at(corners[1], place, border.points[own])
    owners, polygons = [], []
    for rows in _sheets(corners[1] - corners[0]):
        part_owners, parts = _sheet(labels, doubtful, rows, corners[0], corners[1], tolerance)
        owners.append(part_owners)
        polygons.append(parts)
    index, parts = np.concatenate(owners), np.concatenate(polygons)
    geometries = shapely.multipolygons(parts, indices=index)
    single = np.flatnonzero(np.bincount(index) == 1)
    geometries[single] = parts[np.searchsorted(index, single)]
    return doubtful, geometries


def _sheets(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of `sizes` (width, height) in runs that, one below the other, need at most SHEET pixels (or are one)."""
    start, width, height = 0, 0, 0
    for row, (own_width, own_height) in enumerate(sizes.tolist()):
        width, height = max(width, own_width), height + own_height + 1
        if row > start and width * height > SHEET:
            yield np.arange(start, row)
            start, width, height = row, own_width, own_height + 1
    yield np.arange(start, len(sizes))


def _sheet(
    labels: np.ndarray, doubtful: np.ndarray, rows: np.ndarray, lows: np.ndarray, highs: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """(row of its label, polygon) of the parts of some labels, whose boxes are laid one below the other."""
    sizes = (highs - lows)[rows]
    tops = np.cumsum(sizes[:, 1] + 1) - (sizes[:, 1] + 1)
    sheet = np.zeros((int(tops[-1] + sizes[-1, 1]), int(sizes[:, 0].max())), np.int32)
    counts = np.zeros(len(rows), np.intp)
    for n, row in enumerate(rows):
        (left, top), (right, bottom) = lows[row], highs[row]
        mask = (labels[top:bottom, left:right] == doubtful[row]).view(np.uint8)
        found, parts = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
        place = sheet[tops[n] : tops[n] + bottom - top, : right - left]
        np.add(parts, counts.sum(), out=place, where=mask.view(bool))
        counts[n] = found - 1
    rings = order_rings(trace(sheet))
    owner = np.repeat(np.arange(len(rows)), counts)
    shift = lows[rows] - np.stack([np.zeros_like(tops), tops], -1)
    ring_shift = shift[owner[rings.regions - 1]]
    points = rings.points + np.repeat(ring_shift, np.diff(rings.ends, prepend=0), axis=0)
    polygons = ring_polygons(*_smoothed(points, rings.ends, rings.regions, tolerance))[1]
    return rows[owner], polygons


def _chosen(points: np.ndarray, ends: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if whole.all():
        return points, ends
    lengths = np.diff(ends, prepend=0)
    return points[np.repeat(whole, lengths)], np.cumsum(lengths[whole])


def _smoothed(
    points: np.ndarray, ends: np.ndarray, regions: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (*(middle_rings(points, ends) if tolerance >= LEAST_SMOOTHING else (points, ends)), regions)


def middle_rings(points: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(points, ends) of rings through the middles of the pixel sides of exact rings (n × 2 integers, all corners).

    Around every corner the new ring stays within half a pixel of it and cuts it off, so no two rings can meet: simple
    rings stay simple, disjoint ones disjoint. Middles on a straight line between others are left out.
    """
    x, y = np.ascontiguousarray(points.T)
    after = following(ends)
    dx, dy = x[after] - x, y[after] - y
    length = np.abs(dx + dy)
    way_x, way_y = np.sign(dx).astype(np.int8), np.sign(dy).astype(np.int8)
    # A side of one pixel has one middle; between turns to both hands it lies on the line through its neighbours.
    way = way_x + 2 * way_y
    before = np.empty_like(way)
    before[after] = way
    count = np.where(length > 1, 2, (before != way[after]).view(np.int8)).astype(np.int8)
    new_ends = np.cumsum(count)
    first = new_ends - count
    middles = np.empty((int(new_ends[-1]) if len(ends) else 0, 2))
    has, two = np.flatnonzero(count), np.flatnonzero(count == 2)
    middles[first[has], 0] = x[has] + way_x[has] / 2
    middles[first[has], 1] = y[has] + way_y[has] / 2
    far, last = after[two], first[two] + 1
    middles[last, 0] = x[far] - way_x[two] / 2
    middles[last, 1] = y[far] - way_y[two] / 2
    return middles, new_ends[ends - 1]


def _simplified(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    simpler = shapely.simplify(polygons, tolerance, preserve_topology=True)
    return np.where(shapely.is_valid(simpler) & ~shapely.is_empty(simpler), simpler, polygons)
