"""Options of one job worker: plain values, handed over as command-line flags of the same names."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_ml.processes import FlagOptions


@dataclass(frozen=True)
class JobOptions(FlagOptions):
    """What a worker is started with; its jobs can change none of it."""

    memory_mb: int = 4096
    """Most memory of a job's process, in MB; a job that takes more is ended."""
    threads: int = 0
    """CPU threads of the model; 0 takes all cores."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    nice: int = 10
    """Added to the niceness of a whole-slide job; a quick one gets half of it, for somebody looks at the screen."""
    poll_s: float = 0.1
    """How often an idle worker looks for jobs; one look costs some ten microseconds."""
    beat_s: float = 1.0
    """How often a running job's worker says that it lives."""
    lease_s: float = 6.0
    """A worker that was silent for so long loses its job."""
    cancel_s: float = 3.0
    """A job that goes on for so long after it was cancelled is killed."""
    stall_s: float = 600.0
    """A job that gives no sign of life for so long is killed and tried again."""
    idle_s: float = 600.0
    """A process that has had no job for so long is ended, so that its memory is free."""
    recycle: int = 50
    """A process is replaced after so many jobs, against leaks."""
    log_format: str = "text"
    """`text` or `json` lines on standard error."""
    runner: str = "wsi_ml.jobs.predicting:run"
    """`module:function` that does a job; tests name their own."""
