"""The slide library: a folder of immutable slide versions and the SQLite rows that name them."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import shutil
import sqlite3
import string
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from wsi_ml.errors import DiskFullError, IngestError, LibraryError, RemovedError, UnknownSlideError, UnknownVersionError
from wsi_ml.slides.card import Card, read_card
from wsi_ml.slides.kept import KEPT_FOLDER, KEPT_SUFFIX, KEY_NAME_DIGITS, KeptTiles
from wsi_ml.slides.pyramid import Pyramid

DATABASE_FILE = "library.sqlite"
SLIDES_FOLDER = "slides"
STAGING_FOLDER = "staging"
CACHE_FOLDER = "cache"
RUN_FOLDER = "run"
MODELS_FOLDER = "models"
"""Cards and weights of the users' own models."""
FORMAT = 2
SCRIPTS = ("library.sql", "library_2.sql")
"""Script number n brings a database of format n − 1 to format n."""
ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True)
class Slide:
    """A slide in the library and the version it leads to now."""

    id: str
    name: str
    created: str
    current: str


def utc_now() -> str:
    """The present time, UTC, ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def new_slide_id() -> str:
    """A random opaque slide id of 12 letters and digits."""
    return "".join(secrets.choice(ID_LETTERS) for _ in range(12))


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable (fsync of the folder itself)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Library:
    """A library folder; safe for several processes, and for several threads of one (a connection per thread).

    Raises LibraryError when the folder holds no library or one of a newer format.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self._local = threading.local()
        if not (self.root / DATABASE_FILE).is_file():
            raise LibraryError(f"There is no library in “{self.root.name}”; `ocular ingest` makes one.")
        with self._connection() as connection:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            raise LibraryError(f"The library in “{self.root.name}” was never finished; `ocular ingest` makes it whole.")
        if found < FORMAT:
            _create_database(self.root / DATABASE_FILE)
        elif found > FORMAT:
            raise LibraryError(
                f"This library has format {found}; this Ocular reads format {FORMAT}. Use the matching Ocular."
            )

    @classmethod
    def create(cls, root: Path | str) -> Library:
        """Open the library in `root`, making the folder and its database first where they are missing."""
        root = Path(root)
        try:
            for folder in (root, root / SLIDES_FOLDER, root / STAGING_FOLDER, root / CACHE_FOLDER, root / RUN_FOLDER):
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            _create_database(root / DATABASE_FILE)
        except OSError as error:
            raise LibraryError(f"The library folder “{root.name}” cannot be made: {error.strerror}.") from error
        return cls(root)

    # -- reading ---------------------------------------------------------------------------------------------------

    def slides(self) -> list[Slide]:
        """All slides, by name."""
        with self._connection() as connection:
            rows = connection.execute("SELECT id, name, created, current FROM slides ORDER BY name").fetchall()
        return [Slide(*row) for row in rows]

    def slide(self, slide_id: str) -> Slide:
        """One slide; raises RemovedError when it was removed and UnknownSlideError when it never was here."""
        with self._connection() as connection:
            row = connection.execute(
                "SELECT id, name, created, current FROM slides WHERE id = ?", (slide_id,)
            ).fetchone()
            if row is None and connection.execute("SELECT 1 FROM versions WHERE slide_id = ?", (slide_id,)).fetchone():
                raise RemovedError("This slide has been removed from the library.")
        if row is None:
            raise UnknownSlideError("There is no slide of this id in the library.")
        return Slide(*row)

    def slide_by_name(self, name: str) -> Slide | None:
        """The slide of that name, or None."""
        with self._connection() as connection:
            row = connection.execute("SELECT id, name, created, current FROM slides WHERE name = ?", (name,)).fetchone()
        return Slide(*row) if row else None

    def versions(self, slide_id: str) -> list[str]:
        """Versions of a slide that are still here, oldest first."""
        query = "SELECT version FROM versions WHERE slide_id = ? AND removed IS NULL ORDER BY rowid"
        with self._connection() as connection:
            return [row[0] for row in connection.execute(query, (slide_id,))]

    def find(self, ingest_key: str) -> tuple[str, str] | None:
        """(slide id, version) of an earlier ingestion of the same file with the same parameters, or None."""
        query = "SELECT slide_id, version FROM versions WHERE ingest_key = ? AND removed IS NULL LIMIT 1"
        with self._connection() as connection:
            return connection.execute(query, (ingest_key,)).fetchone()

    def find_source(self, source_sha256: str) -> str | None:
        """Id of the slide that already holds a version of the same source file, or None."""
        query = "SELECT slide_id FROM versions WHERE source_sha256 = ? AND removed IS NULL LIMIT 1"
        with self._connection() as connection:
            row = connection.execute(query, (source_sha256,)).fetchone()
        return row[0] if row else None

    def folder(self, slide_id: str, version: str) -> Path:
        """Folder of one version; raises UnknownSlideError, UnknownVersionError or RemovedError."""
        query = "SELECT removed FROM versions WHERE slide_id = ? AND version = ?"
        with self._connection() as connection:
            row = connection.execute(query, (slide_id, version)).fetchone()
        if row is None:
            self.slide(slide_id)
            raise UnknownVersionError("The slide has no such version.")
        if row[0] is not None:
            raise RemovedError("This slide version has been removed from the library.")
        return self.version_folder(version)

    def version_folder(self, version: str) -> Path:
        """Where the files of a version lie, whether or not it exists."""
        return self.root / SLIDES_FOLDER / version

    def card(self, slide_id: str, version: str | None = None) -> Card:
        """Card of one version, by default of the current one; raises like `folder`."""
        return read_card(self.folder(slide_id, version or self.slide(slide_id).current))

    def pyramid(self, slide_id: str, version: str | None = None) -> Pyramid:
        """Open the pyramid of one version, by default of the current one; raises like `folder`."""
        return Pyramid(self.folder(slide_id, version or self.slide(slide_id).current))

    def kept_key(self, version: str) -> str | None:
        """Key of the kept ×40 tiles of a version, None where it was never compared with its scan."""
        with self._connection() as connection:
            row = connection.execute("SELECT key FROM kept WHERE version = ?", (version,)).fetchone()
        return row[0] if row else None

    def kept_file(self, version: str, key: str) -> Path:
        """Where the kept tiles of a key lie, whether or not they exist."""
        return self.version_folder(version) / KEPT_FOLDER / (key[:KEY_NAME_DIGITS] + KEPT_SUFFIX)

    def kept_tiles(self, version: str) -> KeptTiles | None:
        """The kept ×40 tiles of a version and its fidelity, None where it was never compared; raises LibraryError."""
        key = self.kept_key(version)
        return None if key is None else KeptTiles(self.kept_file(version, key))

    # -- writing ---------------------------------------------------------------------------------------------------

    def add(self, staged_folder: Path, card: Card, name: str, slide_id: str | None = None) -> str:
        """Publish a staged version and return its slide id; all or nothing.

        The folder is renamed into place first and the row follows in one transaction, so a crash leaves at most a
        folder without a row, which `check` names and the next `add` of the same version adopts. `slide_id` makes it a
        new version of that slide (raises UnknownSlideError); without it a new slide of that name is made (IngestError
        when the name is taken).
        """
        target = self.version_folder(card.version)
        with self._transaction() as connection:
            if slide_id is None:
                slide_id = new_slide_id()
                if connection.execute("SELECT 1 FROM slides WHERE name = ?", (name,)).fetchone():
                    raise IngestError(f"A slide named “{name}” is already in the library; choose another --name.")
            elif not connection.execute("SELECT 1 FROM slides WHERE id = ?", (slide_id,)).fetchone():
                raise UnknownSlideError("There is no slide of this id in the library.")
            if target.exists():
                shutil.rmtree(staged_folder)
            else:
                staged_folder.rename(target)
                sync_folder(target.parent)
            now = utc_now()
            connection.execute(
                "INSERT INTO slides (id, name, created, current) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET current = excluded.current",
                (slide_id, name, now, card.version),
            )
            connection.execute(
                "INSERT INTO versions (version, slide_id, ingest_key, source_sha256, created) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (slide_id, version) DO UPDATE SET removed = NULL, ingest_key = excluded.ingest_key",
                (card.version, slide_id, card.ingest_key, card.source.sha256, now),
            )
        return slide_id

    def publish_kept(self, version: str, key: str) -> None:
        """Let a version lead to the kept tiles of `key`, whose file is there, and drop those it led to before.

        Raises RemovedError when the version is gone.
        """
        with self._transaction() as connection:
            alive = "SELECT 1 FROM versions WHERE version = ? AND removed IS NULL"
            if not connection.execute(alive, (version,)).fetchone():
                raise RemovedError("The slide version was removed while its tiles were compared.")
            connection.execute(
                "INSERT INTO kept (version, key, created) VALUES (?, ?, ?) "
                "ON CONFLICT (version) DO UPDATE SET key = excluded.key, created = excluded.created",
                (version, key, utc_now()),
            )
        current = self.kept_file(version, key)
        for path in current.parent.glob(f"*{KEPT_SUFFIX}"):
            if path != current:
                path.unlink(missing_ok=True)

    def remove(self, slide_id: str, version: str | None = None) -> None:
        """Remove a slide, or one of its versions that is not the current one; raises UnknownSlideError and the like.

        Rows go first, so no reader is led to a folder that is half gone; then the files.
        """
        slide = self.slide(slide_id)
        gone = self.versions(slide_id) if version is None else [version]
        if version is not None:
            self.folder(slide_id, version)
            if version == slide.current:
                raise LibraryError("The current version of a slide cannot be removed alone; remove the slide.")
        with self._transaction() as connection:
            for each in gone:
                connection.execute(
                    "UPDATE versions SET removed = ? WHERE slide_id = ? AND version = ?", (utc_now(), slide_id, each)
                )
            if version is None:
                connection.execute("DELETE FROM slides WHERE id = ?", (slide_id,))
            alive = {row[0] for row in connection.execute("SELECT version FROM versions WHERE removed IS NULL")}
            connection.executemany("DELETE FROM kept WHERE version = ?", [(each,) for each in set(gone) - alive])
        for each in set(gone) - alive:
            shutil.rmtree(self.version_folder(each), ignore_errors=True)

    def check(self) -> list[str]:
        """Every disagreement between rows and folders, one sentence each; empty when all is well."""
        with self._connection() as connection:
            rows = connection.execute("SELECT version, slide_id FROM versions WHERE removed IS NULL").fetchall()
            slides = connection.execute("SELECT id, current FROM slides").fetchall()
            kept = connection.execute("SELECT version, key FROM kept").fetchall()
        faults = []
        on_disk = {path.name for path in (self.root / SLIDES_FOLDER).iterdir()}
        known = {version for version, _ in rows}
        faults += [f"Version {version} has a row but no files." for version in sorted(known - on_disk)]
        faults += [f"Folder {name} has files but no row." for name in sorted(on_disk - known)]
        faults += [
            f"Slide {id_} leads to version {current}, which it does not have."
            for id_, current in slides
            if (current, id_) not in set(rows)
        ]
        faults += [
            f"Version {version} has a row of kept tiles but no file of them."
            for version, key in kept
            if version not in known or not self.kept_file(version, key).is_file()
        ]
        return faults

    # -- database --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The thread's own connection; a forked child opens its own. SQLite faults become LibraryError."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.connection = _connect(self.root / DATABASE_FILE)
            self._local.process = os.getpid()
        try:
            yield self._local.connection
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFullError("The disk is full; the library is as it was before.") from error
            raise LibraryError(f"The library database cannot be used: {error}.") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


class LibraryWatch:
    """Tells cheaply whether anything was committed to a library since the last look (a connection of its own).

    `PRAGMA data_version` only compares within one connection, so the watch cannot share the library's.
    """

    def __init__(self, library: Library):
        self._connection = _connect(library.root / DATABASE_FILE)
        self._seen = self._data_version()

    def _data_version(self) -> int:
        return self._connection.execute("PRAGMA data_version").fetchone()[0]

    def changed(self) -> bool:
        """True when another connection has committed since the last call; not to be called by two threads at once."""
        seen, self._seen = self._seen, self._data_version()
        return seen != self._seen


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        raise LibraryError(f"The library database cannot be opened: {error}.") from error
    return connection


def _create_database(path: Path) -> None:
    """Make tables where there are none, or bring old ones up to date; two processes at once do it once."""
    connection = _connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        for name in SCRIPTS[found:]:
            statements = resources.files("wsi_ml.slides").joinpath(name).read_text("utf-8")
            for statement in statements.split(";\n"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(found, FORMAT)}")
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise LibraryError(f"The library database cannot be made: {error}.") from error
    finally:
        connection.close()
