"""Folders of predictions in work: kept when their process ends early, so that the next one goes on from there.

A folder belongs to one prediction (its key) and is locked while a process works in it. The lock (flock) goes with its
process however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from wsi_ml.inference.slide import POLL_S, refuse_cancelled
from wsi_ml.slides.staging import try_lock

WORK_FOLDER = "work"
KEEP_S = 14 * 24 * 3600.0
"""Work that nobody went on with for so long is thrown away."""


@contextlib.contextmanager
def held(work: Path, key: str, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Hold the work folder of a key; waits while another process holds it.

    The folder may not exist yet. It stays as the block leaves it. Raises PredictionCancelledError while waiting.
    """
    work.mkdir(mode=0o750, parents=True, exist_ok=True)
    lock = work / f"{key}.lock"
    while (descriptor := try_lock(lock)) is None:
        refuse_cancelled(cancelled)
        time.sleep(POLL_S)
    try:
        yield work / key
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(work: Path, keep_s: float = KEEP_S) -> list[str]:
    """Remove the folders that nobody has touched for `keep_s` and nobody holds; returns their keys."""
    removed: list[str] = []
    if not work.is_dir():
        return removed
    for folder in sorted(path for path in work.iterdir() if path.is_dir()):
        if time.time() - _touched(folder) <= keep_s:
            continue
        descriptor = try_lock(work / f"{folder.name}.lock")
        if descriptor is None:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        (work / f"{folder.name}.lock").unlink(missing_ok=True)
        os.close(descriptor)
        removed.append(folder.name)
    return removed


def _touched(folder: Path) -> float:
    """When anything in a folder was last written."""
    times = [folder.stat().st_mtime]
    with contextlib.suppress(FileNotFoundError):
        times += [path.stat().st_mtime for path in folder.iterdir()]
    return max(times)
