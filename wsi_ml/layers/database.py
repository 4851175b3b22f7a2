"""The SQLite database of layers: a connection per thread, its tables made or brought up to date when it is opened."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from wsi_ml.errors import DiskFullError, LibraryError

DATABASE_FILE = "layers.sqlite"
FORMAT = 2
BUSY_S = 10.0
SCRIPTS = ("schema.sql", "schema_2.sql")
"""Script number n brings a database of format n − 1 to format n."""


class LayerDatabase:
    """Connections to one database, opened again after a fork, safe for several threads and processes.

    Raises LibraryError when the database is of a newer format or cannot be used, DiskFullError when the disk is full.
    """

    def __init__(self, path: Path):
        self.path = path
        self._local = threading.local()

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
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
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction, or the transaction that this thread is in already: all that is read in it agrees."""
        with self.connection() as connection:
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed when the block ends, undone when it raises."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database and bring its tables up to date; raises LibraryError when it is of a newer format."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FORMAT:
        connection.close()
        raise LibraryError(f"The layers of this library have format {found}; this Ocular reads format {FORMAT}.")
    if found < FORMAT:
        _bring_up_to_date(connection)
    return connection


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Run the scripts that are missing, all or none; of two processes at once the second finds nothing to do."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        for name in SCRIPTS[found:]:
            for statement in _statements(resources.files("wsi_ml.layers").joinpath(name).read_text("utf-8")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(found, FORMAT)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """Statements of a script, triggers whole (`executescript` would commit the transaction first)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
