"""Pieces of bytes kept by key in an unnamed file, so that grouping needs little memory however much there is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


class Spill:
    """Pieces come in any order of keys and are read back key by key, each key's in the order they came.

    The file has no name: it is gone when the process ends, however that ends. Not for several threads.
    """

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder, buffering=1 << 20)  # noqa: SIM115 - closed by close()
        self._end = 0
        self._places: dict[int, list[tuple[int, int]]] = {}

    def append(self, key: int, data: bytes) -> None:
        """Keep one more piece of a key."""
        self._file.write(data)
        self._places.setdefault(key, []).append((self._end, len(data)))
        self._end += len(data)

    def sorted_keys(self) -> list[int]:
        """All keys, rising."""
        return sorted(self._places)

    def pieces(self, key: int) -> Iterator[bytes]:
        """The pieces of one key."""
        self._file.flush()
        for offset, length in self._places[key]:
            yield os.pread(self._file.fileno(), length, offset)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()
