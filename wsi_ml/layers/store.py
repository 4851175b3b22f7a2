"""The store of layers: rows in SQLite, features there or in a file; published whole or not at all, then immutable."""

# ruff: noqa: S608 - queries are joined from constants of this file; every value is bound

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from wsi_ml.errors import DamagedError, LibraryError, NotFoundError, RemovedError, UnknownLayerError
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.geojson import write_features
from wsi_ml.geometry import Size
from wsi_ml.layers import feature_table, file_features
from wsi_ml.layers.database import DATABASE_FILE, LayerDatabase
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.features_format import FeaturesFacts
from wsi_ml.layers.file_geojson import write_columns
from wsi_ml.layers.layer import BaseBox, FeaturePage, Layer, LayerClass, NewLayer
from wsi_ml.layers.layer_files import LayerFiles
from wsi_ml.layers.palette import class_colors
from wsi_ml.layers.store_check import file_faults, orphan_faults, row_faults
from wsi_ml.slides.card import Card
from wsi_ml.slides.library import Library

_LAYER_COLUMNS = "number, id, slide_id, version, name, kind, provenance, created, stored_in, scored, file_check"


class LayerStore:
    """The layers of a library folder; safe for several threads and processes.

    A layer is kept in the database (imported ones, exact) or in a features file (predictions). Every layer has a
    features file to draw from; for one in the database it is a copy, made again where it is missing. The database is
    made by the first `publish`; before that there are no layers. Raises LibraryError when the database is of a newer
    format or cannot be used, DiskFullError when the disk is full (nothing half-written is kept).
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self.path = self.root / DATABASE_FILE
        self.database = LayerDatabase(self.path)
        self.files = LayerFiles(self.root)

    # -- reading ---------------------------------------------------------------------------------------------------

    def layers(self, slide_id: str, version: str | None = None) -> list[Layer]:
        """Layers of a slide, of one version of it when given, oldest first."""
        if not self.path.exists():
            return []
        query = f"SELECT {_LAYER_COLUMNS} FROM layers WHERE slide_id = ? AND ifnull(version = ?, TRUE) ORDER BY number"
        with self.database.connection() as connection:
            return [_layer(connection, row) for row in connection.execute(query, (slide_id, version)).fetchall()]

    def layers_json(self, slide_id: str, card: Card) -> list[dict[str, Any]]:
        """Layers of the slide version of `card` as plain JSON values."""
        return [layer.to_json(card.base_mpp) for layer in self.layers(slide_id, card.version)]

    def layer(self, layer_id: str) -> Layer:
        """One layer; raises UnknownLayerError."""
        with self._row_of(layer_id) as (connection, row):
            return _layer(connection, row)

    def layer_of(self, slide_id: str, layer_id: str) -> Layer:
        """One layer of a slide; raises UnknownLayerError also when it is another slide's."""
        layer = self.layer(layer_id)
        if layer.slide_id != slide_id:
            raise UnknownLayerError("This slide has no layer of this id.")
        return layer

    def layer_ids(self) -> set[str]:
        """Ids of all layers of the library."""
        if not self.path.exists():
            return set()
        with self.database.connection() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM layers")}

    def layer_by_key(self, key: str) -> Layer | None:
        """The layer that was published under a key, or None."""
        if not self.path.exists():
            return None
        with self.database.reading() as connection:
            row = connection.execute(f"SELECT {_LAYER_COLUMNS} FROM layers WHERE key = ?", (key,)).fetchone()
            return _layer(connection, row) if row else None

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

        `classes` keeps those of these names; `min_score` drops those whose score, rounded to ten-thousandths, is lower
        (a feature without a score, drawn by a person, stays). Count and features agree. Raises UnknownLayerError.
        """
        with self._row_of(layer_id) as (connection, row):
            layer = _layer(connection, row)
            if layer.stored_in == "database":
                return feature_table.page(
                    connection, row[0], bbox=bbox, limit=limit, classes=classes, min_score=min_score
                )
        found = self.features_file(layer_id).query(bbox, classes, min_score, limit)
        return FeaturePage(file_features.features_of(layer, found.columns) if found.columns else [], found.total)

    def geojson(
        self,
        layer_id: str,
        *,
        bbox: BaseBox | None = None,
        limit: int | None = None,
        classes: Sequence[str] | None = None,
        min_score: float | None = None,
    ) -> Iterator[bytes]:
        """What `features` finds as a FeatureCollection with `total` and `truncated`, in chunks; raises like it."""
        layer = self.layer(layer_id)
        if layer.stored_in == "file":
            found = self.features_file(layer_id).query(bbox, classes, min_score, limit)
            truncated = (0 if found.columns is None else len(found.columns)) < found.total
            return write_columns(layer, found.columns, total=found.total, truncated=truncated)
        page = self.features(layer_id, bbox=bbox, limit=limit, classes=classes, min_score=min_score)
        return write_features(page.features, layer.colors, total=page.total, truncated=page.truncated)

    def all_features(self, layer_id: str) -> Iterator[Feature]:
        """Every feature of a layer in bounded memory; raises UnknownLayerError.

        Those of the database come in order of publication, those of a file in the order of the file, which is by place.
        """
        with self._row_of(layer_id) as (connection, row):
            layer = _layer(connection, row)
            if layer.stored_in == "database":
                for batch in feature_table.batches(connection, row[0]):
                    yield from batch
                return
        yield from file_features.all_features(layer, self.features_file(layer_id))

    def features_file(self, layer_id: str) -> FeaturesFile:
        """The features file of a layer; a drawing copy that is missing is made first.

        Raises UnknownLayerError, and DamagedError when the file is missing or damaged.
        """
        with self._row_of(layer_id) as (connection, row):
            layer, check = _layer(connection, row), row[10]
        if layer.stored_in == "database" and not self.files.path(layer_id).exists():
            self._make_copy(layer)
        try:
            return self.files.open(layer_id, check)
        except DamagedError:
            self.layer(layer_id)  # raises when it was removed meanwhile
            raise

    # -- writing ---------------------------------------------------------------------------------------------------

    def publish(self, new: NewLayer, features: Sequence[Feature], base_size: Size | None = None) -> Layer:
        """Write a layer with all its features (base-plane pixels) into the database and return it, all or nothing.

        With the size of the slide's base plane the drawing copy is written beforehand, without it at the first use.
        """
        counted = _count_classes(features)
        numbers = {each.name: number for number, each in enumerate(counted)}
        scored = any(feature.score is not None for feature in features)
        with self.files.staged(new.id) if base_size is not None else contextlib.nullcontext() as staged:
            if base_size is not None and staged is not None:
                parts = (features[start : start + 4096] for start in range(0, len(features), 4096))
                file_features.write_copy(staged, list(numbers), base_size, parts)
            with self._publishing(new.id, staged) as connection:
                layer_number = _insert_layer(connection, new, counted, scored)
                feature_table.insert(connection, layer_number, features, numbers)
        return self.layer(new.id)

    def publish_file(
        self,
        new: NewLayer,
        staged: Path,
        facts: FeaturesFacts,
        colors: Mapping[str, str | None],
        key: str | None = None,
    ) -> Layer:
        """Publish a finished features file: it is renamed from `staged` into the library, then the row is written.

        `staged` is on the library's file system. A `key` is published once: where a layer has it already, that layer is
        returned and the staged file removed. Where publishing fails, the staged file is where it was. Raises
        LibraryError when the file is not the one of `facts`, DamagedError when it is not whole.
        """
        staged = Path(staged)
        file = FeaturesFile(staged)
        if file.facts != facts:
            raise LibraryError(f"The features file {staged.name} does not hold what is to be published.")
        chosen = class_colors({name: colors.get(name) for name in facts.class_names}, facts.class_names)
        rows = zip(facts.class_names, facts.counts, facts.base_areas, strict=True)
        classes = [LayerClass(name, chosen[name], count, area) for name, count, area in rows]
        if key is None or (found := self.layer_by_key(key)) is None:
            try:
                with self._publishing(new.id, staged) as connection:
                    _insert_layer(connection, new, classes, facts.scored, file.checksum, key)
                return self.layer(new.id)
            except LibraryError:
                # Another process may have published under the key since we looked.
                found = None if key is None else self.layer_by_key(key)
                if found is None:
                    raise
        staged.unlink()
        return found

    def remove(self, layer_id: str) -> None:
        """Remove a layer: its rows in one transaction, then its file; raises UnknownLayerError."""
        self.layer(layer_id)
        with self.database.transaction() as connection:
            # Features first: their class rows may not go while features point to them.
            number = "(SELECT number FROM layers WHERE id = ?)"
            connection.execute(f"DELETE FROM features WHERE layer_number = {number}", (layer_id,))
            connection.execute("DELETE FROM layers WHERE id = ?", (layer_id,))
        self.files.remove(layer_id)

    def check(self, slide_id: str | None = None) -> list[str]:
        """Every fault of rows and files, one sentence each, empty when all is well; of one slide's files when given."""
        if not self.path.exists():
            return orphan_faults(self.files, set())
        found = []
        if slide_id is None:
            with self.database.connection() as connection:
                found += row_faults(connection)
        # Publishing renames inside its transaction: no file can be seen here before its row.
        with self.database.transaction() as connection:
            rows = connection.execute(f"SELECT {_LAYER_COLUMNS} FROM layers ORDER BY number").fetchall()
            layers = [(_layer(connection, row), row[10]) for row in rows]
            if slide_id is None:
                found += orphan_faults(self.files, {layer.id for layer, _ in layers})
        for layer, check in layers:
            if slide_id in (None, layer.slide_id):
                found += file_faults(self.files, layer, check)
        return found

    # -- parts -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _row_of(self, layer_id: str) -> Iterator[tuple[sqlite3.Connection, tuple[Any, ...]]]:
        """A read transaction and the row of one layer; raises UnknownLayerError."""
        if not self.path.exists():
            raise UnknownLayerError("There is no layer of this id.")
        with self.database.reading() as connection:
            row = connection.execute(f"SELECT {_LAYER_COLUMNS} FROM layers WHERE id = ?", (layer_id,)).fetchone()
            if row is None:
                raise UnknownLayerError("There is no layer of this id.")
            yield connection, row

    @contextlib.contextmanager
    def _publishing(self, layer_id: str, staged: Path | None) -> Iterator[sqlite3.Connection]:
        """A write transaction at whose end the staged file takes its place; both or neither, but for a crash.

        A crash between the two leaves a file without a row, which nobody sees and `check` names.
        """
        adopted = False
        try:
            with self.database.transaction() as connection:
                yield connection
                if staged is not None:
                    self.files.adopt(staged, layer_id)
                    adopted = True
        except BaseException:
            if adopted and staged is not None:
                self.files.give_back(layer_id, staged)
            raise

    def _make_copy(self, layer: Layer) -> None:
        """Make the drawing copy of a layer of the database, once, whoever asks."""
        names = [each.name for each in layer.classes]
        path = self.files.path(layer.id)
        with self.files.staged(layer.id, ready=path.exists) as staged:
            if staged is None:
                return
            with self._row_of(layer.id) as (connection, row):
                base_size = self._base_size(layer, feature_table.extent(connection, row[0]))
                file_features.write_copy(staged, names, base_size, feature_table.batches(connection, row[0]))
            with self.database.transaction() as connection:
                # A layer that was removed meanwhile gets no file.
                if connection.execute("SELECT 1 FROM layers WHERE id = ?", (layer.id,)).fetchone():
                    self.files.adopt(staged, layer.id)

    def _base_size(self, layer: Layer, extent: tuple[float, float]) -> Size:
        """Size of the base plane of a layer's slide; of the layer's own extent where the slide has gone."""
        try:
            return Library(self.root).card(layer.slide_id, layer.version).base_size
        except (LibraryError, NotFoundError, RemovedError):
            return Size(*(max(1, math.ceil(edge)) for edge in extent))


def _layer(connection: sqlite3.Connection, row: tuple[Any, ...]) -> Layer:
    number, id_, slide_id, version, name, kind, provenance, created, stored_in, scored, _ = row
    query = "SELECT name, color, count, base_area FROM classes WHERE layer_number = ? ORDER BY number"
    classes = tuple(LayerClass(*each) for each in connection.execute(query, (number,)))
    facts = orjson.loads(provenance)
    return Layer(id_, slide_id, version, name, kind, facts, created, classes, stored_in, bool(scored))


def _insert_layer(
    connection: sqlite3.Connection,
    new: NewLayer,
    classes: Sequence[LayerClass],
    scored: bool,
    file_check: str | None = None,
    key: str | None = None,
) -> int:
    """Write the rows of a layer and its classes, numbered in their order; `file_check` for one kept in a file."""
    cursor = connection.execute(
        "INSERT INTO layers (id, slide_id, version, name, kind, provenance, created, stored_in, scored, file_check, "
        "key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.id,
            new.slide_id,
            new.version,
            new.name,
            new.kind,
            orjson.dumps(new.provenance).decode(),
            new.created,
            "database" if file_check is None else "file",
            scored,
            file_check,
            key,
        ),
    )
    layer_number = cursor.lastrowid or 0
    connection.executemany(
        "INSERT INTO classes (layer_number, number, name, color, count, base_area) VALUES (?, ?, ?, ?, ?, ?)",
        [(layer_number, number, c.name, c.color, c.count, c.base_area) for number, c in enumerate(classes)],
    )
    return layer_number


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
