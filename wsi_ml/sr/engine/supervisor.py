"""Keeps one engine process running beside the web processes: starts it, starts it again when it dies, stops it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from wsi_ml.processes import KeptProcess
from wsi_ml.sr.engine.options import EngineOptions


class EngineSupervisor(KeptProcess):
    """Runs an engine for a library until `stop`; used by the parent of the web processes.

    The engine ends by itself when this process dies, however it dies. Where another server already runs one for the
    same library, ours stands by and takes over when that one ends. `stop` lets it finish what was asked for within its
    drain time.
    """

    def __init__(self, library_root: Path, options: EngineOptions | None = None):
        self.options = options or EngineOptions()
        command = [
            *(sys.executable, "-m", "wsi_ml.sr.engine", "--library", str(library_root), "--stop-on-eof"),
            *self.options.arguments(),
        ]
        log = logging.getLogger("ocular.engine")
        super().__init__(command, "the super-resolution engine", log, self.options.drain_s)
