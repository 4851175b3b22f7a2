"""The engine as a real process: one computation per tile, order, limits, deaths, faults of models."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sr.conftest import PATIENCE_S, Bench
from tests.sr.fakes import KILL_FILE, SHA256, FakeUpscaler
from tests.sr.networks import write_model
from tests.versions import add_slide
from wsi_ml.errors import (
    BadRequestError,
    DeadlineError,
    EngineUnavailableError,
    ModelReplacedError,
    ModelUnavailableError,
    OutsideError,
    QueueFullError,
    UnknownVersionError,
)
from wsi_ml.geometry import Size
from wsi_ml.slides.library import MODELS_FOLDER, Library
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.slides.tile_cache import TileCacheReader, cache_path
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.engine import BlockingEngineClient, EngineClient, EngineOptions, EngineSupervisor, socket_path
from wsi_ml.sr.engine.protocol import LENGTHS, frame
from wsi_ml.sr.synthesis import DecodedTiles, TileKey, synthesise

Start = Callable[..., Bench]


def expected(bench: Bench, key: TileKey, upscaler=None) -> bytes:
    pyramid = Pyramid(bench.library.version_folder(bench.version))
    return synthesise(pyramid, upscaler or FakeUpscaler("plain"), key, DecodedTiles(0))


def test_a_tile_and_where_it_comes_from(start_engine: Start) -> None:
    bench = start_engine()
    made = bench.client.tile(bench.key(3))
    assert made == (expected(bench, bench.key(3)), f"sr; model=plain; sha256={SHA256[:12]}", False)
    assert TileCacheReader(bench.library.root / "cache").get(bench.key(3).text) == made.data
    assert bench.client.tile(bench.key(3)) == made
    bicubic = bench.client.tile(bench.key(3, "bicubic"))
    assert bicubic == (expected(bench, bench.key(3), open_upscaler("bicubic")), "bicubic", False)
    stats = bench.client.stats()
    assert (stats["computed"], stats["cache"]["tiles"], stats["cache"]["hits"], stats["queued"]) == (2, 2, 1, 0)
    assert stats["models"]["plain"]["state"] == "ready"


def test_a_users_model_of_the_library_is_run_without_a_restart(start_engine: Start) -> None:
    bench = start_engine(upscalers="wsi_ml.sr.upscaler", device="cpu")
    models = bench.library.root / MODELS_FOLDER
    with pytest.raises(ModelUnavailableError, match="no upscaler 'own'"):
        bench.client.tile(bench.key(5, "own"))
    try:
        card = write_model(models, "mine", "sr-joint", {"channels": 8, "growth": 4, "blocks": 1}, halo=64)
        key = dataclasses.replace(bench.key(5, "mine"), sha256=card.sha256)
        made = bench.client.tile(key)
        upscaler = open_upscaler("mine", "cpu", [models])
        assert made == (expected(bench, key, upscaler), f"sr; model=mine; sha256={card.sha256[:12]}", False)
    finally:
        shutil.rmtree(models)


def test_a_hundred_clients_of_one_tile_cost_one_computation(start_engine: Start) -> None:
    bench = start_engine()
    key = bench.key(0, "slow300")

    async def ask() -> list:
        clients = [EngineClient(bench.socket, PATIENCE_S) for _ in range(100)]
        try:
            return await asyncio.gather(*(client.tile(key) for client in clients))
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    answers = asyncio.run(ask())
    assert len({answer.data for answer in answers}) == 1
    assert answers[0].data == expected(bench, key)
    stats = bench.wait_until(lambda stats: stats["connections"] == 1)
    assert (stats["computed"], stats["joined"]) == (1, 99)


def test_callers_of_one_process_share_a_request_and_its_cancelling(start_engine: Start) -> None:
    bench = start_engine()

    async def ask() -> list:
        client = EngineClient(bench.socket, PATIENCE_S)
        busy = asyncio.ensure_future(client.tile(bench.key(0, "slow300")))
        while (await client.stats())["running"] == 0:
            await asyncio.sleep(0.01)
        wanted = [asyncio.ensure_future(client.tile(bench.key(1, "slow100"))) for _ in range(50)]
        unwanted = [asyncio.ensure_future(client.tile(bench.key(2, "slow100"))) for _ in range(50)]
        impatient = asyncio.ensure_future(client.tile(bench.key(1, "slow100"), 0.05))
        while (await client.stats())["queued"] < 2:
            await asyncio.sleep(0.01)
        for task in wanted[:20] + unwanted:
            task.cancel()
        answers = await asyncio.gather(*wanted, return_exceptions=True)
        assert [type(each) for each in await asyncio.gather(impatient, return_exceptions=True)] == [DeadlineError]
        await busy
        # Nobody waits for it any more, so a new caller asks anew.
        again = await client.tile(bench.key(2))
        await client.close()
        return [*answers, again]

    *answers, again = asyncio.run(ask())
    assert all(isinstance(each, asyncio.CancelledError) for each in answers[:20])
    assert {each.data for each in answers[20:]} == {expected(bench, bench.key(1))}
    assert again.data == expected(bench, bench.key(2))
    stats = bench.client.stats()
    assert (stats["asked"], stats["computed"], stats["dropped"]) == (4, 3, 1)


def test_a_caller_outlives_the_nearer_deadline_of_one_before(start_engine: Start) -> None:
    bench = start_engine()

    async def ask() -> list:
        client = EngineClient(bench.socket, PATIENCE_S)
        near = asyncio.ensure_future(client.tile(bench.key(0, "slow400"), 0.15))
        await asyncio.sleep(0.05)
        far = asyncio.ensure_future(client.tile(bench.key(0, "slow400")))
        answers = await asyncio.gather(near, far, return_exceptions=True)
        await client.close()
        return answers

    near, far = asyncio.run(ask())
    assert isinstance(near, DeadlineError)
    assert far.data == expected(bench, bench.key(0))


def test_threads_share_one_blocking_client(start_engine: Start) -> None:
    bench = start_engine()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: bench.client.tile(bench.key(number % 5, "slow20")), range(40)))
    assert [answer.data for answer in answers] == [expected(bench, bench.key(number % 5)) for number in range(40)]
    assert bench.client.stats()["computed"] == 5


def test_newest_first_and_abandoned_work_never_starts(start_engine: Start) -> None:
    bench = start_engine()
    order: list[int] = []

    async def ask() -> None:
        client = EngineClient(bench.socket, PATIENCE_S)

        async def tile(number: int) -> None:
            await client.tile(bench.key(number, "slow100"))
            order.append(number)

        tasks = []
        for number in range(6):
            tasks.append(asyncio.ensure_future(tile(number)))
            await asyncio.sleep(0.01)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()

    asyncio.run(ask())
    assert order == [0, 5, 4, 3, 1]
    stats = bench.client.stats()
    assert (stats["computed"], stats["dropped"]) == (5, 1)


def test_200_abandoned_requests(start_engine: Start) -> None:
    bench = start_engine(queue=256)
    process = Path("/proc") / str(bench.supervisor.pid)
    bench.client.tile(bench.key(200))
    before = [len(list((process / name).iterdir())) for name in ("fd", "task")]

    async def ask_and_leave() -> None:
        client = EngineClient(bench.socket, PATIENCE_S)
        tasks = [asyncio.ensure_future(client.tile(bench.key(number, "slow100"))) for number in range(200)]
        while (await client.stats())["asked"] < 200:
            await asyncio.sleep(0.01)
        # Half leave by cancelling, half by hanging up.
        for task in tasks[:100]:
            task.cancel()
        await asyncio.gather(*tasks[:100], return_exceptions=True)
        for task in tasks[100:]:
            task.cancel()
        await client.close()

    asyncio.run(ask_and_leave())
    stats = bench.wait_until(lambda stats: stats["queued"] == stats["running"] == stats["waiting"] == 0)
    assert stats["dropped"] >= 190
    assert stats["computed"] == len(list((bench.library.root / "cache").glob("??/*"))) <= 11
    bench.wait_until(lambda stats: stats["connections"] == 1)
    assert [len(list((process / name).iterdir())) for name in ("fd", "task")] == before


def test_queue_full_says_when_to_come_back(start_engine: Start) -> None:
    bench = start_engine(queue=4)

    async def ask() -> list:
        client = EngineClient(bench.socket, PATIENCE_S)
        first = asyncio.ensure_future(client.tile(bench.key(0, "slow200")))
        while (await client.stats())["running"] == 0:
            await asyncio.sleep(0.01)
        rest = await asyncio.gather(
            *(client.tile(bench.key(number, "slow200")) for number in range(1, 11)), return_exceptions=True
        )
        await first
        await client.close()
        return rest

    answers = asyncio.run(ask())
    refused = [answer for answer in answers if isinstance(answer, QueueFullError)]
    assert len(refused) == 6
    assert all(1 <= error.retry_after_s <= 30 for error in refused)
    stats = bench.client.stats()
    assert (stats["refused"], stats["computed"]) == (6, 5)


def test_a_thousand_tiles_at_once_are_each_answered(start_engine: Start) -> None:
    bench = start_engine()

    async def ask() -> list:
        clients = [EngineClient(bench.socket, PATIENCE_S) for _ in range(10)]
        try:
            wanted = (clients[number % 10].tile(bench.key(number, "bicubic")) for number in range(1000))
            return await asyncio.gather(*wanted, return_exceptions=True)
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    answers = asyncio.run(ask())
    made = [number for number, answer in enumerate(answers) if not isinstance(answer, QueueFullError)]
    assert all(answers[number].source == "bicubic" for number in made)
    stats = bench.client.stats()
    assert (stats["computed"], stats["refused"]) == (len(made), 1000 - len(made))
    assert len(made) >= 64
    assert (stats["queued"], stats["waiting"]) == (0, 0)


def test_deadline_drops_the_request(start_engine: Start) -> None:
    bench = start_engine()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(bench.client.tile, bench.key(0, "slow500"))
        bench.wait_until(lambda stats: stats["running"] == 1)
        with pytest.raises(DeadlineError):
            bench.client.tile(bench.key(1, "slow500"), 0.1)
        first.result()
    stats = bench.wait_until(lambda stats: stats["queued"] == 0)
    assert (stats["computed"], stats["dropped"], stats["waiting"]) == (1, 1, 0)


def test_killed_engine_is_replaced_and_clients_get_the_same_bytes(start_engine: Start) -> None:
    bench = start_engine()
    with ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(bench.client.tile, bench.key(number % 4, "slow400")) for number in range(20)]
        before = bench.wait_until(lambda stats: stats["running"] == 1 and stats["waiting"] == 4)
        os.kill(before["pid"], signal.SIGKILL)
        data = [answer.result().data for answer in answers]
    assert data == [expected(bench, bench.key(number % 4)) for number in range(20)]
    assert bench.client.stats()["pid"] != before["pid"]
    assert bench.supervisor.restarts == 1


def test_a_tile_that_kills_engines_is_given_up_and_others_are_made(start_engine: Start) -> None:
    bench = start_engine()
    with pytest.raises(EngineUnavailableError):
        bench.client.tile(bench.key(0, "deadly"))
    assert bench.supervisor.restarts >= 2
    assert bench.client.tile(bench.key(1)).data == expected(bench, bench.key(1))


@pytest.mark.parametrize("name", ["deadly-once", "hang-once"])
def test_a_death_or_a_hang_in_mid_tile_costs_only_time(
    start_engine: Start, tmp_path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(KILL_FILE, str(tmp_path / "met"))
    bench = start_engine(hang_s=1.0)
    assert bench.client.tile(bench.key(0, name)).data == expected(bench, bench.key(0))
    assert (tmp_path / "met").exists()
    assert bench.supervisor.restarts == 1


def test_sigterm_finishes_what_was_asked_for(start_engine: Start) -> None:
    bench = start_engine()
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(bench.client.tile, bench.key(number, "slow100")) for number in range(6)]
        bench.wait_until(lambda stats: stats["waiting"] == 6)
        bench.supervisor.stop()
        data = [answer.result().data for answer in answers]
    assert data == [expected(bench, bench.key(number)) for number in range(6)]
    assert bench.supervisor.pid is None
    assert not bench.socket.exists()
    with pytest.raises(EngineUnavailableError):
        bench.client.tile(bench.key(9), 0.3)


def test_bad_output_is_answered_by_marked_bicubic_and_never_kept(start_engine: Start) -> None:
    bench = start_engine()
    for name in ("nan", "flat", "broken"):
        made = bench.client.tile(bench.key(7, name, "png"))
        assert made.source == f"bicubic; fallback-for={name}; reason=model_bad_output"
        assert made.fallback
        picture = np.asarray(Image.open(io.BytesIO(made.data)))
        bicubic = bench.client.tile(bench.key(7, "bicubic", "png"))
        assert (picture == np.asarray(Image.open(io.BytesIO(bicubic.data)))).all()
    stats = bench.client.stats()
    assert (stats["computed"], stats["fallbacks"], stats["cache"]["tiles"]) == (1, 3, 1)


def test_named_errors_reach_the_client(start_engine: Start) -> None:
    bench = start_engine()
    with pytest.raises(ModelUnavailableError, match=r"missing\.safetensors"):
        bench.client.tile(bench.key(0, "missing"))
    assert bench.client.stats()["models"]["missing"]["state"] == "failed"
    with pytest.raises(ModelReplacedError):
        bench.client.tile(TileKey(bench.version, "plain", "cd" * 32, 0, 0))
    with pytest.raises(UnknownVersionError):
        bench.client.tile(TileKey("0" * 16, "plain", SHA256, 0, 0))
    with pytest.raises(OutsideError):
        bench.client.tile(TileKey(bench.version, "plain", SHA256, 16, 0))
    for bad in ("../../x", "a.json", "/etc/passwd", "A", ""):
        with pytest.raises(BadRequestError):
            bench.client.tile(TileKey(bench.version, bad, SHA256, 0, 0))
    assert bench.client.tile(bench.key(0)).data == expected(bench, bench.key(0))


def test_unforeseen_errors_end_one_tile_only(start_engine: Start) -> None:
    bench = start_engine()
    with pytest.raises(Exception, match="unforeseen") as caught:
        bench.client.tile(bench.key(0, "surprise"))
    assert caught.value.code == "internal_error"
    assert bench.client.tile(bench.key(1)).data == expected(bench, bench.key(1))


def test_flipped_cache_bytes_are_made_again(start_engine: Start) -> None:
    bench = start_engine()
    good = bench.client.tile(bench.key(5))
    path = cache_path(bench.library.root / "cache", bench.key(5).text)
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        assert bench.client.tile(bench.key(5)) == good
        assert path.read_bytes() == content
    assert bench.client.stats()["cache"]["damaged"] >= 7


def test_batches_on_an_accelerator_shrink_to_its_memory(start_engine: Start) -> None:
    bench = start_engine(device="cuda", batch=8, gather_ms=200.0)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: bench.client.tile(bench.key(number, "narrow")), range(16)))
    assert [answer.data for answer in answers] == [expected(bench, bench.key(number)) for number in range(16)]
    facts = bench.client.stats()["models"]["narrow"]
    assert (facts["device"], facts["batch"], facts["full_batch"]) == ("cuda", 2, 8)
    assert facts["out_of_memory"] >= 1


def test_a_full_disk_serves_uncached(start_engine: Start) -> None:
    bench = start_engine(cache_bytes=0)
    assert [bench.client.tile(bench.key(2)).data for _ in range(2)] == [expected(bench, bench.key(2))] * 2
    assert bench.client.stats()["computed"] == 2


def test_nonsense_on_the_socket_hurts_nobody(start_engine: Start) -> None:
    bench = start_engine()
    for nonsense in (
        *(b"GET / HTTP/1.1\r\n\r\n", b"\0" * 9, b"\xff" * 4096),
        *(LENGTHS.pack(5, 0) + b"[1,2]", LENGTHS.pack(1 << 31, 0)),
        *(frame({"op": "tile"}), frame({"id": "x"}), frame({"id": 1, "op": "??"})),
    ):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(bench.socket))
            raw.sendall(nonsense)
    assert bench.client.tile(bench.key(1)).data == expected(bench, bench.key(1))
    assert bench.wait_until(lambda stats: stats["connections"] == 1)["waiting"] == 0


def test_only_this_user_may_open_the_socket(start_engine: Start) -> None:
    assert start_engine().socket.stat().st_mode & 0o777 == 0o600


def test_a_second_engine_stands_by_and_takes_over(start_engine: Start) -> None:
    first = start_engine()
    first.client.tile(first.key(0))
    second = EngineSupervisor(first.library.root, first.supervisor.options)
    second.start()
    try:
        before = first.client.stats()["pid"]
        assert before == first.supervisor.pid != second.pid
        first.supervisor.stop()
        assert first.client.stats(10)["pid"] == second.pid
        assert first.client.tile(first.key(0)).data == expected(first, first.key(0))
    finally:
        second.stop()


@pytest.mark.parametrize("standing_by", [False, True])
def test_the_engine_ends_when_its_parent_is_killed(start_engine: Start, slide_library, standing_by: bool) -> None:
    library, _ = slide_library
    if standing_by:
        start_engine()
    script = (
        "import sys, time; from wsi_ml.sr.engine import *\n"
        "supervisor = EngineSupervisor(sys.argv[1], EngineOptions(upscalers='tests.sr.fakes', warm=False))\n"
        "supervisor.start(); print(supervisor.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(library.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.kill(pid, 0)
            time.sleep(0.05)
        pytest.fail("the engine outlived its parent")


def test_a_library_too_deep_for_a_socket_address(tmp_path) -> None:
    library = Library.create(tmp_path / ("d" * 60) / ("e" * 60))
    _, version, _ = add_slide(library, "slide", Size(300, 300))
    supervisor = EngineSupervisor(library.root, EngineOptions(upscalers="tests.sr.fakes", warm=False))
    supervisor.start()
    client = BlockingEngineClient(socket_path(library.root), PATIENCE_S)
    try:
        assert client.tile(TileKey(version, "plain", SHA256, 0, 0)).source.startswith("sr; model=plain")
    finally:
        client.close()
        supervisor.stop()
    assert not socket_path(library.root).exists()


@pytest.mark.parametrize(("deadline_s", "patience_s"), [(0.2, 600.0), (600.0, 0.2)])
def test_an_unreachable_engine_is_named(tmp_path, deadline_s: float, patience_s: float) -> None:
    client = BlockingEngineClient(tmp_path / "nothing.sock", patience_s)
    with pytest.raises(EngineUnavailableError, match="not running"):
        client.tile(TileKey("0" * 16, "plain", SHA256, 0, 0), deadline_s)
    client.close()
