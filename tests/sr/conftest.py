"""Engines in real processes over a small library made by code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sr.fakes import SHA256
from tests.versions import add_slide
from wsi_ml.geometry import Size
from wsi_ml.slides.library import Library
from wsi_ml.sr.bicubic import definition_sha256
from wsi_ml.sr.engine import BlockingEngineClient, EngineOptions, EngineSupervisor, socket_path
from wsi_ml.sr.synthesis import TileKey

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Bench:
    """A library with one slide of 8 × 8 tiles at ×40, its engine and a client."""

    library: Library
    version: str
    supervisor: EngineSupervisor
    client: BlockingEngineClient

    @property
    def socket(self) -> Path:
        return socket_path(self.library.root)

    def key(self, number: int = 0, upscaler: str = "plain", extension: str = "jpg") -> TileKey:
        """The n-th tile; beyond 64 the same ones in other qualities."""
        sha256 = definition_sha256() if upscaler == "bicubic" else SHA256
        quality = 90 - number // 64
        return TileKey(self.version, upscaler, sha256, number % 8, number // 8 % 8, extension, quality)

    def wait_until(self, holds: Callable[[dict], bool]) -> dict:
        """Stats of the engine once `holds` of them."""
        until = time.monotonic() + PATIENCE_S
        while True:
            stats = self.client.stats(PATIENCE_S)
            if holds(stats):
                return stats
            assert time.monotonic() < until, stats
            time.sleep(0.02)


@pytest.fixture(scope="session")
def slide_library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, str]:
    """A library with one slide; engines share it, each test takes tiles of its own or another cache."""
    library = Library.create(tmp_path_factory.mktemp("engine") / "library")
    return library, add_slide(library, "slide", Size(4095, 4096))[1]


@pytest.fixture
def start_engine(slide_library: tuple[Library, str]) -> Iterator[Callable[..., Bench]]:
    """Starts an engine with fake upscalers and an empty cache; stops it after the test."""
    library, version = slide_library
    started: list[Bench] = []

    def start(**options) -> Bench:
        for path in (library.root / "cache").glob("??/*"):
            path.unlink()
        values = {"upscalers": "tests.sr.fakes", "warm": False, "makers": 1, "nice": 0, "burst_ms": 0.0} | options
        supervisor = EngineSupervisor(library.root, EngineOptions(**values))
        supervisor.start()
        bench = Bench(library, version, supervisor, BlockingEngineClient(socket_path(library.root), PATIENCE_S))
        started.append(bench)
        bench.client.stats(PATIENCE_S)
        return bench

    yield start
    for bench in started:
        bench.client.close()
        bench.supervisor.stop()
