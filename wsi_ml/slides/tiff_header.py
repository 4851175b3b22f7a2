"""The directories of a TIFF, BigTIFF or NDPI file, read from bytes with every offset checked; nothing is decoded."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from wsi_ml.errors import IngestError

VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGER_TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 256, 257, 258, 259, 262, 277, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_LENGTHS = 322, 323, 324, 325
STRIP_OFFSETS, STRIP_LENGTHS = 273, 279
SUB_DIRECTORIES, JPEG_TABLES, NDPI_MARK = 330, 347, 65420
MAX_DIRECTORIES = 256
MAX_ENTRIES = 4096
MAX_VALUES = 4_000_000
"""Most values of one tag that are ever read: the tiles of 40 gigapixels at 128 px, and 32 MB of memory."""


def shown_name(path: Path) -> str:
    """A file's own name without its folders, safe to print in a sentence."""
    name = path.name.encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in name)


@dataclass
class Directory:
    """One TIFF image directory: where the values of its tags lie."""

    number: int
    fields: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """tag → (type, count, file offset of the values)"""


class TiffHeader:
    """An open TIFF file, its directories on demand; a context manager.

    Every method raises IngestError where the file points beyond its end or claims too much.
    """

    def __init__(self, path: Path):
        self.name = shown_name(path)
        self._file = path.open("rb")
        self.size = os.fstat(self._file.fileno()).st_size
        start = self._bytes(0, 8)
        self.order = "<" if start[:2] == b"II" else ">"
        self.big = struct.unpack(f"{self.order}H", start[2:4])[0] == 43
        self.ndpi = not self.big and self.order == "<" and self._is_ndpi()
        self._link = "Q" if self.big or self.ndpi else "I"

    def __enter__(self) -> TiffHeader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def directories(self) -> Iterator[Directory]:
        """All directories in file order, each followed by its sub-directories at the end; refuses loops."""
        queue = [self._integer(8 if self.big else 4, self._link)]
        seen: set[int] = set()
        while queue:
            offset = queue.pop(0)
            if offset == 0:
                continue
            if offset in seen:
                raise self.fault("its directories form a loop", "the file is damaged or hostile")
            seen.add(offset)
            if len(seen) > MAX_DIRECTORIES:
                raise self.fault(f"it has more than {MAX_DIRECTORIES} directories", "the file is damaged or hostile")
            directory, following = self._directory(offset, len(seen) - 1)
            yield directory
            queue.insert(0, following)
            queue += self.integers(directory, SUB_DIRECTORIES)[: MAX_DIRECTORIES + 1].tolist()

    def count(self, directory: Directory, tag: int) -> int:
        """How many values a tag claims, 0 where it is absent."""
        return directory.fields.get(tag, (0, 0, 0))[1]

    def first(self, directory: Directory, tag: int, default: int = 0) -> int:
        """The first value of an integer tag."""
        kind, count, offset = directory.fields.get(tag, (0, 0, 0))
        code = INTEGER_TYPES.get(kind)
        if code is None or count == 0:
            return default
        return int(np.frombuffer(self._bytes(offset, VALUE_BYTES[kind]), self.order + code)[0])

    def integers(self, directory: Directory, tag: int, start: int = 0, most: int = MAX_VALUES) -> np.ndarray:
        """Values of an integer tag, uint64, at most `most` from `start`; empty where it is absent."""
        kind, count, offset = directory.fields.get(tag, (0, 0, 0))
        code = INTEGER_TYPES.get(kind)
        if count == 0:
            return np.zeros(0, np.uint64)
        if code is None:
            raise self.fault(f"tag {tag} of image {directory.number} holds no integers", "the file is damaged")
        if count > MAX_VALUES:
            raise self.fault(f"tag {tag} of image {directory.number} claims {count} values", "the file is damaged")
        width, number = VALUE_BYTES[kind], max(0, min(most, count - start))
        return np.frombuffer(self._bytes(offset + start * width, number * width), self.order + code).astype(np.uint64)

    def raw(self, directory: Directory, tag: int) -> bytes:
        """The bytes of a tag of bytes; empty where it is absent."""
        kind, count, offset = directory.fields.get(tag, (0, 0, 0))
        if count > MAX_VALUES:
            raise self.fault(f"tag {tag} of image {directory.number} claims {count} bytes", "the file is damaged")
        return self._bytes(offset, count * VALUE_BYTES.get(kind, 1))

    def fault(self, fact: str, fix: str) -> IngestError:
        """The error that refuses this file."""
        return IngestError(f"“{self.name}” was not opened: {fact}; {fix}.")

    # -- reading ---------------------------------------------------------------------------------------------------

    def _directory(self, offset: int, number: int) -> tuple[Directory, int]:
        """The directory at an offset, and the offset of the next one."""
        count_code, entry_bytes = ("Q", 20) if self.big else ("H", 12)
        head = struct.calcsize(count_code)
        entries = self._integer(offset, count_code)
        if not 0 < entries <= MAX_ENTRIES:
            raise self.fault(f"directory {number} claims {entries} tags", "the file is damaged")
        table = self._bytes(offset + head, entries * entry_bytes)
        directory = Directory(number)
        for i in range(entries):
            at = i * entry_bytes
            tag, kind, count = struct.unpack_from(f"{self.order}HH{'Q' if self.big else 'I'}", table, at)
            value_at = offset + head + at + (12 if self.big else 8)
            if VALUE_BYTES.get(kind, 1) * count > (8 if self.big else 4):
                value_at = self._integer(value_at, "Q" if self.big else "I")
            directory.fields.setdefault(tag, (kind, count, value_at))
        return directory, self._integer(offset + head + len(table), self._link)

    def _is_ndpi(self) -> bool:
        """True for Hamamatsu's TIFF, whose links are 8 bytes in a file that says it has 4."""
        offset = self._integer(4, "Q") if self.size >= 12 else 0
        if not 0 < offset < self.size - 2:
            return False
        entries = self._integer(offset, "H")
        if entries > MAX_ENTRIES or offset + 2 + entries * 12 > self.size:
            return False
        table = self._bytes(offset + 2, entries * 12)
        return any(struct.unpack_from("<H", table, i * 12)[0] == NDPI_MARK for i in range(entries))

    def _integer(self, offset: int, code: str) -> int:
        return struct.unpack(f"{self.order}{code}", self._bytes(offset, struct.calcsize(code)))[0]

    def _bytes(self, offset: int, number: int) -> bytes:
        if offset + number > self.size:
            raise IngestError(
                f"“{self.name}” is truncated or damaged: it points {offset + number - self.size} bytes beyond its end; "
                "copy the file again from the scanner."
            )
        self._file.seek(offset)
        return self._file.read(number)
