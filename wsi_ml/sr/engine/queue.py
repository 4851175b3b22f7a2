"""The engine's queue: one job per tile however many wait for it, newest first, bounded, nothing kept for nobody.

Any thread may call any method. What happens when two do it at once: the first to ask makes the job, later ones join
it, queued or running; a job leaves the books and hands over its waiters in one step (`finish`), so a waiter is answered
exactly once; the last waiter to leave a queued job takes the job with it; nobody's leaving stops a running one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from wsi_ml.errors import EngineUnavailableError, QueueFullError
from wsi_ml.sr.synthesis import TileKey

FIRST_GUESS_S = 0.1
SMOOTHING = 0.1
RETRY_AFTER_S = (1, 30)

WaiterT = TypeVar("WaiterT", bound=Hashable)


@dataclass(eq=False)
class Job(Generic[WaiterT]):
    """One tile to be made."""

    key: TileKey
    rank: tuple[int, int]
    """Jobs of smaller rank go first: (minus the number of the burst, order inside it)."""
    waiters: set[WaiterT] = field(default_factory=set)
    started: float | None = None


class TileQueue(Generic[WaiterT]):
    """See the module.

    Requests within `burst_s` of a burst's first belong together and keep their order, because a viewport asks for its
    centre first; a later burst (the view has moved) goes before all earlier ones. 0 is strictly newest first.
    """

    def __init__(
        self, capacity: int, burst_s: float = 0.0, makers: int = 1, clock: Callable[[], float] = time.monotonic
    ):
        self.capacity = capacity
        self.asked = self.joined = self.refused = self.dropped = self.finished = 0
        self.tile_seconds = FIRST_GUESS_S
        self._burst_s = burst_s
        self._makers = makers
        self._clock = clock
        self._queued: dict[TileKey, Job[WaiterT]] = {}
        self._running: dict[TileKey, Job[WaiterT]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._burst = self._ranked = 0
        self._burst_began = -math.inf

    def ask(self, key: TileKey, waiter: WaiterT) -> None:
        """Let `waiter` wait for a tile; raises QueueFullError, or EngineUnavailableError once the queue is closed.

        Asking again for a queued tile brings it to the front: somebody looks at it now.
        """
        with self._changed:
            if self._closed:
                raise EngineUnavailableError("The super-resolution engine is stopping.")
            self.asked += 1
            running = self._running.get(key)
            if running is not None:
                self.joined += 1
                running.waiters.add(waiter)
                return
            job = self._queued.get(key)
            if job is None:
                if len(self._queued) >= self.capacity:
                    self.refused += 1
                    raise QueueFullError("Too many tiles wait for super-resolution.", self._retry_after_s())
                job = self._queued[key] = Job(key, (0, 0))
            else:
                self.joined += 1
            job.rank = self._next_rank()
            job.waiters.add(waiter)
            self._changed.notify_all()

    def bring_forward(self, key: TileKey) -> None:
        """Rank a queued tile as if it were asked for now; nothing for any other."""
        with self._changed:
            job = self._queued.get(key)
            if job is not None:
                job.rank = self._next_rank()

    def leave(self, key: TileKey, waiter: WaiterT) -> None:
        """`waiter` no longer waits; a queued job that nobody waits for is dropped."""
        with self._changed:
            job = self._queued.get(key) or self._running.get(key)
            if job is None:
                return
            job.waiters.discard(waiter)
            if not job.waiters and job.started is None:
                del self._queued[key]
                self.dropped += 1

    def take(
        self, limit: Callable[[TileKey], int] = lambda _key: 1, gather_s: float = 0.0, helping: bool = False
    ) -> list[Job[WaiterT]]:
        """Wait for work and start it: the first job by rank, and up to `limit(key)` in all of the same upscaler.

        Fewer than the limit are waited for `gather_s` at most. Who is only `helping` leaves a lone job to the others.
        An empty list means that the queue is closed and done.
        """
        with self._changed:
            jobs: list[Job[WaiterT]] = []
            while not jobs:
                while not self._has_work(helping):
                    if self._closed and not self._queued:
                        return []
                    self._changed.wait()
                most = limit(self._by_rank()[0].key)
                if most > 1:
                    self._gather(most, gather_s)
                jobs = self._by_rank()
            first = jobs[0].key
            alike = [job for job in jobs if job.key.upscaler == first.upscaler and job.key.sha256 == first.sha256]
            chosen = alike[:most]
            for job in chosen:
                self._running[job.key] = self._queued.pop(job.key)
                job.started = self._clock()
            self._changed.notify_all()
            return chosen

    def _has_work(self, helping: bool) -> bool:
        return bool(self._queued) and (not helping or bool(self._running) or len(self._queued) > 1)

    def finish(self, job: Job[WaiterT]) -> set[WaiterT]:
        """Take a job off the books; returns its waiters, whom the caller answers."""
        with self._changed:
            del self._running[job.key]
            self.finished += 1
            return job.waiters

    def measure(self, seconds_per_tile: float) -> None:
        """Tell how long a tile took, for the estimate in `Retry-After`."""
        self.tile_seconds += SMOOTHING * (seconds_per_tile - self.tile_seconds)

    def close(self) -> None:
        """Refuse new work; what is queued is still made."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def queued(self) -> int:
        """Jobs waiting to start."""
        return len(self._queued)

    @property
    def running(self) -> int:
        """Jobs being made."""
        return len(self._running)

    def longest_run_s(self) -> float:
        """Seconds the oldest running job has run, 0 without one."""
        with self._changed:
            starts = [job.started for job in self._running.values() if job.started is not None]
        return self._clock() - min(starts) if starts else 0.0

    def facts(self) -> dict[str, Any]:
        """Lengths and counters."""
        return {
            "queued": self.queued,
            "running": self.running,
            "capacity": self.capacity,
            "asked": self.asked,
            "joined": self.joined,
            "refused": self.refused,
            "dropped": self.dropped,
        }

    def _by_rank(self) -> list[Job[WaiterT]]:
        return sorted(self._queued.values(), key=lambda job: job.rank)

    def _gather(self, most: int, gather_s: float) -> None:
        until = self._clock() + gather_s
        while 0 < len(self._queued) < most and not self._closed:
            left = until - self._clock()
            if left <= 0 or not self._changed.wait(left):
                return

    def _next_rank(self) -> tuple[int, int]:
        now = self._clock()
        if now - self._burst_began >= self._burst_s:
            self._burst += 1
            self._burst_began = now
        self._ranked += 1
        return (-self._burst, self._ranked)

    def _retry_after_s(self) -> int:
        low, high = RETRY_AFTER_S
        return min(high, max(low, math.ceil(self.tile_seconds * len(self._queued) / self._makers)))
