"""Results of windows on disk, at fixed offsets, with a journal of the batches that are finished.

A record of the journal holds the checksum of its batch, so neither file has to reach the disk before the other: what
does not match is computed again. A process that is killed loses the batches that it had in hand, nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from wsi_ml.errors import DamagedError, DiskFullError
from wsi_ml.slides.library import sync_folder

FORMAT = 1
PLAN_FILE, WINDOWS_FILE, JOURNAL_FILE = "plan.json", "windows.bin", "journal.bin"
_RECORD = struct.Struct("<Id16s")
_CHECK_BYTES = 8
RECORD_BYTES = _RECORD.size + _CHECK_BYTES
SPARE_BYTES = 64 << 20
"""Room to leave on the disk for everything else."""


@contextlib.contextmanager
def disk_faults(what: str) -> Iterator[None]:
    """Turn a full disk (ENOSPC, EDQUOT) into DiskFullError naming what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(f"The disk is full: {what} cannot be written. Make room and start it again.") from error


class WindowFile:
    """Results of `count` windows of `shape` (channels, rows, columns; uint8) in a folder, in batches of `batch`.

    Opening takes over what an earlier process finished under an equal `plan` (JSON values that decide every byte) and
    checks each of its batches; under another plan it starts anew. One process at a time (the caller holds a lock).
    Raises DiskFullError when the disk has no room for all of it.
    """

    def __init__(
        self, folder: Path, plan: Mapping[str, Any], count: int, batch: int, shape: tuple[int, int, int]
    ):  # fmt: skip
        self.folder, self.count, self.batch, self.shape = folder, count, batch, shape
        self.batches = -(-count // batch)
        self.window_bytes = int(np.prod(shape))
        self.finished: set[int] = set()
        self.active_s = 0.0
        """Seconds of computing that the finished batches took, over all processes."""
        self._windows = self._journal = -1
        plan = {**plan, "format": FORMAT, "count": count, "batch": batch, "shape": list(shape)}
        with disk_faults("the model's output"):
            self._take_over(json.loads(json.dumps(plan)))

    def __enter__(self) -> WindowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what is written stays."""
        for descriptor in (self._windows, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._windows = self._journal = -1

    def batch_windows(self, number: int) -> range:
        """Numbers of the windows in a batch."""
        return range(number * self.batch, min((number + 1) * self.batch, self.count))

    @property
    def finished_windows(self) -> int:
        """How many windows are finished."""
        return sum(len(self.batch_windows(number)) for number in self.finished)

    def write(self, number: int, maps: np.ndarray, active_s: float) -> None:
        """Write the result of a batch, n × channels × rows × columns; `active_s` counts from the first batch on."""
        data = maps.tobytes()
        with disk_faults("the model's output"):
            _write_all(self._windows, data, number * self.batch * self.window_bytes)
            os.write(self._journal, _record(number, active_s, xxhash.xxh3_128_digest(data)))
        self.finished.add(number)
        self.active_s = active_s

    def sync(self) -> None:
        """Make everything written so far survive a loss of power."""
        with disk_faults("the model's output"):
            os.fdatasync(self._windows)
            os.fsync(self._journal)

    def window(self, number: int) -> np.ndarray:
        """Result of one finished window, channels × rows × columns, read-only."""
        data = os.pread(self._windows, self.window_bytes, number * self.window_bytes)
        if len(data) != self.window_bytes:
            raise DamagedError("The model's output in the library's work folder is too short; start it again.")
        return np.frombuffer(data, np.uint8).reshape(self.shape)

    # -- opening ---------------------------------------------------------------------------------------------------

    def _take_over(self, plan: dict[str, Any]) -> None:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if _read_plan(self.folder / PLAN_FILE) != plan:
            self._start_anew(plan)
        self._windows = os.open(self.folder / WINDOWS_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        records = self._valid_records()
        self.finished = {number for number, _, _ in records}
        self.active_s = max((active_s for _, active_s, _ in records), default=0.0)
        self._check_room()
        # Rewritten without what is torn or damaged: new records must not follow half of one.
        journal = b"".join(_record(*each) for each in records)
        _write_file(self.folder / JOURNAL_FILE, journal)
        self._journal = os.open(self.folder / JOURNAL_FILE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _start_anew(self, plan: dict[str, Any]) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        _write_file(self.folder / PLAN_FILE, json.dumps(plan).encode())

    def _valid_records(self) -> list[tuple[int, float, bytes]]:
        """Records of batches whose results are on disk as they were written."""
        try:
            journal = (self.folder / JOURNAL_FILE).read_bytes()
        except FileNotFoundError:
            return []
        records: dict[int, tuple[int, float, bytes]] = {}
        for start in range(0, len(journal) - RECORD_BYTES + 1, RECORD_BYTES):
            record = journal[start : start + RECORD_BYTES]
            number, active_s, digest = _RECORD.unpack_from(record)
            if record == _record(number, active_s, digest) and number < self.batches and self._holds(number, digest):
                records[number] = (number, active_s, digest)
        return list(records.values())

    def _holds(self, number: int, digest: bytes) -> bool:
        windows = self.batch_windows(number)
        data = os.pread(self._windows, len(windows) * self.window_bytes, windows.start * self.window_bytes)
        return xxhash.xxh3_128_digest(data) == digest

    def _check_room(self) -> None:
        needed = (self.count - self.finished_windows) * self.window_bytes
        free = shutil.disk_usage(self.folder).free
        if free < needed + SPARE_BYTES:
            raise DiskFullError(
                f"The model's output needs {needed / 1e9:.1f} GB in the library's work folder, and the disk has "
                f"{free / 1e9:.1f} GB free. Make room, or choose a smaller region."
            )


def _record(number: int, active_s: float, digest: bytes) -> bytes:
    body = _RECORD.pack(number, active_s, digest)
    return body + xxhash.xxh3_64_digest(body)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _write_file(path: Path, data: bytes) -> None:
    """Put a file in place whole and durable."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def _read_plan(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def progress_in(folder: Path) -> tuple[int, int] | None:
    """(windows finished, windows in all) of the work in a folder, about, from outside; None before it has begun."""
    plan = _read_plan(folder / PLAN_FILE)
    if plan is None:
        return None
    try:
        batches = (folder / JOURNAL_FILE).stat().st_size // RECORD_BYTES
    except FileNotFoundError:
        batches = 0
    return min(batches * plan["batch"], plan["count"]), plan["count"]
