"""The engine's upscalers: opened once, checked against the hash that a tile's key names, run within their memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from wsi_ml.errors import ModelMemoryError, ModelOutputError, ModelReplacedError, ModelUnavailableError
from wsi_ml.geometry import ceil_div
from wsi_ml.sr.upscaler import Upscaler

log = logging.getLogger("ocular.engine")

OpenUpscaler = Callable[[str, str], Upscaler]
"""(name, device) → upscaler; raises ModelUnavailableError."""

REOPEN_S = 10.0
"""A model that failed to open, or whose hash is not the one asked for, is tried again no sooner."""
RECOVER_S = 60.0
"""After running out of memory the full batch (or the accelerator) is tried again no sooner."""
CPU = "cpu"


def is_out_of_memory(error: BaseException) -> bool:
    """True for MemoryError and for torch's out-of-memory errors, told by name because torch is not imported here."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


class Runner:
    """One open upscaler and how much it can take at a time.

    Out of memory halves the batch; with a batch of one the tile is made by the CPU twin. Both are forgiven after
    RECOVER_S. Several threads may run it; they share what was learnt.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        open_cpu_twin: Callable[[], Upscaler],
        full_batch: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.upscaler = upscaler
        self.device = str(getattr(upscaler, "device", CPU))
        self.full_batch = 1 if self.device.startswith(CPU) else full_batch
        self.out_of_memory = self.failures = 0
        self._use_threads: Callable[[int], None] | None = getattr(upscaler, "use_threads", None)
        self._open_cpu_twin = open_cpu_twin
        self._cpu_twin: Upscaler | None = None
        self._clock = clock
        self._batch = self.full_batch
        self._use_twin = False
        self._recover_at = 0.0
        self._lock = threading.Lock()

    @property
    def batch(self) -> int:
        """Tiles it takes at a time now; the full number again once the time after an out-of-memory has passed."""
        with self._lock:
            if self._recover_at and self._clock() >= self._recover_at:
                self._batch, self._use_twin, self._recover_at = self.full_batch, False, 0.0
            return self._batch

    def is_of(self, sha256: str | None) -> bool:
        """True when these are the weights asked for (None asks for any)."""
        return sha256 is None or self.upscaler.card.sha256 == sha256

    def run(self, tiles: list[np.ndarray], threads: int = 0) -> list[np.ndarray]:
        """Upscaled pictures of tiles of one size; raises ModelOutputError or ModelMemoryError, never a memory error.

        `threads` CPU threads may work for the calling thread; 0 leaves that as it is.
        """
        if threads and self._use_threads is not None:
            self._use_threads(threads)
        results: list[np.ndarray] = []
        while len(results) < len(tiles):
            batch, twin = self.batch, self._use_twin
            chunk = tiles[len(results) : len(results) + batch]
            try:
                results += self._call(self._twin() if twin else self.upscaler, chunk)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._step_down(len(chunk), twin)
        return results

    def _call(self, upscaler: Upscaler, tiles: list[np.ndarray]) -> list[np.ndarray]:
        try:
            return [upscaler(tiles[0])] if len(tiles) == 1 else upscaler.batch(tiles)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            if is_out_of_memory(error):
                raise
            # The traceback once; a model that fails always must not fill the disk with it.
            log.error("model %s failed: %s", upscaler.card.name, error, exc_info=not self.failures)
            self.failures += 1
            raise ModelOutputError(f"The model {upscaler.card.name} failed ({type(error).__name__}).") from error

    def _step_down(self, tried: int, on_twin: bool) -> None:
        """Learn from running out of memory with `tried` tiles; raises ModelMemoryError when nothing smaller is left."""
        with self._lock:
            self.out_of_memory += 1
            self._recover_at = self._clock() + RECOVER_S
            if on_twin or (tried == 1 and self.device.startswith(CPU)):
                raise ModelMemoryError(f"There is no memory to run the model {self.upscaler.card.name} on one tile.")
            if tried > 1:
                self._batch = min(self._batch, ceil_div(tried, 2))
            else:
                self._batch, self._use_twin = 1, True
        log.warning("out of memory: batch %d, on the CPU: %s", self._batch, self._use_twin)

    def _twin(self) -> Upscaler:
        with self._lock:
            if self._cpu_twin is None:
                self._cpu_twin = self._open_cpu_twin()
            return self._cpu_twin

    def facts(self) -> dict[str, Any]:
        """State for operators."""
        return {
            "sha256": self.upscaler.card.sha256,
            "device": CPU if self._use_twin else self.device,
            "batch": self.batch,
            "full_batch": self.full_batch,
            "out_of_memory": self.out_of_memory,
        }


class Models:
    """Open upscalers by name. A name with another hash than the one asked for is opened again: the files may be new."""

    def __init__(
        self,
        open_upscaler: OpenUpscaler,
        device: str = "auto",
        full_batch: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._open_upscaler = open_upscaler
        self._device = device
        self._full_batch = full_batch
        self._clock = clock
        self._runners: dict[str, Runner] = {}
        self._tried: dict[str, float] = {}
        self._failures: dict[str, str] = {}
        self._loading: str | None = None
        self._lock = threading.Lock()

    def runner(self, name: str, sha256: str | None = None) -> Runner:
        """The runner of a model, opened now if need be; raises ModelUnavailableError or ModelReplacedError."""
        runner = self._runners.get(name)
        if runner is None or not runner.is_of(sha256):
            with self._lock:
                runner = self._runners.get(name)
                if runner is None or not runner.is_of(sha256):
                    runner = self._open(name)
        if not runner.is_of(sha256):
            raise ModelReplacedError(f"The model {name} has been replaced; ask for the slide's card again.")
        return runner

    def loaded(self, name: str) -> Runner | None:
        """The runner of a model if it is open; never waits for one that is loading."""
        return self._runners.get(name)

    def _open(self, name: str) -> Runner:
        now = self._clock()
        if now < self._tried.get(name, -REOPEN_S) + REOPEN_S:
            if name in self._failures:
                raise ModelUnavailableError(self._failures[name])
            if name in self._runners:
                return self._runners[name]
        self._tried[name], self._loading = now, name
        try:
            upscaler = self._open_on(name, self._device)
        except ModelUnavailableError as error:
            log.error("model %s cannot be used: %s", name, error)
            self._failures[name] = str(error)
            self._runners.pop(name, None)
            raise
        finally:
            self._loading = None
        self._failures.pop(name, None)
        runner = Runner(upscaler, lambda: self._open_twin(upscaler), self._full_batch, self._clock)
        self._runners[name] = runner
        return runner

    def _open_on(self, name: str, device: str) -> Upscaler:
        try:
            return self._open_upscaler(name, device)
        except (ImportError, RuntimeError) as error:
            # torch's words for a missing part of itself, or for a device that is not there.
            raise ModelUnavailableError(f"The model {name} cannot run here: {type(error).__name__}.") from error

    def _open_twin(self, upscaler: Upscaler) -> Upscaler:
        twin = self._open_on(upscaler.card.name, CPU)
        if twin.card.sha256 != upscaler.card.sha256:
            raise ModelReplacedError(
                f"The model {upscaler.card.name} has been replaced; ask for the slide's card again."
            )
        return twin

    def facts(self) -> dict[str, dict[str, Any]]:
        """State of every model that was asked for: `ready`, `loading` or `failed`."""
        states = {name: {"state": "ready", **runner.facts()} for name, runner in list(self._runners.items())}
        states |= {name: {"state": "failed", "error": error} for name, error in list(self._failures.items())}
        if self._loading is not None:
            states[self._loading] = {"state": "loading"}
        return states
