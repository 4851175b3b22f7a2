"""Options of one engine process: plain values, handed over as command-line flags of the same names."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_ml.processes import FlagOptions


@dataclass(frozen=True)
class EngineOptions(FlagOptions):
    """What an engine is started with; its requests can change none of it."""

    queue: int = 64
    """Most distinct tiles waiting; more are refused with QueueFullError."""
    cache_bytes: int = 2 << 30
    """Most disk space for made tiles; 0 keeps none."""
    decoded_bytes: int = 128 << 20
    """Memory for decoded stored tiles."""
    threads: int = 0
    """CPU threads of the network for one tile; 0 shares the cores among the tiles being made."""
    makers: int = 0
    """Tiles (or batches) made at a time; 0 is one for each core up to two on a CPU."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    batch: int = 16
    """Tiles in one batch on a GPU; a CPU makes them one by one."""
    gather_ms: float = 3.0
    """How long a GPU batch that is not full waits for more."""
    burst_ms: float = 150.0
    """Requests within this time belong together and keep their order; see TileQueue."""
    nice: int = 5
    """Added to the process's niceness, so that serving stored tiles goes first."""
    drain_s: float = 10.0
    """Longest time that SIGTERM waits for the tiles already asked for."""
    hang_s: float = 120.0
    """A tile that takes longer ends the process: the supervisor starts a fresh one."""
    warm: bool = True
    """Load the first network at the start and not at the first tile."""
    log_format: str = "text"
    """`text` or `json` lines on standard error."""
    upscalers: str = "wsi_ml.sr.upscaler"
    """Module with `open_upscaler` and `available_upscalers`, which take the library's folder of models too; tests name
    their own."""
