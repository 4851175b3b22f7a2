"""Workers in real processes over a small library, with a runner that needs no model."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT
from tests.jobs.fakes import GO_FILE, runs
from tests.versions import add_slide
from wsi_ml.geometry import Size
from wsi_ml.jobs.job import Job, JobBox, NewJob
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

PATIENCE_S = 60.0
FAST = {"poll_s": 0.02, "beat_s": 0.1, "lease_s": 60.0, "nice": 0, "runner": "tests.jobs.fakes:run"}


class Bench:
    """A library with one slide, its queue, and workers that a test starts."""

    def __init__(self, library: Library):
        self.library = library
        self.root = library.root
        self.slide_id, self.version, _ = add_slide(library, "liver", Size(300, 200))
        self.queue = JobQueue(library.root)
        self.workers: list[subprocess.Popen[bytes]] = []

    def submit(self, do: str = "publish", quick: bool = False, priority: int = 0, **more: object) -> Job:
        region = JobBox(0, 0, 100, 100) if quick else None
        parameters = {"do": do, **more}
        key = repr((region, sorted(parameters.items())))
        new = NewJob(key, self.slide_id, self.version, "fake", region, parameters, False, priority)
        return self.queue.submit(new)[0]

    def start(self, lane: str = "slide", **options: object) -> subprocess.Popen[bytes]:
        flags = JobOptions(**(FAST | options)).arguments()
        command = [sys.executable, "-m", "wsi_ml.jobs", "--library", str(self.root), "--lane", lane]
        command += ["--stop-on-eof", *flags]
        self.workers.append(subprocess.Popen(command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE))
        return self.workers[-1]

    def wait(self, job: Job, holds: Callable[[Job], bool] | str) -> Job:
        """The job once `holds` of it, or once it is in that state."""
        return wait_for(lambda: self.queue.job(job.id), holds if callable(holds) else lambda now: now.state == holds)

    def let_go(self) -> None:
        (self.root / GO_FILE).touch()

    def children(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Processes that do a worker's jobs."""
        return [int(word) for word in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]

    def layers(self) -> list[str]:
        """The job of each layer that was published, in order."""
        return [layer.provenance["job"] for layer in LayerStore(self.root).layers(self.slide_id)]

    def runs(self) -> list[list[str]]:
        return runs(self.root)

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.terminate()
                # SIGTERM itself ends one that has only just begun.
                assert worker.wait(PATIENCE_S) in (0, -signal.SIGTERM)
            worker.stdin.close()
        assert self.queue.check() == []


def wait_for(look: Callable[[], object], holds: Callable[[object], bool]) -> object:
    """What `look` gives once `holds` of it."""
    until = time.monotonic() + PATIENCE_S
    while True:
        seen = look()
        if holds(seen):
            return seen
        assert time.monotonic() < until, seen
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """True while a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(Library.create(tmp_path / "library"))
    yield made
    made.end()
