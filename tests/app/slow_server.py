"""`ocular serve` whose sr-fast is bicubic after a wait of OCULAR_TEST_TILE_SECONDS, and whose jobs are done by
`tests.jobs.fakes`: run as a program by tests.

The engine process loads this very module for its upscalers; web processes are the real ones.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time

import numpy as np

from app import server
from app.settings import load
from wsi_ml.sr.upscaler import available_upscalers
from wsi_ml.sr.upscaler import open_upscaler as open_real

__all__ = ["available_upscalers", "open_upscaler"]


class SlowUpscaler:
    """Bicubic pixels under another card, after a wait."""

    def __init__(self, name: str):
        self.card = next(card for card in available_upscalers() if card.name == name)
        self.device = "cpu"
        self._bicubic = open_real("bicubic")

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        time.sleep(float(os.environ["OCULAR_TEST_TILE_SECONDS"]))
        return self._bicubic(rgb)

    def batch(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        return [self(tile) for tile in tiles]


def open_upscaler(name: str, device: str = "auto", folders=()) -> SlowUpscaler:
    return SlowUpscaler(name)


def main() -> None:
    real_options = server.engine_options
    server.engine_options = lambda settings: dataclasses.replace(
        real_options(settings), upscalers="tests.app.slow_server"
    )
    real_job_options = server.job_options
    server.job_options = lambda settings: dataclasses.replace(
        real_job_options(settings), runner="tests.jobs.fakes:run", nice=0
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OCULAR_TEST_")}
    server.serve(load({"library": sys.argv[1], "port": int(sys.argv[2])}, environment=environment))


if __name__ == "__main__":
    main()
