"""Keeps the job workers running beside the web processes: starts them, starts them again when they die, stops them."""

from __future__ import annotations

import logging
import secrets
import sys
from pathlib import Path

from wsi_ml.errors import OcularError
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.processes import KeptProcess

log = logging.getLogger("ocular.jobs")

DIED = "The process that ran it died."


def worker_name(group: str, pid: int) -> str:
    """Name of a worker in the queue; process ids alone would mislead across restarts and containers."""
    return f"{group}.{pid}"


class KeptWorker(KeptProcess):
    """One worker; when it dies its job is taken back at once, without waiting for the lease to run out."""

    def __init__(self, library_root: Path, lane: str, options: JobOptions):
        self._group = secrets.token_hex(6)
        self._root = library_root
        command = [
            *(sys.executable, "-m", "wsi_ml.jobs", "--library", str(library_root), "--stop-on-eof"),
            *("--lane", lane, "--group", self._group),
            *options.arguments(),
        ]
        super().__init__(command, f"the worker of the {lane} lane", log, 0.0)

    def ended(self, pid: int) -> None:
        """Take back the job of a worker that died; where that fails, the lease runs out."""
        try:
            JobQueue(self._root).forget_worker(worker_name(self._group, pid), DIED)
        except OcularError as error:
            log.error("%s", error)


class JobSupervisor:
    """Runs workers for a library until `stop`: `slides` for whole slides and, unless that is 0, one for quick jobs.

    Workers end by themselves when this process dies, however it dies, and their jobs with them. Several servers may run
    workers for one library: each job goes to one of them.
    """

    def __init__(self, library_root: Path, slides: int = 1, options: JobOptions | None = None):
        self.options = options or JobOptions()
        lanes = ["slide"] * slides + ["quick"] * (slides > 0)
        self.workers = [KeptWorker(library_root, lane, self.options) for lane in lanes]

    def start(self) -> None:
        """Start the workers; returns at once."""
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        """Stop the workers: they let go of their jobs, which go on when workers run again."""
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()
