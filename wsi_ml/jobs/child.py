"""The process in which jobs are done, one after the other: `python -m wsi_ml.jobs.child`. Started by a worker only.

It keeps its model loaded between jobs. It reads one JSON line a job and answers with JSON lines: `progress`, `alive`,
`publishing`, and at the end `layer` or `error`. It dies with its worker, and looks at the queue itself, so that it
notices a lost lease even when its worker is stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from wsi_ml.errors import DiskFullError, LeaseLostError, LibraryError, OcularError
from wsi_ml.jobs.job import Job, Progress
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.slides.library import Library

PR_SET_PDEATHSIG = 1
CHECK_S = 0.3
REPORT_S = 0.2
OOM_SCORE = 500
DISK_FULL_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Message = dict[str, Any]


class JobContext:
    """What a runner gets beside its job: the way to report, and the questions it has to ask."""

    def __init__(self, job: Job, queue: JobQueue, options: JobOptions, report: Callable[[Message], None]):
        self.device = options.device
        self.threads = options.threads
        self._job = job
        self._queue = queue
        self._report = report
        self._cancelled = False
        self._checked = self._reported = 0.0

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far the job is; may be called as often as one likes."""
        now = time.monotonic()
        if now - self._reported >= REPORT_S or done == total:
            self._reported = now
            self._report({"progress": Progress(done, total, unit)})

    def cancelled(self) -> bool:
        """True when the job is to be cancelled; to be asked at least once a second or so. Raises LeaseLostError."""
        now = time.monotonic()
        if now - self._checked >= CHECK_S:
            self._checked = now
            self._cancelled = self._queue.is_cancelled(self._job)
            self._report({"alive": True})
        return self._cancelled

    def before_publish(self) -> None:
        """To be called right before anything is published; raises LeaseLostError or PredictionCancelledError."""
        self._queue.allow_publishing(self._job)
        self._report({"publishing": True})


Runner = Callable[[Path, Job, JobContext], str]
"""Does a job and gives the id of the published layer; named errors end the job, others make it be tried again."""


def fault_of(error: Exception) -> Message:
    """The message a failed try ends with; an error nobody foresaw is named by type and place, never by its text."""
    if isinstance(error, OcularError):
        return {"error": error.code, "sentence": str(error), "retry": isinstance(error, LibraryError)}
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNO:
        sentence = "The disk is full: nothing was published. Free some space and start it again."
        return {"error": DiskFullError.code, "sentence": sentence, "retry": False}
    if isinstance(error, MemoryError):
        return {"error": "memory", "sentence": "The machine has too little memory for it.", "retry": False}
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119
    sentence = f"An unforeseen error, {type(error).__name__} at {where}."
    trace = "".join(traceback.format_exception(error))
    return {"error": OcularError.code, "sentence": sentence, "retry": True, "trace": trace}


def confine(parent: int, nice: int) -> None:
    """Tie this process's life to its worker's, let others go first, and let the kernel end it before the server."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.nice(nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def load_runner(address: str) -> Runner:
    """The function of a `module:function`; loads whatever it needs, at the first call only."""
    module, function = address.split(":")
    return getattr(importlib.import_module(module), function)


def do_job(library_root: Path, order: Message, options: JobOptions, say: Callable[[Message], None]) -> None:
    """Do one job and report its end."""
    queue = JobQueue(library_root)

    def report(message: Message) -> None:
        say({"job": order["job"], **message})

    try:
        job = queue.job(order["job"])
        if job.fence != order["fence"]:
            raise LeaseLostError("The job was given to another worker before it began.")
        # A slide that was removed since the order has its own sentence, before a model is loaded for nothing.
        Library(library_root).folder(job.slide_id, job.version)
        run = load_runner(options.runner)
        report({"layer": run(library_root, job, JobContext(job, queue, options, report))})
    except Exception as error:  # noqa: BLE001 - the process's edge: every fault becomes one sentence
        report(fault_of(error))


def main(library_root: str, flags: str, parent: str, nice: str) -> None:
    """Entry of the child: confine, then one job after the other until standard input ends."""
    confine(int(parent), int(nice))
    out: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(message: Message) -> None:
        # One unbuffered write a line: short lines of several threads cannot mix.
        out.write(json.dumps(message).encode() + b"\n")

    options = JobOptions(**json.loads(flags))
    for line in sys.stdin.buffer:
        do_job(Path(library_root), json.loads(line), options, say)


if __name__ == "__main__":
    main(*sys.argv[1:])
