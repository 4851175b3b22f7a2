"""Staging folders of ingestions: locked while their process lives, swept when it died.

A lock (flock) goes with its process however that ends, also across containers, where a process id would mislead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(staging: Path, key: str) -> Iterator[Path | None]:
    """Hold the lock `key` and give its empty folder, or None at once where another process holds it.

    The folder and the lock are gone afterwards, unless the folder was renamed away.
    """
    lock = staging / f"{key}.lock"
    descriptor = try_lock(lock)
    if descriptor is None:
        yield None
        return
    folder = staging / key
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o750)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(staging: Path) -> list[str]:
    """Remove what dead processes left; returns the names removed. Safe while others ingest."""
    removed = []
    for key in sorted({path.name.removesuffix(".lock") for path in staging.iterdir()}):
        with held(staging, key) as folder:
            if folder is not None:
                removed.append(key)
    return removed


def try_lock(path: Path) -> int | None:
    """Descriptor of the locked file, or None when another holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Another process may have removed the file between open and flock: then this lock guards nothing.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)
