"""Faults of a layer store: rows against each other, and features files against their rows and themselves."""

from __future__ import annotations

import sqlite3

from wsi_ml.errors import DamagedError
from wsi_ml.layers import feature_table
from wsi_ml.layers.layer import Layer
from wsi_ml.layers.layer_files import LayerFiles

_MISCOUNTED = """
SELECT c.name, c.count, count(f.id) AS found FROM classes c
JOIN layers l ON l.number = c.layer_number AND l.stored_in = 'database'
LEFT JOIN features f ON f.layer_number = c.layer_number AND f.class_number = c.number
GROUP BY c.layer_number, c.number HAVING found <> c.count
"""


def row_faults(connection: sqlite3.Connection) -> list[str]:
    """Every inconsistency in the database, one sentence each."""
    faults = [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    faults += [f"A row of {row[0]} points nowhere." for row in connection.execute("PRAGMA foreign_key_check")]
    faults += feature_table.faults(connection)
    for name, counted, found in connection.execute(_MISCOUNTED):
        faults.append(f"Class “{name}” counts {counted} features and has {found}.")
    return faults


def orphan_faults(files: LayerFiles, known: set[str]) -> list[str]:
    """Files that belong to no layer: a crash between file and row leaves one, which nobody sees."""
    faults = [f"The features file {id_} has no layer; delete it." for id_ in sorted(files.ids() - known)]
    return faults + [f"“{name}” in the folder of layers is no features file." for name in files.strangers()]


def file_faults(files: LayerFiles, layer: Layer, check: str | None) -> list[str]:
    """Every fault of a layer's features file; a drawing copy may be missing, for it is made when it is asked for."""
    copy = layer.stored_in == "database"
    if copy and not files.path(layer.id).exists():
        return []
    try:
        file = files.open(layer.id, check)
    except DamagedError as error:
        return [f"{error} {_REMADE}" if copy else str(error)]
    faults = file.check()
    rows = [(each.name, each.count) for each in layer.classes]
    if rows != list(zip(file.facts.class_names, file.facts.counts, strict=True)):
        faults.append(f"The features file {file.path.name} does not hold the features of its layer.")
    return [f"{fault} {_REMADE}" for fault in faults] if copy else faults


_REMADE = "Delete it: it is a copy and is made again."
