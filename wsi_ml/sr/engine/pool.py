"""The engine's maker threads: take jobs from the queue, make them, hand the outcomes back."""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from wsi_ml.errors import OcularError
from wsi_ml.sr.engine.maker import Outcome, TileMaker
from wsi_ml.sr.engine.queue import TileQueue

log = logging.getLogger("ocular.engine")

MOST_MAKERS = 2
TIMES_KEPT = 256


def maker_count(wanted: int) -> int:
    """Number of maker threads: as wanted, or for 0 one per core up to two."""
    return wanted or min(MOST_MAKERS, os.cpu_count() or 1)


class MakerPool:
    """`deliver(waiters, outcome)` is called in a maker thread, once for each finished job."""

    def __init__(
        self,
        queue: TileQueue[Any],
        maker: TileMaker,
        count: int,
        threads: int,
        gather_s: float,
        deliver: Callable[[set[Any], Outcome], None],
    ):
        self.count = count
        self._queue = queue
        self._maker = maker
        self._threads = threads
        self._gather_s = gather_s
        self._deliver = deliver
        self._seconds: deque[float] = deque(maxlen=TIMES_KEPT)

    def start(self, warm: Iterable[str]) -> None:
        """Start the threads; the first one opens the models named in `warm` before anything else."""
        for number in range(self.count):
            arguments = (list(warm) if number == 0 else [], number > 0)
            threading.Thread(target=self._make_tiles, args=arguments, name=f"maker-{number}", daemon=True).start()

    def _make_tiles(self, warm: list[str], helping: bool) -> None:
        for name in warm:
            # What goes wrong here is logged, and answered to whoever asks for a tile of that model.
            with contextlib.suppress(OcularError):
                self._maker.models.runner(name)
        while jobs := self._queue.take(self._maker.limit, self._gather_s, helping):
            began = time.monotonic()
            try:
                outcomes = self._maker.make([job.key for job in jobs], self._share(helping))
            except Exception:  # the thread's edge: whatever it was, the next tile must still be made
                log.exception("unforeseen error while making a tile")
                outcomes = [OcularError("The super-resolution engine met an unforeseen error.")] * len(jobs)
            seconds = (time.monotonic() - began) / len(jobs)
            self._seconds.extend([seconds] * len(jobs))
            self._queue.measure(seconds)
            for job, outcome in zip(jobs, outcomes, strict=True):
                self._deliver(self._queue.finish(job), outcome)

    def _share(self, helping: bool) -> int:
        """CPU threads for the tile about to be made: all cores for a lone tile, a share when others run or wait.

        Two tiles on a core each make more tiles a second than one after the other on both (no waiting for each other
        after every layer), but a lone tile is ready in half the time on both. Lone tiles all go to the first thread:
        with two teams of helpers OpenMP counts more threads than cores, lets them sleep between layers, and on a busy
        machine wakes both on one core (110 in place of 60 ms).
        """
        if self._threads:
            return self._threads
        cores = os.cpu_count() or 1
        is_lone = not helping and self._queue.running + self._queue.queued <= 1
        return cores if is_lone else max(1, cores // self.count)

    def tile_seconds(self) -> dict[str, float]:
        """Mean, median and 95th percentile of the seconds one of the last tiles took; empty before the first."""
        seconds = sorted(self._seconds)
        if not seconds:
            return {}
        p50, p95 = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.95)]
        return {"mean": round(statistics.fmean(seconds), 4), "p50": round(p50, 4), "p95": round(p95, 4)}
