"""The disk cache of made tiles: what it keeps, what it refuses, what goes first."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from wsi_ml.slides import tile_cache
from wsi_ml.slides.tile_cache import TileCache, TileCacheReader, cache_path, disk_bytes

TILE = bytes(range(256)) * 30
ROOM = disk_bytes(len(TILE) + 64)


def sizes(folder: Path) -> int:
    return sum(disk_bytes(path.stat().st_size) for path in folder.glob("??/*"))


def set_age(folder: Path, key: str, seconds: float) -> None:
    path = cache_path(folder, key)
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_keeps_bytes_for_readers_and_for_the_next_start(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 1 << 20)
    assert cache.get("a") is None
    assert cache.put("a", TILE)
    assert cache.put("b", b"")
    assert cache.get("a") == TileCacheReader(tmp_path).get("a") == TileCache(tmp_path, 1 << 20).get("a") == TILE
    assert cache.get("b") == b""
    assert (cache.hits, cache.misses, len(cache)) == (2, 1, 2)
    assert cache.bytes == sizes(tmp_path)
    assert cache.check() == []


def test_put_again_replaces(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 1 << 20)
    cache.put("a", TILE)
    cache.put("a", b"new")
    assert cache.get("a") == b"new"
    assert (len(cache), cache.bytes) == (1, disk_bytes(1))


@pytest.mark.parametrize("reader_class", [TileCacheReader, lambda folder: TileCache(folder, 1 << 20)])
def test_every_flipped_byte_is_a_miss_and_goes(tmp_path: Path, reader_class) -> None:
    TileCache(tmp_path, 1 << 20).put("key", bytes(range(250, 256)))
    path = cache_path(tmp_path, "key")
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert reader_class(tmp_path).get("key") is None
        assert not path.exists()
    path.write_bytes(good)
    assert reader_class(tmp_path).get("key") == bytes(range(250, 256))


def test_every_cut_is_a_miss(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 1 << 20)
    cache.put("key", bytes(range(250, 256)))
    path = cache_path(tmp_path, "key")
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert cache.get("key") is None
    assert cache.damaged == len(good)


def test_a_good_file_under_another_keys_name_is_a_miss(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 1 << 20)
    cache.put("a", TILE)
    other = cache_path(tmp_path, "b")
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(cache_path(tmp_path, "a").read_bytes())
    assert cache.check() == [f"{other.parent.name}/{other.name} lies under another key's name."]
    assert cache.get("b") is None
    assert cache.check() == []


def test_check_names_damage_and_leftovers_and_a_start_sweeps_them(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 1 << 20)
    cache.put("a", TILE)
    path = cache_path(tmp_path, "a")
    (path.parent / "tmp-1-x").write_bytes(b"half")
    path.write_bytes(b"rubbish")
    assert cache.check() == [
        f"{path.parent.name}/{path.name} is damaged.",
        f"{path.parent.name}/tmp-1-x is left over from an interrupted write.",
    ]
    assert TileCache(tmp_path, 1 << 20).get("a") is None
    assert cache.check() == []


def test_never_over_its_cap_in_churn(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 10 * ROOM)
    for number in range(100):
        assert cache.put(f"tile {number}", TILE)
        assert cache.bytes == sizes(tmp_path) <= 10 * ROOM
    assert (len(cache), cache.evicted) == (10, 90)
    assert [cache.get(f"tile {number}") is not None for number in (89, 90, 99)] == [False, True, True]


def test_a_smaller_cap_at_the_next_start_evicts(tmp_path: Path) -> None:
    first = TileCache(tmp_path, 10 * ROOM)
    for number in range(10):
        first.put(f"tile {number}", TILE)
        set_age(tmp_path, f"tile {number}", 1000 - number)
    cache = TileCache(tmp_path, 3 * ROOM)
    assert cache.bytes == sizes(tmp_path) == 3 * ROOM
    assert [cache.get(f"tile {number}") is not None for number in (6, 7, 8, 9)] == [False, True, True, True]


def test_what_a_reader_used_is_spared(tmp_path: Path) -> None:
    first = TileCache(tmp_path, 3 * ROOM)
    for number in range(3):
        first.put(f"tile {number}", TILE)
        set_age(tmp_path, f"tile {number}", 1000 - number)
    cache = TileCache(tmp_path, 3 * ROOM)
    TileCacheReader(tmp_path).get("tile 0")
    cache.put("tile 3", TILE)
    assert [cache.get(f"tile {number}") is not None for number in range(4)] == [True, False, True, True]


def test_more_than_the_cap_and_no_cap_keep_nothing(tmp_path: Path) -> None:
    assert not TileCache(tmp_path / "a", ROOM // 2).put("a", TILE)
    assert not TileCache(tmp_path / "b", 0).put("a", b"x")
    assert sizes(tmp_path / "a") == sizes(tmp_path / "b") == 0


def test_a_full_disk_keeps_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TileCache(tmp_path, 1 << 20)
    cache.put("a", TILE)

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tile_cache.Path, "write_bytes", full)
        assert not cache.put("b", TILE)
    assert cache.check() == []
    assert (cache.write_failures, cache.bytes) == (1, sizes(tmp_path))
    assert cache.get("a") == TILE
    assert cache.put("b", TILE)


def test_forget_deletes_by_prefix_only(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 1 << 20)
    for key in ("v1/a", "v1/b", "v2/a"):
        cache.put(key, TILE)
    assert cache.forget("v1/") == 2
    assert [cache.get(key) for key in ("v1/a", "v1/b", "v2/a")] == [None, None, TILE]
    assert cache.bytes == sizes(tmp_path)


def test_readers_beside_an_evicting_writer_get_the_tile_or_nothing(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, 4 * ROOM)
    wrong, done = [], threading.Event()

    def read() -> None:
        reader = TileCacheReader(tmp_path)
        while not done.is_set():
            for number in range(12):
                data = reader.get(f"tile {number}")
                if data is not None and data != TILE + bytes([number]):
                    wrong.append(number)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(240):
        cache.put(f"tile {turn % 12}", TILE + bytes([turn % 12]))
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.bytes == sizes(tmp_path) <= 4 * ROOM
    assert cache.check() == []
