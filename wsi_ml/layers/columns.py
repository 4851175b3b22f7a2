"""Features as columns of integers: what a features file holds, and the way between it and shapely geometries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from wsi_ml.layers.batch import FeatureBatch

UNIT = 16
"""Units per base-plane pixel: a coordinate in a features file is a whole number of sixteenths."""
UNIT_AREA = 1 / (2 * UNIT * UNIT)
"""Base-plane px² in one unit of area: half a square unit, so that every polygon's area is a whole number of them."""
SCORE_STEPS = 10_000
NO_SCORE = 65_535
_POLYGON_TYPES = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
LIMIT_UNITS = 1 << 30
"""Largest coordinate that the writer takes, in units; slides are far smaller."""


@dataclass(frozen=True)
class FeatureColumns:
    """N features with P parts, R rings and V points; row i of each column belongs to feature i.

    Rings are not closed. The first ring of a part is its outline, the others its holes.
    """

    numbers: np.ndarray
    """uint32: the feature's place in the order of publication."""
    class_numbers: np.ndarray
    """uint16: index into the layer's class names."""
    scores: np.ndarray
    """uint16: score · 10,000 rounded; NO_SCORE for none."""
    areas: np.ndarray
    """float32: base-plane px²."""
    boxes: np.ndarray
    """int32, N × 4: left, top, right, bottom in units."""
    part_ends: np.ndarray
    """uint32, N: number of parts up to and with this feature."""
    ring_ends: np.ndarray
    """uint32, P: number of rings up to and with this part."""
    point_ends: np.ndarray
    """uint32, R: number of points up to and with this ring."""
    points: np.ndarray
    """int32, V × 2: x, y in units."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def feature_point_ends(self) -> np.ndarray:
        """int64, N: number of points up to and with each feature."""
        return _through(self.point_ends, _through(self.ring_ends, self.part_ends))

    def geometries(self) -> np.ndarray:
        """Object array of N shapely Polygons and MultiPolygons (where a feature has several parts) in base px."""
        if not len(self):
            return np.empty(0, object)
        starts, ends = starts_of(self.point_ends), self.point_ends.astype(np.int64)
        closed = np.insert(np.arange(len(self.points)), ends, starts)
        rings = np.concatenate([[0], ends + np.arange(1, len(ends) + 1)])
        points = self.points[closed] / float(UNIT)
        offsets = (rings, np.concatenate([[0], self.ring_ends.astype(np.int64)]))
        parts = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, offsets)
        counts = self.part_ends.astype(np.int64) - starts_of(self.part_ends)
        if (counts == 1).all():
            return parts
        result = np.empty(len(self), object)
        single = counts == 1
        result[single] = parts[starts_of(self.part_ends)[single]]
        several = np.flatnonzero(~single)
        owners = np.repeat(np.arange(len(several)), counts[several])
        chosen = ragged_indices(starts_of(self.part_ends)[several], counts[several])
        result[several] = shapely.multipolygons(parts[chosen], indices=owners)
        return result

    def batch(self) -> FeatureBatch:
        """The same features as geometries with scores from 0 to 1 (NaN for none)."""
        return FeatureBatch(self.geometries(), self.class_numbers, scores_of(self.scores))

    def take(self, rows: np.ndarray) -> FeatureColumns:
        """The features of these rows (integers), in their order."""
        rows = np.asarray(rows, np.int64)
        parts, part_ends = _take_lists(self.part_ends, rows)
        rings, ring_ends = _take_lists(self.ring_ends, parts)
        points, point_ends = _take_lists(self.point_ends, rings)
        return FeatureColumns(
            self.numbers[rows],
            self.class_numbers[rows],
            self.scores[rows],
            self.areas[rows],
            self.boxes[rows],
            part_ends,
            ring_ends,
            point_ends,
            self.points[points],
        )

    def span(self, start: int, end: int) -> FeatureColumns:
        """Features `start` to `end` (not included)."""
        part_a, part_b = _bounds_at(self.part_ends, start, end)
        ring_a, ring_b = _bounds_at(self.ring_ends, part_a, part_b)
        point_a, point_b = _bounds_at(self.point_ends, ring_a, ring_b)
        rows = slice(start, end)
        return FeatureColumns(
            self.numbers[rows],
            self.class_numbers[rows],
            self.scores[rows],
            self.areas[rows],
            self.boxes[rows],
            self.part_ends[rows] - np.uint32(part_a),
            self.ring_ends[part_a:part_b] - np.uint32(ring_a),
            self.point_ends[ring_a:ring_b] - np.uint32(point_a),
            self.points[point_a:point_b],
        )


def join(pieces: Sequence[FeatureColumns]) -> FeatureColumns:
    """Features of all the pieces, in order; at least one piece."""
    if len(pieces) == 1:
        return pieces[0]
    return FeatureColumns(
        np.concatenate([piece.numbers for piece in pieces]),
        np.concatenate([piece.class_numbers for piece in pieces]),
        np.concatenate([piece.scores for piece in pieces]),
        np.concatenate([piece.areas for piece in pieces]),
        np.concatenate([piece.boxes for piece in pieces]),
        _join_ends([piece.part_ends for piece in pieces]),
        _join_ends([piece.ring_ends for piece in pieces]),
        _join_ends([piece.point_ends for piece in pieces]),
        np.concatenate([piece.points for piece in pieces]),
    )


def columns_of(batch: FeatureBatch, first_number: int) -> FeatureColumns:
    """A batch with its coordinates rounded to units and its features numbered from `first_number`.

    Raises ValueError for anything but Polygons and MultiPolygons with points, for coordinates that are not numbers or
    beyond ±2^26 px, and for scores outside 0 to 1.
    """
    if not len(batch):
        raise ValueError("A batch of no features has no columns.")
    if not np.isin(shapely.get_type_id(batch.geometries), _POLYGON_TYPES).all():
        raise ValueError("A layer's features are Polygons and MultiPolygons.")
    _, points, offsets = shapely.to_ragged_array(batch.geometries, include_z=False)
    if len(offsets) == 2:  # Polygons only: one part each
        offsets = (*offsets, np.arange(len(batch) + 1))
    point_ends, ring_ends, part_ends = (np.asarray(each[1:], np.int64) for each in offsets)
    if not len(points) or (np.diff(_through(point_ends, _through(ring_ends, part_ends)), prepend=0) == 0).any():
        raise ValueError("A feature without points cannot be stored.")
    units = np.rint(points * UNIT)
    if not (np.abs(units) < LIMIT_UNITS).all():  # also false for NaN
        raise ValueError(f"A feature's coordinate is not a number within ±{LIMIT_UNITS // UNIT} px.")
    kept = np.ones(len(points), bool)
    kept[point_ends - 1] = False  # the closing point of each ring
    columns = FeatureColumns(
        numbers=np.arange(first_number, first_number + len(batch), dtype=np.uint32),
        class_numbers=np.asarray(batch.class_numbers).astype(np.uint16),
        scores=score_steps(batch.scores),
        areas=np.zeros(len(batch), np.float32),
        boxes=np.zeros((len(batch), 4), np.int32),
        part_ends=part_ends.astype(np.uint32),
        ring_ends=ring_ends.astype(np.uint32),
        point_ends=(point_ends - np.arange(1, len(point_ends) + 1)).astype(np.uint32),
        points=units[kept].astype(np.int32),
    )
    starts = starts_of(columns.feature_point_ends)
    columns.boxes[:, :2] = np.minimum.reduceat(columns.points, starts)
    columns.boxes[:, 2:] = np.maximum.reduceat(columns.points, starts)
    columns.areas[:] = area_units(columns) * UNIT_AREA
    return columns


def score_steps(scores: np.ndarray) -> np.ndarray:
    """Scores (0 to 1, NaN for none) as uint16 ten-thousandths, halves rounded up; raises ValueError outside 0 to 1."""
    values = np.asarray(scores, np.float64)
    missing = np.isnan(values)
    if ((values < 0) | (values > 1)).any():
        raise ValueError("A score is a number from 0 to 1.")
    return np.where(missing, NO_SCORE, np.floor(np.where(missing, 0, values) * SCORE_STEPS + 0.5)).astype(np.uint16)


def scores_of(steps: np.ndarray) -> np.ndarray:
    """float32 scores of ten-thousandths, NaN for NO_SCORE."""
    return np.where(steps == NO_SCORE, np.nan, steps / float(SCORE_STEPS)).astype(np.float32)


def least_steps(min_score: float) -> int:
    """The least ten-thousandths that count as at least `min_score`."""
    return int(np.ceil(min_score * SCORE_STEPS - 1e-6))


def ring_areas(columns: FeatureColumns) -> np.ndarray:
    """int64, R: twice the signed area of each ring in square units, which is its area in units of UNIT_AREA."""
    starts = starts_of(columns.point_ends)
    ends = columns.point_ends.astype(np.int64)
    origin = np.repeat(columns.points[starts].astype(np.int64), ends - starts, axis=0)
    x, y = (columns.points - origin).T
    after = np.arange(1, len(x) + 1)
    after[ends - 1] = starts
    return np.add.reduceat(x * y[after] - x[after] * y, starts)


def ring_signs(columns: FeatureColumns, areas: np.ndarray) -> np.ndarray:
    """int64, R: the factor that makes an outline's signed area positive and a hole's negative."""
    signs = np.where(areas < 0, 1, -1)
    signs[starts_of(columns.ring_ends)] *= -1
    return signs


def area_units(columns: FeatureColumns) -> np.ndarray:
    """int64, N: exact area of each feature in units of UNIT_AREA, outlines less holes, never below 0."""
    areas = ring_areas(columns)
    signed = areas * ring_signs(columns, areas)
    rings = starts_of(_through(columns.ring_ends, columns.part_ends))
    return np.maximum(np.add.reduceat(signed, rings), 0)


def starts_of(ends: np.ndarray) -> np.ndarray:
    """int64: where each list starts, from where each ends."""
    return np.concatenate([[0], ends.astype(np.int64)])[:-1]


def ragged_indices(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """int64: start, start + 1, … (count of them) for each pair, one after the other."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


def _take_lists(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(members of the lists in these rows, ends of the lists so taken)."""
    starts = starts_of(ends)[rows]
    counts = ends.astype(np.int64)[rows] - starts
    return ragged_indices(starts, counts), np.cumsum(counts).astype(np.uint32)


def _bounds_at(ends: np.ndarray, start: int, end: int) -> tuple[int, int]:
    return (int(ends[start - 1]) if start else 0), (int(ends[end - 1]) if end else 0)


def _join_ends(pieces: list[np.ndarray]) -> np.ndarray:
    totals = np.cumsum([0] + [int(piece[-1]) for piece in pieces[:-1]])
    return np.concatenate([piece + np.uint32(total) for piece, total in zip(pieces, totals, strict=True)])


def _through(inner_ends: np.ndarray, outer_ends: np.ndarray) -> np.ndarray:
    """Ends of the outer lists counted in members of the inner ones."""
    return inner_ends.astype(np.int64)[outer_ends.astype(np.int64) - 1]
