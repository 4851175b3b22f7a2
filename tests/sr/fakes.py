"""Upscalers for tests of the engine, loaded by name in its process (`EngineOptions.upscalers`): behaviour by name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.sr.upscaler import available_upscalers as real_upscalers
from wsi_ml.sr.upscaler import open_upscaler as open_real

SHA256 = "ab" * 32
HALO = 3
KILL_FILE = "OCULAR_TEST_KILL"


@dataclass(frozen=True)
class FakeCard:
    name: str
    kind: str = "sr"
    scale: int = 2
    halo: int = HALO
    sha256: str = SHA256


class OutOfMemoryError(RuntimeError):
    """Named as torch's is, which is a RuntimeError too."""


class FakeUpscaler:
    """A box blur over 7×7 stored pixels, repeated twice on each axis: depends on exactly `HALO` pixels around."""

    def __init__(self, name: str, device: str = "cpu"):
        self.card = FakeCard(name)
        self.device = "cpu" if device == "auto" else device

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        name = self.card.name
        if name.startswith("slow"):
            time.sleep(int(name.removeprefix("slow")) / 1000)
        if name == "nan":
            return np.full((rgb.shape[0] * 2, rgb.shape[1] * 2, 3), np.nan, np.float32)
        if name == "flat":
            return np.full((rgb.shape[0] * 2, rgb.shape[1] * 2, 3), 7, np.uint8)
        if name == "broken":
            raise RuntimeError("shape mismatch")
        if name == "surprise":
            raise LookupError("nobody foresaw this")
        if name == "deadly":
            os._exit(9)
        if name.endswith("-once") and not (flag := Path(os.environ[KILL_FILE])).exists():
            flag.touch()
            if name == "hang-once":
                time.sleep(60)
            os._exit(9)
        return blur(rgb).repeat(2, 0).repeat(2, 1)

    def batch(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        if self.card.name == "narrow" and len(tiles) > 2:
            raise OutOfMemoryError("CUDA out of memory")
        return [self(tile) for tile in tiles]


def blur(rgb: np.ndarray) -> np.ndarray:
    side = 2 * HALO + 1
    padded = np.pad(rgb.astype(np.uint32), ((HALO + 1, HALO), (HALO + 1, HALO), (0, 0)), mode="edge")
    sums = padded.cumsum(0, dtype=np.uint32).cumsum(1, dtype=np.uint32)
    windows = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (windows // side**2).astype(np.uint8)


def available_upscalers(folders=()) -> list:
    return [*real_upscalers(folders), FakeCard("plain")]


def open_upscaler(name: str, device: str = "auto", folders=()) -> FakeUpscaler:
    if name == "bicubic":
        return open_real(name)
    if name == "missing":
        raise ModelUnavailableError("The weights missing.safetensors are not there.")
    return FakeUpscaler(name, device)
