"""Running upscalers within their memory, opening them, and making batches, without a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.sr.fakes import SHA256, FakeCard, FakeUpscaler, OutOfMemoryError
from tests.versions import add_slide
from wsi_ml.errors import ModelMemoryError, ModelOutputError, ModelReplacedError, ModelUnavailableError
from wsi_ml.geometry import Size
from wsi_ml.slides.library import Library
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.slides.tile_cache import TileCache
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.engine.maker import TileMaker
from wsi_ml.sr.engine.models import RECOVER_S, REOPEN_S, Models, Runner, is_out_of_memory
from wsi_ml.sr.synthesis import DecodedTiles, TileKey, synthesise


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Accelerator(FakeUpscaler):
    """Runs out of memory at chosen calls, or for batches above a size."""

    def __init__(self, fails: Callable[[int, int], bool], error: Exception | None = None):
        super().__init__("plain", "cuda")
        self.fails = fails
        self.error = error or OutOfMemoryError("CUDA out of memory")
        self.calls: list[int] = []

    def _count(self, size: int) -> None:
        self.calls.append(size)
        if self.fails(len(self.calls), size):
            raise self.error

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        self._count(1)
        return super().__call__(rgb)

    def batch(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        self._count(len(tiles))
        return [FakeUpscaler.__call__(self, tile) for tile in tiles]


TILES = [np.random.default_rng(number).integers(0, 255, (9, 11, 3), np.uint8) for number in range(16)]
EXPECTED = FakeUpscaler("plain").batch(TILES)


def runner_of(upscaler: FakeUpscaler, clock: Clock, batch: int = 8) -> Runner:
    return Runner(upscaler, lambda: FakeUpscaler("plain", "cpu"), batch, clock)


def equal(made: list[np.ndarray]) -> bool:
    return len(made) == len(EXPECTED) and all((a == b).all() for a, b in zip(made, EXPECTED, strict=True))


@pytest.mark.parametrize("at", range(1, 21))
def test_out_of_memory_at_any_call_gives_the_same_pixels(at: int) -> None:
    upscaler, clock = Accelerator(lambda call, _size: call == at), Clock()
    runner = runner_of(upscaler, clock)
    for _ in range(10):
        assert equal(runner.run(TILES))
    assert runner.out_of_memory == 1
    assert runner.batch == 4
    clock.now += RECOVER_S
    assert runner.batch == 8
    assert equal(runner.run(TILES))
    assert upscaler.calls[-2:] == [8, 8]


def test_batches_halve_until_they_fit() -> None:
    upscaler, clock = Accelerator(lambda _call, size: size > 2), Clock()
    runner = runner_of(upscaler, clock)
    assert equal(runner.run(TILES))
    assert upscaler.calls == [8, 4] + [2] * 8
    assert runner.facts() == {
        "sha256": SHA256, "device": "cuda", "batch": 2, "full_batch": 8, "out_of_memory": 2
    }  # fmt: skip


def test_no_room_at_all_goes_to_the_cpu_and_comes_back() -> None:
    full = [True]
    upscaler, clock = Accelerator(lambda _call, _size: full[0]), Clock()
    runner = runner_of(upscaler, clock)
    assert equal(runner.run(TILES))
    assert upscaler.calls == [8, 4, 2, 1]
    assert runner.facts()["device"] == "cpu"
    full[0] = False
    assert equal(runner.run(TILES))
    assert len(upscaler.calls) == 4
    clock.now += RECOVER_S
    assert equal(runner.run(TILES))
    assert upscaler.calls[4:] == [8, 8]
    assert runner.facts()["device"] == "cuda"


def test_no_memory_on_the_cpu_either_is_named() -> None:
    upscaler = Accelerator(lambda _call, _size: True, MemoryError())
    upscaler.device = "cpu"
    with pytest.raises(ModelMemoryError):
        runner_of(upscaler, Clock()).run(TILES)
    assert upscaler.calls == [1]


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("x"), ZeroDivisionError()])
def test_other_failures_of_a_model_are_bad_output(error: Exception) -> None:
    runner = runner_of(Accelerator(lambda _call, _size: True, error), Clock())
    with pytest.raises(ModelOutputError):
        runner.run(TILES)
    assert runner.batch == 8


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_replaced_model_is_opened_again_and_never_mixed() -> None:
    clock, now = Clock(), {"sha256": "a" * 64}
    opened = []

    def open_fake(name: str, _device: str) -> FakeUpscaler:
        opened.append(now["sha256"])
        upscaler = FakeUpscaler(name)
        upscaler.card = FakeCard(name, sha256=now["sha256"])
        return upscaler

    models = Models(open_fake, clock=clock)
    for switch in range(20):
        now["sha256"] = f"{switch:064x}"
        clock.now += REOPEN_S
        assert models.runner("sr-fast", now["sha256"]).upscaler.card.sha256 == now["sha256"]
        for _ in range(50):
            with pytest.raises(ModelReplacedError):
                models.runner("sr-fast", "f" * 64)
    assert opened == [f"{switch:064x}" for switch in range(20)]


def test_a_model_that_fails_to_open_is_tried_again_later() -> None:
    clock, there = Clock(), [False]
    tries = []

    def open_fake(name: str, _device: str) -> FakeUpscaler:
        tries.append(name)
        if not there[0]:
            raise ModelUnavailableError("sr-fast.safetensors is missing")
        return FakeUpscaler(name)

    models = Models(open_fake, clock=clock)
    for _ in range(3):
        with pytest.raises(ModelUnavailableError, match=r"sr-fast\.safetensors"):
            models.runner("sr-fast", SHA256)
    assert models.facts() == {"sr-fast": {"state": "failed", "error": "sr-fast.safetensors is missing"}}
    there[0] = True
    clock.now += REOPEN_S
    assert models.runner("sr-fast", SHA256).upscaler.card.sha256 == SHA256
    assert tries == ["sr-fast"] * 2
    assert models.facts()["sr-fast"]["state"] == "ready"


@pytest.mark.parametrize("error", [ImportError("torch"), RuntimeError("no CUDA device")])
def test_a_machine_that_cannot_run_a_model_makes_it_unavailable(error: Exception) -> None:
    def open_fake(_name: str, _device: str) -> FakeUpscaler:
        raise error

    models = Models(open_fake, "cuda")
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="sr-fast cannot run here"):
            models.runner("sr-fast", SHA256)


def test_a_twin_of_other_weights_is_refused() -> None:
    def open_fake(name: str, device: str) -> FakeUpscaler:
        upscaler = Accelerator(lambda _call, _size: True) if device == "auto" else FakeUpscaler(name, device)
        upscaler.card = FakeCard(name, sha256=("a" if device == "auto" else "b") * 64)
        return upscaler

    with pytest.raises(ModelReplacedError):
        Models(open_fake).runner("sr-fast", "a" * 64).run(TILES)


def test_a_batch_of_tiles_of_several_sizes_with_one_bad_address(tmp_path: Path) -> None:
    library = Library.create(tmp_path / "library")
    _, version, _ = add_slide(library, "slide", Size(1300, 1100))
    upscaler = Accelerator(lambda _call, _size: False)
    models = Models(lambda name, _device: open_upscaler(name) if name == "bicubic" else upscaler, full_batch=16)
    maker = TileMaker(library.root, models, TileCache(tmp_path / "cache", 1 << 24), 1 << 24)
    keys = [TileKey(version, "plain", SHA256, t_col, t_row) for t_col in range(3) for t_row in range(4)]
    made = maker.make(keys)
    pyramid = Pyramid(library.version_folder(version))
    for key, outcome in zip(keys, made, strict=True):
        if key.t_row == 3:
            assert outcome.code == "outside_slide"
        else:
            assert outcome.data == synthesise(pyramid, FakeUpscaler("plain"), key, DecodedTiles(0))
    assert sum(upscaler.calls) == 9
    assert maker.facts() == {"computed": 9, "fallbacks": 0, "failed": 3}
    assert [each.data for each in maker.make(keys[:3])] == [each.data for each in made[:3]]
    assert sum(upscaler.calls) == 9
    assert maker.cache.check() == []


def test_no_memory_falls_back_openly(tmp_path: Path) -> None:
    library = Library.create(tmp_path / "library")
    _, version, _ = add_slide(library, "slide", Size(600, 600))
    upscaler = Accelerator(lambda _call, _size: True)
    upscaler.device = "cpu"
    models = Models(lambda name, _device: open_upscaler(name) if name == "bicubic" else upscaler)
    maker = TileMaker(library.root, models, TileCache(tmp_path / "cache", 1 << 24), 1 << 24)
    (made,) = maker.make([TileKey(version, "plain", SHA256, 0, 0)])
    assert made.source == "bicubic; fallback-for=plain; reason=model_out_of_memory"
    assert (made.fallback, len(maker.cache)) == (True, 0)
