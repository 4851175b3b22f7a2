"""A worker's hold on the process that does its jobs: start it, give it a job, hear it, measure it, kill it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsi_ml.jobs.job import Job
from wsi_ml.jobs.options import JobOptions

Message = dict[str, Any]

_COUNTED = ("RssAnon:", "RssShmem:")


class ChildProcess:
    """One running `wsi_ml.jobs.child`; to be started by a thread that lives as long as it, for it dies with that."""

    def __init__(self, library_root: Path, lane: str, options: JobOptions):
        self.jobs = 0
        self.rested = time.monotonic()
        """When its last job ended."""
        nice = options.nice // 2 if lane == "quick" else options.nice
        arguments = [str(library_root), json.dumps(asdict(options)), str(os.getpid()), str(nice)]
        environment = os.environ | ({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "wsi_ml.jobs.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._heard = b""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    @property
    def idle_s(self) -> float:
        """Seconds since its last job ended."""
        return time.monotonic() - self.rested

    def send(self, job: Job) -> None:
        """Give it a job; one that has died is noticed by `hear`."""
        self.jobs += 1
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"job": job.id, "fence": job.fence}).encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def hear(self, seconds: float) -> list[Message] | None:
        """What it said within a time, at once when there is anything; None when it has ended."""
        out = self._process.stdout.fileno()  # type: ignore[union-attr]
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            if not selector.select(seconds):
                return []
        data = os.read(out, 1 << 16)
        if not data:
            return None
        *lines, self._heard = (self._heard + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def memory_bytes(self) -> int:
        """Memory of its own (files mapped from disk do not count); 0 where it cannot be told."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_COUNTED))

    def kill(self) -> int:
        """End it and what it started, whatever it does; gives its exit status."""
        if self._process.returncode is None:
            # Not reaped yet, so the number is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        status = self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]
        return status
