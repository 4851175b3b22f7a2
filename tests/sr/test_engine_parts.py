"""Parts of the engine's outside: socket addresses, frames, keys on the wire, options as flags, restarts."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from wsi_ml import errors
from wsi_ml.errors import BadRequestError, EngineUnavailableError, OcularError, QueueFullError
from wsi_ml.sr.engine import EngineOptions, EngineSupervisor, protocol, socket_path
from wsi_ml.sr.engine.protocol import (
    error_fields,
    error_of,
    frame,
    key_fields,
    make_socket_folder,
    parse_key,
    read_frame,
)
from wsi_ml.sr.synthesis import TileKey

KEY = TileKey("0" * 16, "sr-fast", "a" * 64, 3, 4)


def read(data: bytes) -> tuple[dict, bytes]:
    async def feed() -> tuple[dict, bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await read_frame(reader)

    return asyncio.run(feed())


def test_socket_in_the_library_or_where_it_fits(tmp_path: Path) -> None:
    assert socket_path(Path("/data/library")) == Path("/data/library/run/engine.sock")
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    path = socket_path(deep)
    assert path.parent == Path(tempfile.gettempdir()) / f"ocular-{os.getuid()}"
    assert len(os.fsencode(path)) <= protocol.SOCKET_PATH_LIMIT
    assert path == socket_path(deep) != socket_path(deep / "x")


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    make_socket_folder(tmp_path / "real" / "x.sock")
    with pytest.raises(EngineUnavailableError):
        make_socket_folder(tmp_path / "link" / "x.sock")


def test_frames_round_trip() -> None:
    assert read(frame({"id": 1, "x": "µ"}, b"\0body")) == ({"id": 1, "x": "µ"}, b"\0body")
    assert read(frame({})) == ({}, b"")


@pytest.mark.parametrize(
    "data",
    [b"", b"\1\0\0\0", frame({"id": 1}, b"body")[:-1], b"\2\0\0\0\0\0\0\0[]", b"\2\0\0\0\0\0\0\0{\xff", b"\xff" * 99],
)
def test_broken_frames_are_a_lost_connection(data: bytes) -> None:
    with pytest.raises(EngineUnavailableError):
        read(data)


def test_keys_round_trip() -> None:
    assert parse_key(read(frame({"id": 1, **key_fields(KEY)}))[0]) == KEY


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "../../etc/passwd00"), ("version", None), ("version", "0" * 15), ("version", "0" * 16 + "\n"),
        ("upscaler", "../model"), ("upscaler", "a.json"), ("upscaler", ""), ("upscaler", "a" * 41), ("upscaler", 1),
        ("sha256", "a" * 63), ("sha256", "A" * 64), ("t_col", -1), ("t_col", 1.0), ("t_col", True), ("t_row", "1"),
        ("t_row", 1 << 31), ("extension", "exe"), ("extension", ["jpg"]), ("quality", 0), ("quality", 101),
        ("quality", None),
    ],
)  # fmt: skip
def test_only_tiles_can_be_asked_for(field: str, value: object) -> None:
    with pytest.raises(BadRequestError):
        parse_key(key_fields(KEY) | {field: value})


def test_every_named_error_crosses_the_socket() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, OcularError)]
    for kind in kinds:
        again = error_of(read(frame(error_fields(kind("said so"))))[0])
        assert (type(again), str(again)) == (kind, "said so")
    full = error_of(error_fields(QueueFullError("full", 17)))
    assert isinstance(full, QueueFullError)
    assert full.retry_after_s == 17
    assert type(error_of({"error": "from a newer engine"})) is EngineUnavailableError


def test_options_round_trip_as_flags() -> None:
    options = EngineOptions(queue=7, gather_ms=0.5, warm=False, device="cpu", upscalers="a.b")
    parser = argparse.ArgumentParser()
    EngineOptions.add_flags(parser)
    assert EngineOptions.of(parser.parse_args(options.arguments())) == options
    assert EngineOptions.of(parser.parse_args([])) == EngineOptions()


def test_an_engine_that_cannot_start_is_tried_at_growing_intervals(tmp_path: Path) -> None:
    supervisor = EngineSupervisor(tmp_path / "nowhere", EngineOptions(upscalers="no.such.module"))
    supervisor._command[1:] = ["-c", "raise SystemExit(3)"]
    supervisor.start()
    time.sleep(2.5)
    assert 1 <= supervisor.restarts <= 4
    supervisor.stop()
    assert supervisor.pid is None


def test_neither_clients_nor_the_cache_import_torch() -> None:
    script = (
        "import sys; import wsi_ml.sr.engine, wsi_ml.slides.tile_cache, wsi_ml.sr.synthesis\n"
        "from wsi_ml.sr import available_upscalers, open_upscaler; available_upscalers(); open_upscaler('bicubic')\n"
        "raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
