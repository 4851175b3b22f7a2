"""What a job is: one piece of background work, its place in the queue, what became of it."""

from __future__ import annotations

import datetime
import secrets
import string
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KINDS = ("predict",)
STATES = ("queued", "running", "done", "failed", "cancelled")
LANES = ("slide", "quick")
PRIORITIES = range(-100, 101)
MOST_TRIES = 3
QUICK_STORED_AREA = 4096**2
"""A region of at most so many stored pixels goes to the quick lane."""
ID_LENGTH = 12
_ID_LETTERS = string.ascii_lowercase + string.digits


class JobBox(NamedTuple):
    """A region in whole base-plane pixels: left, top, right, bottom (the last two excluded)."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def stored_area(self) -> float:
        """Its area in stored-plane pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0) / 4


class Progress(NamedTuple):
    """How far a job is, in a unit that says what is counted (`windows`, `blocks`)."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class NewJob:
    """Work to be queued."""

    key: str
    """Hash of what is to be done: two orders of one key are the same work."""
    slide_id: str
    version: str
    model: str
    region: JobBox | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    preview: bool = False
    priority: int = 0
    """One of PRIORITIES; the higher goes first."""
    kind: str = "predict"

    @property
    def lane(self) -> str:
        """`quick` for a small region, which need not wait for whole slides; `slide` for everything else."""
        return "quick" if self.region is not None and self.region.stored_area <= QUICK_STORED_AREA else "slide"


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read."""

    id: str
    kind: str
    slide_id: str
    version: str
    model: str
    region: JobBox | None
    parameters: dict[str, Any]
    preview: bool
    priority: int
    lane: str
    state: str
    cancelling: bool
    """True from the wish to cancel a running job until its worker has stopped."""
    position: int | None
    """Place among the queued jobs of its lane, 1 goes next; None once it is not queued."""
    progress: Progress | None
    tries: int
    reason: str | None
    layer_id: str | None
    created: str
    started: str | None
    finished: str | None
    fence: int
    """Number of the claim: it rises each time a worker takes the job, and a worker with an older one has lost it."""

    def to_json(self) -> dict[str, Any]:
        """The job as plain JSON values."""
        return {
            "id": self.id,
            "kind": self.kind,
            "slide": self.slide_id,
            "version": self.version,
            "model": self.model,
            "region": list(self.region) if self.region else None,
            "parameters": self.parameters,
            "preview": self.preview,
            "priority": self.priority,
            "lane": self.lane,
            "state": self.state,
            "cancelling": self.cancelling,
            "position": self.position,
            "progress": self.progress._asdict() if self.progress else None,
            "tries": self.tries,
            "reason": self.reason,
            "layer": self.layer_id,
            "created": self.created,
            "started": self.started,
            "finished": self.finished,
        }


def new_job_id() -> str:
    """A random opaque job id of 12 letters and digits."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(ID_LENGTH))


def utc_now() -> str:
    """The present time for people to read, UTC, ISO 8601 to the second; nothing is decided by it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
