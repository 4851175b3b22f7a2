"""The queue in SQLite: durable, ordered by priority and then by age, with leases that a silent worker loses."""

# ruff: noqa: S608 - queries are joined from constants of this file; every value is bound

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from wsi_ml.errors import (
    ConflictError,
    DiskFullError,
    LeaseLostError,
    LibraryError,
    PredictionCancelledError,
    QueueFullError,
    UnknownJobError,
)
from wsi_ml.jobs.job import MOST_TRIES, STATES, Job, JobBox, NewJob, Progress, new_job_id, utc_now

DATABASE_FILE = "jobs.sqlite"
FORMAT = 1
BUSY_S = 10.0
MOST_QUEUED = 1000
MOST_ENDED = 500
"""Ended jobs beyond so many are forgotten, oldest first."""
REASON_LENGTH = 500

_COLUMNS = (
    "id, kind, slide_id, version, model, region, parameters, preview, priority, lane, state, cancelling, "
    "position, progress, tries, reason, layer_id, created, started, finished, fence"
)
# Only queued jobs have a place, so the window is computed over the short partial index and not over the history.
_JOBS = """
(SELECT jobs.*, place.position FROM jobs LEFT JOIN (
    SELECT number, row_number() OVER (PARTITION BY lane ORDER BY priority DESC, number) AS position
    FROM jobs WHERE state = 'queued'
) AS place ON place.number = jobs.number)
"""
_INSERT = """
INSERT INTO jobs (id, key, kind, slide_id, version, model, region, parameters, preview, priority, lane, state, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?)
"""
_MINE = "id = ? AND fence = ? AND state = 'running'"
_LOST = "The worker was silent for too long and its job was given to another; nothing was published."


class Beat(NamedTuple):
    """A running job as a watcher sees it: the same three values for too long mean that its worker is gone."""

    id: str
    fence: int
    beat: int


class JobQueue:
    """The jobs of a library folder; a connection per thread, opened again after a fork, safe for several processes.

    The database is made when the first job comes. Every change is one transaction. Raises LibraryError when the
    database is of another format or cannot be used, DiskFullError when the disk is full (nothing is changed then).
    """

    def __init__(self, root: Path | str):
        self.path = Path(root) / DATABASE_FILE
        self._local = threading.local()

    # -- for people ------------------------------------------------------------------------------------------------

    def submit(self, new: NewJob, is_kept: Callable[[str], bool] = lambda layer_id: True) -> tuple[Job, bool]:
        """Queue a job, and say whether it is new.

        The same work that is queued, running, or done with its layer still there (`is_kept` of the layer's id) is
        returned instead; where the new order has a higher priority, a queued job rises to it. Raises QueueFullError.
        """
        with self._transaction() as connection:
            query = "SELECT id, state, layer_id FROM jobs WHERE key = ? AND cancelling = 0 ORDER BY number DESC LIMIT 1"
            row = connection.execute(query, (new.key,)).fetchone()
            if row and (row[1] in ("queued", "running") or (row[1] == "done" and is_kept(row[2]))):
                query = "UPDATE jobs SET priority = max(priority, ?) WHERE id = ? AND state = 'queued'"
                connection.execute(query, (new.priority, row[0]))
                return _job(connection, row[0]), False
            if connection.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0] >= MOST_QUEUED:
                raise QueueFullError(f"{MOST_QUEUED} jobs wait already; cancel some or come back later.", 30)
            job_id = new_job_id()
            region = json.dumps(new.region) if new.region else None
            values = (job_id, new.key, new.kind, new.slide_id, new.version, new.model, region)
            more = (json.dumps(new.parameters), new.preview, new.priority, new.lane, utc_now())
            connection.execute(_INSERT, values + more)
            _forget_oldest(connection)
            return _job(connection, job_id), True

    def job(self, job_id: str) -> Job:
        """One job; raises UnknownJobError."""
        if not self.path.exists():
            raise UnknownJobError("There is no job of this id.")
        with self._connection() as connection:
            return _job(connection, job_id)

    def jobs(self, slide_id: str | None = None, state: str | None = None) -> list[Job]:
        """Jobs, newest first; only those of a slide or in a state when given."""
        if not self.path.exists():
            return []
        query = (
            f"SELECT {_COLUMNS} FROM {_JOBS} WHERE ifnull(slide_id = ?, TRUE) AND ifnull(state = ?, TRUE) "
            "ORDER BY number DESC"
        )
        with self._connection() as connection:
            return [_from_row(row) for row in connection.execute(query, (slide_id, state))]

    def counts(self) -> dict[str, int]:
        """Number of jobs in each state."""
        found: dict[str, int] = {}
        if self.path.exists():
            with self._connection() as connection:
                found = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def cancel(self, job_id: str) -> Job:
        """Cancel a job: a queued one at once, a running one as soon as its worker has stopped.

        Raises UnknownJobError, and ConflictError for a job that has ended.
        """
        self.job(job_id)
        with self._transaction() as connection:
            job = _job(connection, job_id)
            if job.state == "running":
                connection.execute("UPDATE jobs SET cancelling = 1 WHERE id = ?", (job_id,))
            elif job.state == "queued":
                query = "UPDATE jobs SET state = 'cancelled', reason = ?, finished = ? WHERE id = ?"
                connection.execute(query, ("It was cancelled before it began.", utc_now(), job_id))
            else:
                raise ConflictError(f"This job has ended already ({job.state}); it cannot be cancelled.")
            return _job(connection, job_id)

    # -- for workers -----------------------------------------------------------------------------------------------

    def claim(self, lane: str, worker: str) -> Job | None:
        """Take the next job of a lane for a worker, or None where none waits; each job goes to one worker."""
        with self._transaction() as connection:
            query = (
                "UPDATE jobs SET state = 'running', worker = ?, fence = fence + 1, tries = tries + 1, started = ?, "
                "progress = NULL WHERE number = (SELECT number FROM jobs WHERE state = 'queued' AND lane = ? "
                "ORDER BY priority DESC, number LIMIT 1) RETURNING id"
            )
            row = connection.execute(query, (worker, utc_now(), lane)).fetchone()
            return _job(connection, row[0]) if row else None

    def beat(self, job: Job, progress: Progress | None = None) -> bool:
        """Tell that the worker of a claimed job lives, and how far it is; True when the job is to be cancelled.

        Raises LeaseLostError when the job is not the worker's any more.
        """
        shown = json.dumps(progress) if progress else None
        query = f"UPDATE jobs SET beat = beat + 1, progress = ifnull(?, progress) WHERE {_MINE} RETURNING cancelling"
        with self._transaction() as connection:
            row = connection.execute(query, (shown, job.id, job.fence)).fetchone()
            if row is None:
                raise LeaseLostError(_LOST)
            return bool(row[0])

    def is_cancelled(self, job: Job) -> bool:
        """True when a claimed job is to be cancelled; raises LeaseLostError when it is not the worker's any more."""
        with self._connection() as connection:
            row = connection.execute(f"SELECT cancelling FROM jobs WHERE {_MINE}", (job.id, job.fence)).fetchone()
        if row is None:
            raise LeaseLostError(_LOST)
        return bool(row[0])

    def allow_publishing(self, job: Job) -> None:
        """To be called right before the result is published; counts as a beat.

        Raises LeaseLostError when the job is not the worker's any more, PredictionCancelledError when it is cancelled.
        """
        if self.beat(job):
            raise PredictionCancelledError("The job was cancelled; nothing was published.")

    def finish(self, job: Job, layer_id: str) -> None:
        """A claimed job is done and its layer published (also where a wish to cancel came too late)."""
        self._end(job, "done", None, layer_id)

    def fail(self, job: Job, reason: str) -> None:
        """A claimed job cannot be done, and no further try would change that."""
        self._end(job, "failed", reason)

    def stopped(self, job: Job) -> None:
        """A claimed job was cancelled and its work has stopped."""
        self._end(job, "cancelled", "It was cancelled.")

    def retry(self, job: Job, reason: str) -> None:
        """A claimed job's try went wrong: it is queued again at its old place, or failed after its last try."""
        with self._transaction() as connection:
            if not _take_back(connection, _MINE, (job.id, job.fence), reason):
                raise LeaseLostError(_LOST)

    def give_back(self, job: Job) -> None:
        """A worker that is told to stop lets a claimed job go; the try does not count."""
        with self._transaction() as connection:
            query = f"UPDATE jobs SET tries = tries - 1 WHERE {_MINE}"
            if not connection.execute(query, (job.id, job.fence)).rowcount:
                raise LeaseLostError(_LOST)
            _take_back(connection, _MINE, (job.id, job.fence), None)

    # -- for whoever watches workers -------------------------------------------------------------------------------

    def version(self) -> int:
        """A number that changes when another connection has changed anything; compares within one thread only."""
        with self._connection() as connection:
            return connection.execute("PRAGMA data_version").fetchone()[0]

    def beats(self) -> list[Beat]:
        """The beats of all running jobs."""
        with self._connection() as connection:
            return [
                Beat(*row) for row in connection.execute("SELECT id, fence, beat FROM jobs WHERE state = 'running'")
            ]

    def take_back(self, seen: Beat, reason: str) -> bool:
        """Take a job from its worker, provided that it has not beaten since; False where it has."""
        with self._transaction() as connection:
            return _take_back(connection, f"{_MINE} AND beat = ?", tuple(seen), reason) > 0

    def forget_worker(self, worker: str, reason: str) -> int:
        """Take back the jobs of a worker that is known to be dead; gives their number."""
        with self._transaction() as connection:
            return _take_back(connection, "state = 'running' AND worker = ?", (worker,), reason)

    def check(self) -> list[str]:
        """Every inconsistency in the database, one sentence each; empty when all is well."""
        if not self.path.exists():
            return []
        with self._connection() as connection:
            faults = [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            query = "SELECT id, tries FROM jobs WHERE tries > ? OR tries < 0 OR (state = 'running' AND tries = 0)"
            rows = connection.execute(query, (MOST_TRIES,)).fetchall()
        return faults + [f"Job {id_} has had {tries} tries." for id_, tries in rows]

    # -- database --------------------------------------------------------------------------------------------------

    def _end(self, job: Job, state: str, reason: str | None, layer_id: str | None = None) -> None:
        query = (
            "UPDATE jobs SET state = ?, reason = ?, layer_id = ?, finished = ?, worker = NULL, cancelling = 0 "
            f"WHERE {_MINE}"
        )
        values = (state, _printable(reason), layer_id, utc_now(), job.id, job.fence)
        with self._transaction() as connection:
            if not connection.execute(query, values).rowcount:
                raise LeaseLostError(_LOST)

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
                raise DiskFullError("The disk is full: the queue of jobs is as it was before.") from error
            raise LibraryError(f"The queue of jobs cannot be used: {error}.") from error

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


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database, making its tables where there are none; raises LibraryError when it is of another format."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0:
        _create(connection)
    elif found != FORMAT:
        connection.close()
        raise LibraryError(f"The queue of jobs has format {found}; this Ocular reads format {FORMAT}.")
    return connection


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables; of two processes at once the second finds them made."""
    connection.execute("PRAGMA journal_mode = WAL")
    schema = resources.files("wsi_ml.jobs").joinpath("schema.sql").read_text("utf-8")
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        for statement in schema.split(";\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _take_back(connection: sqlite3.Connection, where: str, values: tuple[Any, ...], reason: str | None) -> int:
    """Queue running jobs again, or end them where they were to be cancelled or had their last try; gives the number."""
    now = utc_now()
    query = (
        "UPDATE jobs SET state = 'cancelled', reason = 'It was cancelled.', finished = ?, worker = NULL, "
        f"cancelling = 0 WHERE {where} AND cancelling = 1"
    )
    ended = connection.execute(query, (now, *values)).rowcount
    query = (
        "UPDATE jobs SET state = 'failed', reason = ?, finished = ?, worker = NULL "
        f"WHERE {where} AND tries >= {MOST_TRIES}"
    )
    failed = _printable(f"It was tried {MOST_TRIES} times. The last time: {reason}")
    ended += connection.execute(query, (failed, now, *values)).rowcount
    query = f"UPDATE jobs SET state = 'queued', reason = ?, progress = NULL, worker = NULL WHERE {where}"
    return ended + connection.execute(query, (_printable(reason), *values)).rowcount


def _forget_oldest(connection: sqlite3.Connection) -> None:
    ended = "state IN ('done', 'failed', 'cancelled')"
    last = f"SELECT number FROM jobs WHERE {ended} ORDER BY number DESC LIMIT 1 OFFSET {MOST_ENDED}"
    connection.execute(f"DELETE FROM jobs WHERE {ended} AND number <= ({last})")


def _printable(text: str | None) -> str | None:
    """A reason as it is kept: one line without control characters, not too long."""
    return None if text is None else "".join(c if c.isprintable() else " " for c in text)[:REASON_LENGTH]


def _job(connection: sqlite3.Connection, job_id: str) -> Job:
    row = connection.execute(f"SELECT {_COLUMNS} FROM {_JOBS} WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise UnknownJobError("There is no job of this id.")
    return _from_row(row)


def _from_row(row: tuple[Any, ...]) -> Job:
    names = _COLUMNS.split(", ")
    values: dict[str, Any] = dict(zip(names, row, strict=True))
    values["region"] = JobBox(*json.loads(values["region"])) if values["region"] else None
    values["progress"] = Progress(*json.loads(values["progress"])) if values["progress"] else None
    values["parameters"] = json.loads(values["parameters"])
    values["preview"], values["cancelling"] = bool(values["preview"]), bool(values["cancelling"])
    return Job(**values)
