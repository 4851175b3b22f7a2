"""Keeps one engine process running beside the web processes: starts it, starts it again when it dies, stops it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

from wsi_ml.sr.engine.options import EngineOptions

log = logging.getLogger("ocular.engine")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
STEADY_S = 10.0
"""An engine that lived so long is started again at once; one that did not makes the next pause twice as long."""
KILL_AFTER_DRAIN_S = 5.0


class EngineSupervisor:
    """Runs an engine for a library until `stop`; used by the parent of the web processes.

    The engine ends by itself when this process dies, however it dies. Where another server already runs one for the
    same library, ours stands by and takes over when that one ends.
    """

    def __init__(self, library_root: Path, options: EngineOptions | None = None):
        self.options = options or EngineOptions()
        self.restarts = 0
        self._command = [
            *(sys.executable, "-m", "wsi_ml.sr.engine", "--library", str(library_root), "--stop-on-eof"),
            *self.options.arguments(),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the engine, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the engine and the watch over it; returns at once."""
        process = self._launch()
        self._thread = threading.Thread(
            target=self._keep_running, args=(process,), name="engine-supervisor", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop the engine: it finishes what was asked for within its drain time, then it is killed."""
        with self._lock:
            self._stop.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(self.options.drain_s + KILL_AFTER_DRAIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._thread is not None:
            self._thread.join()

    def _launch(self) -> subprocess.Popen[bytes] | None:
        """Start a process, unless we are stopping."""
        with self._lock:
            if self._stop.is_set():
                return None
            # A process group of its own: Ctrl-C at a terminal reaches the web processes first, which still need tiles.
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)
            return self._process

    def _keep_running(self, process: subprocess.Popen[bytes] | None) -> None:
        pause = FIRST_PAUSE_S
        while process is not None:
            began = time.monotonic()
            status = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            if self._stop.is_set():
                return
            pause = FIRST_PAUSE_S if time.monotonic() - began >= STEADY_S else min(pause * 2, LONGEST_PAUSE_S)
            log.error("the super-resolution engine ended with status %s; starting it again in %.1f s", status, pause)
            self._stop.wait(pause)
            self.restarts += 1
            process = self._launch()
