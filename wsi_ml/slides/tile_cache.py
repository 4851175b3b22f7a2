"""Bounded disk cache of encoded tiles that cost a lot to make: one writer (the engine), any number of readers.

A file holds one tile behind a header with its whole key and a checksum:

    8 bytes magic · 16 bytes XXH3-128 of all that follows · u32 key length · key (UTF-8) · data

so a damaged file, a truncated one, or one of another key (a collision of names) is a miss, never a wrong tile.
Files appear by rename, so a reader sees a whole tile or none. Readers take the whole file at once: an eviction cannot
break a running answer. Least recently used files go first; readers say what they used by the file's modification time.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections import OrderedDict
from pathlib import Path

import xxhash

MAGIC = b"OCSRTIL1"
KEY_LENGTH = struct.Struct("<I")
BODY_START = len(MAGIC) + 16
TEMPORARY_PREFIX = "tmp-"
TOUCH_SECONDS = 60.0
"""A hit renews the file's time only when it is older than this: order among recent files does not matter."""
BLOCK_BYTES = 4096


def cache_path(folder: Path, key: str) -> Path:
    """File of a key: `<2 hex>/<30 hex>` of its XXH3-128."""
    name = xxhash.xxh3_128_hexdigest(key.encode())
    return folder / name[:2] / name[2:]


def seal(key: str, data: bytes) -> bytes:
    """Content of the file that keeps `data` under `key`."""
    encoded = key.encode()
    body = KEY_LENGTH.pack(len(encoded)) + encoded + data
    return MAGIC + xxhash.xxh3_128_digest(body) + body


def unseal(content: bytes) -> tuple[str, bytes] | None:
    """(key, data) of a file's content; None when it is damaged, truncated or no cache file."""
    body = content[BODY_START:]
    if len(body) < KEY_LENGTH.size or content[:BODY_START] != MAGIC + xxhash.xxh3_128_digest(body):
        return None
    data_start = KEY_LENGTH.size + KEY_LENGTH.unpack_from(body)[0]
    return body[KEY_LENGTH.size : data_start].decode(), body[data_start:]


def disk_bytes(size: int) -> int:
    """Room a file of `size` bytes takes on a disk of 4-KiB blocks: the cap is about the disk, not about the sum."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


class TileCacheReader:
    """Reading side; safe for any number of threads and processes beside the writer."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def get(self, key: str) -> bytes | None:
        """The tile kept under `key`, or None; a damaged file is deleted and counts as missing."""
        path = cache_path(self.folder, key)
        try:
            with path.open("rb", buffering=0) as file:
                content = file.read()
                used = os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        found = unseal(content)
        if found is None or found[0] != key:
            self._drop_damaged(path)
            return None
        if time.time() - used > TOUCH_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(path)
        return found[1]

    def _drop_damaged(self, path: Path) -> None:
        # A good file put in its place since the read may go with it: that costs one computation, never a wrong tile.
        with contextlib.suppress(OSError):
            path.unlink()

    def check(self) -> list[str]:
        """Every fault of the folder, one sentence each: damaged files, files under another key's name, leftovers."""
        faults = []
        for path in sorted(self.folder.glob("??/*")):
            if path.name.startswith(TEMPORARY_PREFIX):
                faults.append(f"{path.parent.name}/{path.name} is left over from an interrupted write.")
                continue
            found = unseal(path.read_bytes())
            if found is None:
                faults.append(f"{path.parent.name}/{path.name} is damaged.")
            elif cache_path(self.folder, found[0]) != path:
                faults.append(f"{path.parent.name}/{path.name} lies under another key's name.")
        return faults


class TileCache(TileCacheReader):
    """Writing side: at most one process per folder may hold one (the engine holds the library's engine lock).

    Opening it sweeps leftovers of interrupted writes and lists what is there. The disk use never exceeds `cap_bytes`:
    room is made before a tile is written. A `cap_bytes` of 0 keeps nothing.
    """

    def __init__(self, folder: Path, cap_bytes: int):
        super().__init__(folder)
        self.cap_bytes = cap_bytes
        self.bytes = 0
        self.hits = self.misses = self.evicted = self.damaged = self.write_failures = 0
        self._sizes: OrderedDict[Path, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._scan()
        with self._lock:
            self._evict(0)

    def __len__(self) -> int:
        return len(self._sizes)

    def get(self, key: str) -> bytes | None:
        """See TileCacheReader; counts hits and misses."""
        data = super().get(key)
        with self._lock:
            if data is None:
                self.misses += 1
            else:
                self.hits += 1
        return data

    def put(self, key: str, data: bytes) -> bool:
        """Keep `data` under `key`; False when it could not be kept (disk full, larger than the cap), never an error."""
        content = seal(key, data)
        path = cache_path(self.folder, key)
        room = disk_bytes(len(content))
        with self._lock:
            self._forget(path)
            if room > self.cap_bytes:
                return False
            self._evict(room)
            try:
                self._write(path, content)
            except OSError:
                self.write_failures += 1
                return False
            self._sizes[path] = (room, time.time())
            self.bytes += room
        return True

    def forget(self, key_prefix: str) -> int:
        """Delete every tile whose key begins so (all tiles of a removed version); returns how many."""
        count = 0
        with self._lock:
            for path in list(self._sizes):
                try:
                    found = unseal(path.read_bytes())
                except OSError:
                    found = None
                if found is not None and found[0].startswith(key_prefix):
                    self._delete(path)
                    count += 1
        return count

    def facts(self) -> dict[str, int]:
        """Sizes and counters."""
        return {
            "tiles": len(self),
            "bytes": self.bytes,
            "cap_bytes": self.cap_bytes,
            "hits": self.hits,
            "misses": self.misses,
            "evicted": self.evicted,
            "damaged": self.damaged,
            "write_failures": self.write_failures,
        }

    def _drop_damaged(self, path: Path) -> None:
        with self._lock:
            self.damaged += 1
            self._delete(path)

    def _write(self, path: Path, content: bytes) -> None:
        """Write beside the target and rename; without fsync, for a file torn by a power cut fails its checksum."""
        path.parent.mkdir(mode=0o750, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
        try:
            temporary.write_bytes(content)
            temporary.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _forget(self, path: Path) -> None:
        size, _ = self._sizes.pop(path, (0, 0.0))
        self.bytes -= size

    def _delete(self, path: Path) -> None:
        self._forget(path)
        with contextlib.suppress(OSError):
            path.unlink()

    def _evict(self, room: int) -> None:
        """Delete least recently used files until `room` more bytes fit under the cap.

        The list is in the order of the times known here; a reader may have renewed a file since, which shows only on
        disk, so the file is asked before it goes and is put back in line when it was used.
        """
        spared = 0
        while self._sizes and self.bytes + room > self.cap_bytes:
            path, (size, known) = next(iter(self._sizes.items()))
            used = _modified(path)
            if used is not None and used > known + 1 and spared < len(self._sizes):
                self._sizes[path] = (size, used)
                self._sizes.move_to_end(path)
                spared += 1
                continue
            self._delete(path)
            self.evicted += 1

    def _scan(self) -> None:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        found: list[tuple[float, Path, int]] = []
        for group in os.scandir(self.folder):
            if not group.is_dir(follow_symlinks=False) or len(group.name) != 2:
                continue
            for entry in os.scandir(group.path):
                with contextlib.suppress(FileNotFoundError):
                    if entry.name.startswith(TEMPORARY_PREFIX):
                        Path(entry.path).unlink()
                    else:
                        facts = entry.stat(follow_symlinks=False)
                        found.append((facts.st_mtime, Path(entry.path), disk_bytes(facts.st_size)))
        for used, path, size in sorted(found):
            self._sizes[path] = (size, used)
            self.bytes += size


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
