"""Layers in SQLite: published whole or not at all, found by box through an R*Tree, immutable until removed."""

# ruff: noqa: S608 - queries are joined from constants of this file; every value is bound

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import orjson
import shapely

from wsi_ml.errors import DiskFullError, LibraryError, UnknownLayerError
from wsi_ml.formats.feature import Feature
from wsi_ml.layers.layer import BaseBox, FeaturePage, Layer, LayerClass, NewLayer
from wsi_ml.layers.palette import class_colors
from wsi_ml.slides.card import Card

DATABASE_FILE = "layers.sqlite"
FORMAT = 1
BUSY_S = 10.0
LAYER_STEP = 1 << 20
"""Distance between layers on the third axis of the R*Tree (also in schema.sql)."""
_BATCH = 4096
_PROPERTIES = ("object_type", "name", "color", "locked", "measurements", "metadata")

_INSERT = """
INSERT INTO features (layer_number, class_number, uuid, score, base_x0, base_y0, base_x1, base_y1, base_area, geometry,
                      properties)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS = "f.class_number, f.uuid, f.score, f.geometry, f.properties"
_LAYER_COLUMNS = "number, id, slide_id, version, name, kind, provenance, created"


class LayerStore:
    """The layers of a library folder; a connection per thread, opened again after a fork, safe for several processes.

    The database is made by the first `publish`; before that there are no layers. Raises LibraryError when the database
    is of a newer format or cannot be used, DiskFullError when the disk is full (nothing half-written is kept).
    """

    def __init__(self, root: Path | str):
        self.path = Path(root) / DATABASE_FILE
        self._local = threading.local()

    # -- reading ---------------------------------------------------------------------------------------------------

    def layers(self, slide_id: str, version: str | None = None) -> list[Layer]:
        """Layers of a slide, of one version of it when given, oldest first."""
        if not self.path.exists():
            return []
        query = f"SELECT {_LAYER_COLUMNS} FROM layers WHERE slide_id = ? AND ifnull(version = ?, TRUE) ORDER BY number"
        with self._connection() as connection:
            return [_layer(connection, row) for row in connection.execute(query, (slide_id, version)).fetchall()]

    def layers_json(self, slide_id: str, card: Card) -> list[dict[str, Any]]:
        """Layers of the slide version of `card` as plain JSON values."""
        return [layer.to_json(card.base_mpp) for layer in self.layers(slide_id, card.version)]

    def layer(self, layer_id: str) -> Layer:
        """One layer; raises UnknownLayerError."""
        with self._connection_of(layer_id) as (connection, row):
            return _layer(connection, row)

    def layer_of(self, slide_id: str, layer_id: str) -> Layer:
        """One layer of a slide; raises UnknownLayerError also when it is another slide's."""
        layer = self.layer(layer_id)
        if layer.slide_id != slide_id:
            raise UnknownLayerError("This slide has no layer of this id.")
        return layer

    def features(
        self,
        layer_id: str,
        *,
        bbox: BaseBox | None = None,
        limit: int | None = None,
        classes: Sequence[str] | None = None,
        min_score: float | None = None,
    ) -> FeaturePage:
        """Features whose bounds meet `bbox` (edges count), largest first, at most `limit` of them, and how many match.

        `classes` keeps those of these names; `min_score` drops those with a lower score (a feature without a score,
        drawn by a person, stays). One read transaction: count and features agree. Raises UnknownLayerError.
        """
        with self._connection_of(layer_id) as (connection, row):
            where, values = _condition(row[0], bbox, classes, min_score)
            total = connection.execute(f"SELECT count(*) FROM {where}", values).fetchone()[0]
            classes_by_number = _classes_of(connection, row[0])
            query = f"SELECT {_COLUMNS} FROM {where} ORDER BY f.base_area DESC, f.id LIMIT ?"
            rows = connection.execute(query, (*values, -1 if limit is None else limit)).fetchall()
        return FeaturePage(_features(rows, classes_by_number), total)

    def all_features(self, layer_id: str) -> Iterator[Feature]:
        """Every feature of a layer in the order of publication, in bounded memory; raises UnknownLayerError."""
        with self._connection_of(layer_id) as (connection, row):
            classes = _classes_of(connection, row[0])
            query = f"SELECT f.id, {_COLUMNS} FROM features f WHERE layer_number = ? AND id > ? ORDER BY id LIMIT ?"
            last = 0
            while rows := connection.execute(query, (row[0], last, _BATCH)).fetchall():
                last = rows[-1][0]
                yield from _features([each[1:] for each in rows], classes)

    # -- writing ---------------------------------------------------------------------------------------------------

    def publish(self, layer: NewLayer, features: Sequence[Feature]) -> Layer:
        """Write a layer with all its features (base-plane pixels) in one transaction and return it."""
        counted = _count_classes(features)
        numbers = {each.name: number for number, each in enumerate(counted)}
        provenance = orjson.dumps(layer.provenance).decode()
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO layers (id, slide_id, version, name, kind, provenance, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (layer.id, layer.slide_id, layer.version, layer.name, layer.kind, provenance, layer.created),
            )
            layer_number = cursor.lastrowid
            connection.executemany(
                "INSERT INTO classes (layer_number, number, name, color, count, base_area) VALUES (?, ?, ?, ?, ?, ?)",
                [(layer_number, numbers[c.name], c.name, c.color, c.count, c.base_area) for c in counted],
            )
            for start in range(0, len(features), _BATCH):
                connection.executemany(_INSERT, _rows(layer_number, features[start : start + _BATCH], numbers))
        return self.layer(layer.id)

    def remove(self, layer_id: str) -> None:
        """Remove a layer and its features in one transaction; raises UnknownLayerError."""
        self.layer(layer_id)
        with self._transaction() as connection:
            # Features first: their class rows may not go while features point to them.
            number = "(SELECT number FROM layers WHERE id = ?)"
            connection.execute(f"DELETE FROM features WHERE layer_number = {number}", (layer_id,))
            connection.execute("DELETE FROM layers WHERE id = ?", (layer_id,))

    def check(self) -> list[str]:
        """Every inconsistency in the database, one sentence each; empty when all is well."""
        if not self.path.exists():
            return []
        with self._connection() as connection:
            faults = [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            faults += [f"A row of {row[0]} points nowhere." for row in connection.execute("PRAGMA foreign_key_check")]
            tree = connection.execute("SELECT rtreecheck('feature_boxes')").fetchone()[0]
            faults += [] if tree == "ok" else [f"R*Tree: {tree}"]
            faults += [f"Feature {row[0]} has a wrong box in the R*Tree, or none." for row in connection.execute(_LOST)]
            for name, counted, found in connection.execute(_MISCOUNTED):
                faults.append(f"Class “{name}” counts {counted} features and has {found}.")
            faults += _wrong_geometries(connection)
        return faults

    # -- database --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The connection of this thread, in autocommit; SQLite's faults become named errors."""
        try:
            if getattr(self._local, "process", None) != os.getpid():
                # After a fork the parent's connection is kept, unused: to close it here would end the parent's locks.
                self._local.inherited = getattr(self._local, "connection", None)
                self._local.connection = _connect(self.path)
                self._local.process = os.getpid()
            yield self._local.connection
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFullError("The disk is full: the layer was not written.") from error
            raise LibraryError(f"The database of layers cannot be used: {error}.") from error

    @contextlib.contextmanager
    def _connection_of(self, layer_id: str) -> Iterator[tuple[sqlite3.Connection, tuple[Any, ...]]]:
        """A read transaction and the row of one layer; raises UnknownLayerError."""
        if not self.path.exists():
            raise UnknownLayerError("There is no layer of this id.")
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                row = connection.execute(f"SELECT {_LAYER_COLUMNS} FROM layers WHERE id = ?", (layer_id,)).fetchone()
                if row is None:
                    raise UnknownLayerError("There is no layer of this id.")
                yield connection, row
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


_LOST = f"""
SELECT f.id FROM features f LEFT JOIN feature_boxes b ON b.id = f.id
WHERE b.id IS NULL OR b.x0 > f.base_x0 OR b.x1 < f.base_x1 OR b.y0 > f.base_y0 OR b.y1 < f.base_y1
      OR b.layer0 <> f.layer_number * {LAYER_STEP} OR b.layer1 <> b.layer0
UNION ALL
SELECT b.id FROM feature_boxes b LEFT JOIN features f ON f.id = b.id WHERE f.id IS NULL
"""
_MISCOUNTED = """
SELECT c.name, c.count, count(f.id) AS found FROM classes c
LEFT JOIN features f ON f.layer_number = c.layer_number AND f.class_number = c.number
GROUP BY c.layer_number, c.number HAVING found <> c.count
"""


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database, making its tables where there are none; raises LibraryError when it is of a newer format."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0:
        _create(connection)
    elif found != FORMAT:
        connection.close()
        raise LibraryError(f"The layers of this library have format {found}; this Ocular reads format {FORMAT}.")
    return connection


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables; of two processes at once the second finds them made."""
    connection.execute("PRAGMA journal_mode = WAL")
    schema = resources.files("wsi_ml.layers").joinpath("schema.sql").read_text("utf-8")
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        for statement in _statements(schema):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """Statements of a script, triggers whole (`executescript` would commit the transaction first)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


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
        terms.append("(f.score IS NULL OR f.score >= ?)")
        values.append(min_score)
    return f"{tables} WHERE {' AND '.join(terms)}", tuple(values)


def _layer(connection: sqlite3.Connection, row: tuple[Any, ...]) -> Layer:
    number, id_, slide_id, version, name, kind, provenance, created = row
    query = "SELECT name, color, count, base_area FROM classes WHERE layer_number = ? ORDER BY number"
    classes = tuple(LayerClass(*each) for each in connection.execute(query, (number,)))
    return Layer(id_, slide_id, version, name, kind, orjson.loads(provenance), created, classes)


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


def _count_classes(features: Iterable[Feature]) -> list[LayerClass]:
    """Classes in order of name with colour, count and area; the first colour stated for a class is its colour."""
    stated: dict[str, str | None] = {}
    counts: dict[str, int] = {}
    areas: dict[str, float] = {}
    for feature in features:
        name = feature.class_name
        stated[name] = stated.get(name) or feature.class_color
        counts[name] = counts.get(name, 0) + 1
        areas[name] = areas.get(name, 0.0) + feature.geometry.area
    colors = class_colors(stated, counts)
    return [LayerClass(name, color, counts[name], areas[name]) for name, color in colors.items()]


def _rows(layer_number: int | None, features: Sequence[Feature], numbers: dict[str, int]) -> Iterator[tuple[Any, ...]]:
    geometries = [feature.geometry for feature in features]
    bounds, areas = shapely.bounds(geometries).tolist(), shapely.area(geometries).tolist()
    for feature, wkb, box, area in zip(features, shapely.to_wkb(geometries), bounds, areas, strict=True):
        properties = orjson.dumps({key: value for key in _PROPERTIES if (value := getattr(feature, key))}).decode()
        class_number = numbers[feature.class_name]
        yield (layer_number, class_number, feature.uuid, feature.score, *box, area, wkb, properties)


def _wrong_geometries(connection: sqlite3.Connection) -> list[str]:
    faults = []
    rows = connection.execute("SELECT id, base_x0, base_y0, base_x1, base_y1, geometry FROM features")
    while batch := list(itertools.islice(rows, _BATCH)):
        geometries = shapely.from_wkb([row[5] for row in batch], on_invalid="ignore")
        found = shapely.bounds(geometries).tolist()
        faults += [
            f"Feature {row[0]} does not match its exact bounds."
            for row, bounds in zip(batch, found, strict=True)
            if list(row[1:5]) != bounds
        ]
    return faults
