"""A worker: takes jobs of one lane and has them done in a child process, within limits, as long as it holds the lease.

It stays small: whatever is large (torch, models, maps) is loaded by the child, at its first job.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path

from wsi_ml.errors import DiskFullError, LeaseLostError, LibraryError, OcularError, PredictionCancelledError
from wsi_ml.jobs.childprocess import ChildProcess, Message
from wsi_ml.jobs.job import Job, Progress
from wsi_ml.jobs.leases import LeaseWatch
from wsi_ml.jobs.options import JobOptions
from wsi_ml.jobs.queue import JobQueue

log = logging.getLogger("ocular.jobs")

TICK_S = 0.1
FAULT_PAUSE_S = 2.0


class Attempt:
    """One try of one job in a child; `run` returns when the queue knows how it ended."""

    def __init__(self, queue: JobQueue, watch: LeaseWatch, options: JobOptions, job: Job, child: ChildProcess):
        self._queue = queue
        self._watch = watch
        self._options = options
        self._job = job
        self._child = child
        self._progress: Progress | None = None
        self._publishing = False
        self._heard = self._beaten = time.monotonic()
        self._cancel_seen: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Have the job done.

        Raises LeaseLostError when it was given to another worker meanwhile, and the queue's errors. After an error the
        child must be ended: it may still work on the job.
        """
        self._child.send(self._job)
        ended = False
        while not ended:
            messages = self._child.hear(TICK_S)
            if messages is None:
                self._died()
                return
            ended = any(map(self._take, messages)) or self._pass_limits(stop)

    def _take(self, message: Message) -> bool:
        """Take a message of the child; True when it was the last of this job."""
        if message["job"] != self._job.id:
            return False
        self._heard = time.monotonic()
        if "layer" in message:
            self._queue.finish(self._job, message["layer"])
            log.info("job %s is done", self._job.id)
        elif "error" in message:
            self._failed(message)
        else:
            self._publishing |= "publishing" in message
            if "progress" in message:
                self._progress = Progress(*message["progress"])
            return False
        return True

    def _failed(self, message: Message) -> None:
        if message["error"] == LeaseLostError.code:
            raise LeaseLostError(message["sentence"])
        if message["error"] == PredictionCancelledError.code and self._queue.is_cancelled(self._job):
            log.info("job %s was cancelled", self._job.id)
            self._queue.stopped(self._job)
            return
        log.error("job %s failed: %s%s", self._job.id, message["error"], f"\n{message.get('trace', '')}".rstrip())
        if message["retry"]:
            self._queue.retry(self._job, message["sentence"])
        else:
            self._queue.fail(self._job, message["sentence"])

    def _died(self) -> None:
        status = self._child.kill()
        log.error("job %s: its process ended with status %s", self._job.id, status)
        reason = f"its process ended with status {status}" if status >= 0 else f"its process died ({_signal(-status)})"
        if status == -signal.SIGKILL:
            reason = "its process was killed, probably because the machine ran out of memory"
        self._queue.retry(self._job, f"{reason[0].upper()}{reason[1:]}.")

    def _pass_limits(self, stop: threading.Event) -> bool:
        """Beat, and end the try where it has to end; True when it has ended."""
        now = time.monotonic()
        if now - self._beaten >= self._options.beat_s:
            self._beaten = now
            self._beat()
        if self._child.memory_bytes() > self._options.memory_mb << 20:
            self._child.kill()
            most = f"{self._options.memory_mb} MB"
            self._queue.fail(self._job, f"It needed more memory than the {most} a job may have (job_memory_mb).")
        elif stop.is_set() and not self._publishing:
            self._child.kill()
            self._queue.give_back(self._job)
        elif self._cancel_seen and now - self._cancel_seen > self._options.cancel_s and not self._publishing:
            self._child.kill()
            self._queue.stopped(self._job)
        elif now - self._heard > self._options.stall_s:
            self._child.kill()
            self._queue.retry(self._job, f"It gave no sign of life for {self._options.stall_s:.0f} s.")
        else:
            return False
        return True

    def _beat(self) -> None:
        try:
            if self._queue.beat(self._job, self._progress) and self._cancel_seen is None:
                self._cancel_seen = time.monotonic()
            self._watch.look()
        except (DiskFullError, LibraryError) as error:
            # The work itself may well succeed; if the queue stays away for as long as the lease, the job is lost.
            log.error("job %s: %s", self._job.id, error)


class Worker:
    """Takes jobs of a lane, one after the other, until `stop`; `run` must be called in the main thread."""

    def __init__(self, library_root: Path, lane: str, name: str, options: JobOptions):
        self._root = library_root
        self._lane = lane
        self._name = name
        self._options = options
        self._queue = JobQueue(library_root)
        self._watch = LeaseWatch(self._queue, options.beat_s, options.lease_s)
        self._child: ChildProcess | None = None
        self._seen: int | None = None
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let go of the job, if any, and return from `run`; may be called from anywhere."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`. Raises LibraryError where the queue cannot be opened.

        Later faults of the queue (a full disk, a locked database) are logged and waited out.
        """
        self._queue.version()
        told = ""
        try:
            while not self._stop.is_set():
                try:
                    pause_s = 0.0 if self._step() else self._options.poll_s
                    told = ""
                except OcularError as error:
                    if str(error) != told:
                        told = str(error)
                        log.error("%s", error)
                    self._seen = None
                    pause_s = FAULT_PAUSE_S
                self._stop.wait(pause_s)
        finally:
            self._end_child()

    def _step(self) -> bool:
        """Do the next job; False where there was none."""
        if self._watch.look():
            self._seen = None
        version = self._queue.version()
        job = self._queue.claim(self._lane, self._name) if version != self._seen else None
        self._seen = version if job is None else None
        if job is None:
            if self._child is not None and self._child.idle_s > self._options.idle_s:
                self._end_child()
            return False
        log.info("job %s begins, try %d", job.id, job.tries)
        try:
            Attempt(self._queue, self._watch, self._options, job, self._ready_child()).run(self._stop)
        except OcularError as error:
            # Where the end could not be written, the job beats no more and is taken back like a dead worker's.
            log.error("job %s: %s", job.id, error)
            self._end_child()
        if self._child is not None:
            self._child.rested = time.monotonic()
        return True

    def _ready_child(self) -> ChildProcess:
        """A child that lives and is not worn out."""
        if self._child is not None and (not self._child.is_alive or self._child.jobs >= self._options.recycle):
            self._end_child()
        if self._child is None:
            self._child = ChildProcess(self._root, self._lane, self._options)
        return self._child

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
