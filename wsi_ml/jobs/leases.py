"""Finds workers that have fallen silent, without trusting any clock."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from wsi_ml.jobs.queue import Beat, JobQueue

log = logging.getLogger("ocular.jobs")

LONGEST_STEP = 2
"""One look counts for this many intervals of silence at most: a watcher that slept has not watched."""
SILENT = "The process that ran it fell silent."


@dataclass
class Silence:
    """How long a job has not beaten, as far as this watcher saw."""

    beat: Beat
    seconds: float = 0.0


class LeaseWatch:
    """Takes jobs from workers whose beat has stood still for `lease_s`; every worker runs one.

    The database holds no times. Each watcher measures silence by its own monotonic clock, and only while it looks: a
    wall clock that jumps, a laptop that sleeps, a watcher or a whole container that was stopped take no lease away.
    """

    def __init__(self, queue: JobQueue, look_s: float, lease_s: float):
        self._queue = queue
        self._look_s = look_s
        self._lease_s = lease_s
        self._silences: dict[str, Silence] = {}
        self._looked: float | None = None

    def look(self) -> bool:
        """Look, unless the last look was just now; True when a job was taken back. Raises the queue's errors."""
        now = time.monotonic()
        step = self._look_s if self._looked is None else min(now - self._looked, LONGEST_STEP * self._look_s)
        if step < self._look_s:
            return False
        self._looked = now
        self._silences = {beat.id: self._silence(beat, step) for beat in self._queue.beats()}
        silent = [each.beat for each in self._silences.values() if each.seconds >= self._lease_s]
        taken = [beat.id for beat in silent if self._queue.take_back(beat, SILENT)]
        for job_id in taken:
            log.error("job %s was taken back: its worker fell silent", job_id)
        return bool(taken)

    def _silence(self, beat: Beat, step: float) -> Silence:
        known = self._silences.get(beat.id)
        return Silence(beat, known.seconds + step) if known and known.beat == beat else Silence(beat)
