"""A worker process: `python -m wsi_ml.jobs --library DIR --lane slide`. Usually started by `JobSupervisor`."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import threading
from pathlib import Path

from wsi_ml.errors import OcularError
from wsi_ml.jobs.job import LANES
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.supervisor import worker_name
from wsi_ml.jobs.worker import Worker
from wsi_ml.processes import configure_logs, watch_parent

log = logging.getLogger("ocular.jobs")


def stop_with_parent(worker: Worker) -> None:
    """Stop the worker when standard input ends, in a thread of its own."""
    gone = watch_parent()

    def wait() -> None:
        gone.wait()
        worker.stop()

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m wsi_ml.jobs", description=__doc__)
    parser.add_argument("--library", type=Path, required=True, help="folder of the slide library")
    parser.add_argument("--lane", choices=LANES, required=True, help="which jobs to take")
    parser.add_argument("--group", default=secrets.token_hex(6), help="first part of the worker's name in the queue")
    parser.add_argument("--stop-on-eof", action="store_true", help="stop when standard input ends")
    JobOptions.add_flags(parser)
    parsed = parser.parse_args(arguments)
    options = JobOptions.of(parsed)
    configure_logs(options.log_format, "jobs")
    worker = Worker(parsed.library.resolve(), parsed.lane, worker_name(parsed.group, os.getpid()), options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    if parsed.stop_on_eof:
        stop_with_parent(worker)
    try:
        worker.run()
    except OcularError as error:
        log.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
