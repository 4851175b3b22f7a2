"""The table of features in the database of layers: exact geometries, found by box through an R*Tree."""

# ruff: noqa: S608 - queries are joined from constants of this file; every value is bound

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import shapely

from wsi_ml.formats.feature import Feature
from wsi_ml.layers.columns import SCORE_STEPS, least_steps
from wsi_ml.layers.layer import BaseBox, FeaturePage

LAYER_STEP = 1 << 20
"""Distance between layers on the third axis of the R*Tree (also in schema.sql)."""
BATCH = 4096
_PROPERTIES = ("object_type", "name", "color", "locked", "measurements", "metadata")
_INSERT = """
INSERT INTO features (layer_number, class_number, uuid, score, base_x0, base_y0, base_x1, base_y1, base_area, geometry,
                      properties)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS = "f.class_number, f.uuid, f.score, f.geometry, f.properties"
_LOST = f"""
SELECT f.id FROM features f LEFT JOIN feature_boxes b ON b.id = f.id
WHERE b.id IS NULL OR b.x0 > f.base_x0 OR b.x1 < f.base_x1 OR b.y0 > f.base_y0 OR b.y1 < f.base_y1
      OR b.layer0 <> f.layer_number * {LAYER_STEP} OR b.layer1 <> b.layer0
UNION ALL
SELECT b.id FROM feature_boxes b LEFT JOIN features f ON f.id = b.id WHERE f.id IS NULL
"""


def insert(
    connection: sqlite3.Connection, layer_number: int, features: Sequence[Feature], numbers: dict[str, int]
) -> None:
    """Write features; `numbers` gives the number of each class by its name."""
    for start in range(0, len(features), BATCH):
        connection.executemany(_INSERT, _rows(layer_number, features[start : start + BATCH], numbers))


def page(
    connection: sqlite3.Connection,
    layer_number: int,
    *,
    bbox: BaseBox | None,
    limit: int | None,
    classes: Sequence[str] | None,
    min_score: float | None,
) -> FeaturePage:
    """Features whose bounds meet `bbox`, largest first, and how many match; inside a read transaction."""
    where, values = _condition(layer_number, bbox, classes, min_score)
    total = connection.execute(f"SELECT count(*) FROM {where}", values).fetchone()[0]
    query = f"SELECT {_COLUMNS} FROM {where} ORDER BY f.base_area DESC, f.id LIMIT ?"
    rows = connection.execute(query, (*values, -1 if limit is None else limit)).fetchall()
    return FeaturePage(_features(rows, _classes_of(connection, layer_number)), total)


def batches(connection: sqlite3.Connection, layer_number: int) -> Iterator[list[Feature]]:
    """All features of a layer in order of publication, BATCH at a time."""
    classes = _classes_of(connection, layer_number)
    query = f"SELECT f.id, {_COLUMNS} FROM features f WHERE layer_number = ? AND id > ? ORDER BY id LIMIT ?"
    last = 0
    while rows := connection.execute(query, (layer_number, last, BATCH)).fetchall():
        last = rows[-1][0]
        yield _features([each[1:] for each in rows], classes)


def extent(connection: sqlite3.Connection, layer_number: int) -> tuple[float, float]:
    """The largest x and y of a layer's features."""
    query = "SELECT max(base_x1), max(base_y1) FROM features WHERE layer_number = ?"
    x, y = connection.execute(query, (layer_number,)).fetchone()
    return x or 0.0, y or 0.0


def faults(connection: sqlite3.Connection) -> list[str]:
    """Every disagreement between features, their boxes and their geometries, one sentence each."""
    tree = connection.execute("SELECT rtreecheck('feature_boxes')").fetchone()[0]
    found = [] if tree == "ok" else [f"R*Tree: {tree}"]
    found += [f"Feature {row[0]} has a wrong box in the R*Tree, or none." for row in connection.execute(_LOST)]
    rows = connection.execute("SELECT id, base_x0, base_y0, base_x1, base_y1, geometry FROM features")
    while batch := list(itertools.islice(rows, BATCH)):
        geometries = shapely.from_wkb([row[5] for row in batch], on_invalid="ignore")
        found += [
            f"Feature {row[0]} does not match its exact bounds."
            for row, bounds in zip(batch, shapely.bounds(geometries).tolist(), strict=True)
            if list(row[1:5]) != bounds
        ]
    return found


def _condition(
    layer_number: int, bbox: BaseBox | None, classes: Sequence[str] | None, min_score: float | None
) -> tuple[str, tuple[Any, ...]]:
    """(tables and WHERE, values) of a query; the tree proposes, the exact columns decide."""
    tables, terms = "features f", ["f.layer_number = ?"]
    values: list[Any] = [layer_number]
    if bbox is not None:
        # CROSS JOIN makes SQLite walk the tree first.
        tables = "feature_boxes b CROSS JOIN features f ON f.id = b.id"
        terms += ["b.layer0 = ?", "b.x1 >= ?", "b.y1 >= ?", "b.x0 <= ?", "b.y0 <= ?"]
        terms += ["f.base_x1 >= ?", "f.base_y1 >= ?", "f.base_x0 <= ?", "f.base_y0 <= ?"]
        values += [layer_number * LAYER_STEP, *bbox, *bbox]
    if classes is not None:
        marks = ", ".join("?" * len(classes))
        terms.append(f"f.class_number IN (SELECT number FROM classes WHERE layer_number = ? AND name IN ({marks}))")
        values += [layer_number, *classes]
    if min_score is not None:
        # Rounded as the drawing copy and the summary round, so that one threshold keeps the same features everywhere.
        terms.append(f"(f.score IS NULL OR CAST(f.score * {SCORE_STEPS} + 0.5 AS INTEGER) >= ?)")
        values.append(least_steps(min_score))
    return f"{tables} WHERE {' AND '.join(terms)}", tuple(values)


def _classes_of(connection: sqlite3.Connection, layer_number: int) -> dict[int, tuple[str, str]]:
    """(name, colour) of each class by its number."""
    query = "SELECT number, name, color FROM classes WHERE layer_number = ?"
    return {number: (name, color) for number, name, color in connection.execute(query, (layer_number,))}


def _features(rows: list[tuple[Any, ...]], classes: dict[int, tuple[str, str]]) -> list[Feature]:
    geometries = shapely.from_wkb([row[3] for row in rows])
    return [
        Feature(geometry, row[1], *classes[row[0]], score=row[2], **orjson.loads(row[4]))
        for row, geometry in zip(rows, geometries, strict=True)
    ]


def _rows(layer_number: int, features: Sequence[Feature], numbers: dict[str, int]) -> Iterator[tuple[Any, ...]]:
    geometries = [feature.geometry for feature in features]
    bounds, areas = shapely.bounds(geometries).tolist(), shapely.area(geometries).tolist()
    for feature, wkb, box, area in zip(features, shapely.to_wkb(geometries), bounds, areas, strict=True):
        properties = orjson.dumps({key: value for key in _PROPERTIES if (value := getattr(feature, key))}).decode()
        class_number = numbers[feature.class_name]
        yield (layer_number, class_number, feature.uuid, feature.score, *box, area, wkb, properties)
