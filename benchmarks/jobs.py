"""What the queue of jobs costs: idle workers, the way of an empty job, cancelling, recovery after kill -9.

Run: python -m benchmarks.jobs [--jobs N]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import table, write_result
from tests.versions import add_slide
from wsi_ml.errors import PredictionCancelledError
from wsi_ml.geometry import Size
from wsi_ml.jobs.child import JobContext
from wsi_ml.jobs.job import Job, JobBox, NewJob
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.jobs.supervisor import JobSupervisor
from wsi_ml.slides.library import Library

IDLE_S = 20.0
ROUNDS = 5
PATIENCE_S = 120.0


def run(root: Path, job: Job, context: JobContext) -> str:
    """The runner of this benchmark: nothing, or waiting with or without asking whether it is cancelled."""
    while job.parameters["do"] != "nothing":
        if job.parameters["do"] == "listen" and context.cancelled():
            raise PredictionCancelledError("cancelled")
        context.progress(1, 2, "windows")
        time.sleep(0.05)
    context.before_publish()
    return "nolayer"


class Bench:
    """A library with a slide, and its queue."""

    def __init__(self, root: Path):
        library = Library.create(root)
        self.root = library.root
        self.slide_id, self.version, _ = add_slide(library, "liver", Size(300, 200))
        self.queue = JobQueue(library.root)
        self.number = 0

    def submit(self, do: str = "nothing", quick: bool = False) -> Job:
        """Order a job unlike all before."""
        self.number += 1
        region = JobBox(0, 0, 9, 9) if quick else None
        return self.queue.submit(NewJob(str(self.number), self.slide_id, self.version, "none", region, {"do": do}))[0]

    def wait(self, job: Job, holds: Callable[[Job], bool] | str) -> float:
        """Seconds until it holds."""
        began = time.perf_counter()
        while True:
            now = self.queue.job(job.id)
            if now.state == holds if isinstance(holds, str) else holds(now):
                return time.perf_counter() - began
            if time.perf_counter() - began > PATIENCE_S:
                raise RuntimeError(f"{now} is not {holds}")
            time.sleep(0.005)

    @contextmanager
    def workers(self, slides: int = 1) -> Iterator[JobSupervisor]:
        """Workers as a server runs them, with this benchmark's runner."""
        supervisor = JobSupervisor(self.root, slides, JobOptions(runner="benchmarks.jobs:run", nice=0))
        supervisor.start()
        try:
            yield supervisor
        finally:
            supervisor.stop()


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def idle(bench: Bench) -> dict[str, object]:
    """CPU and memory of a worker that has nothing to do."""
    with bench.workers() as supervisor:
        time.sleep(2)
        pid = supervisor.workers[0].pid
        assert pid is not None
        before = cpu_s(pid)
        time.sleep(IDLE_S)
        used = (cpu_s(pid) - before) / IDLE_S
        return {"what": "an idle worker", "value": f"{used:.2%} of a core, {rss_mb(pid):.0f} MB"}


def ways(bench: Bench) -> list[dict[str, object]]:
    """From the order to `done`: with a child to be started, and with a warm one."""
    with bench.workers():
        cold = bench.wait(bench.submit(), "done")
        warm = [bench.wait(bench.submit(), "done") for _ in range(4 * ROUNDS)]
    return [
        {"what": "order to done, empty job, child to be started", "value": f"{cold * 1000:.0f} ms"},
        {"what": "order to done, empty job, warm child (p50)", "value": f"{statistics.median(warm) * 1000:.0f} ms"},
    ]


def rate(bench: Bench, slides: int, jobs: int) -> dict[str, object]:
    """Empty jobs a second through some workers."""
    orders = [bench.submit() for _ in range(jobs)]
    with bench.workers(slides):
        bench.wait(orders[0], "done")
        began = time.perf_counter()
        for order in orders:
            bench.wait(order, "done")
        return {
            "what": f"empty jobs, {slides} worker(s)",
            "value": f"{jobs / (time.perf_counter() - began):.0f} a second",
        }


def cancelling(bench: Bench) -> list[dict[str, object]]:
    """From the wish to cancel to `cancelled`, for a job that listens and one that does not."""
    rows: list[dict[str, object]] = []
    with bench.workers():
        for do, words in (("listen", "that asks"), ("deaf", "that never asks, killed")):
            seconds = []
            for _ in range(ROUNDS):
                job = bench.submit(do)
                bench.wait(job, lambda now: now.progress is not None)
                bench.queue.cancel(job.id)
                seconds.append(bench.wait(job, "cancelled"))
            rows.append({"what": f"cancelling a job {words} (max of {ROUNDS})", "value": f"{max(seconds):.1f} s"})
    return rows


def recovery(bench: Bench) -> list[dict[str, object]]:
    """From kill -9 to the next try: of a worker with its supervisor alive, and of everything."""
    job = bench.submit("listen")
    with bench.workers() as supervisor:
        bench.wait(job, lambda now: now.progress is not None)
        pid = supervisor.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        worker = bench.wait(job, lambda now: now.tries == 2 and now.progress is not None)
        for each in supervisor.workers:
            each.ended = lambda pid: None  # type: ignore[method-assign]
            os.kill(each.pid or 0, signal.SIGKILL)
    # The supervisor is gone now too, and has told nobody.
    with bench.workers():
        everything = bench.wait(job, lambda now: now.tries == 3 and now.progress is not None)
        bench.queue.cancel(job.id)
        bench.wait(job, "cancelled")
    return [
        {"what": "kill -9 of a worker: until the next try makes progress", "value": f"{worker:.1f} s"},
        {"what": "kill -9 of everything: from the restart to the same", "value": f"{everything:.1f} s"},
    ]


def main() -> None:
    """Measure and write benchmarks/results/jobs.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="empty jobs of the rate measurement")
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "library")
        rows = [idle(bench), *ways(bench), *(rate(bench, slides, jobs) for slides in (1, 2)), *cancelling(bench)]
        rows += recovery(bench)
        assert bench.queue.check() == []
    write_result("jobs", "The queue of jobs", "python -m benchmarks.jobs", table(rows))


if __name__ == "__main__":
    main()
