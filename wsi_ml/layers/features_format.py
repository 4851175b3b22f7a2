"""Layout of a features file: magic, blocks, summary chunks, index, footer; every byte is under a checksum."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import xxhash

from wsi_ml.errors import DamagedError
from wsi_ml.geometry import Size
from wsi_ml.layers.blocks import padded
from wsi_ml.layers.summary import SummaryEntries

FILE_MAGIC = b"OCFEAT01"
FOOTER = struct.Struct("<QQ16s8s")
"""Offset and length of the index, its checksum, magic."""
BLOCK_RECORD = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("count", "<u4"), ("box", "<i4", 4), ("check", "V16")])
CHUNK_RECORD = np.dtype(
    [
        ("offset", "<u8"),
        ("bytes", "<u4"),
        ("entries", "<u4"),
        ("level", "<u2"),
        ("column", "<u2"),
        ("row", "<u2"),
        ("zero", "<u2"),
        ("check", "V16"),
    ]
)
SUMMARY_MAGIC = b"OCS1"
SUMMARY_HEADER = struct.Struct("<4s3I")
"""Magic, entries, level, side of a cell in base px."""
CHUNK_LEVEL = 6
"""A chunk holds the entries of one level in the area of one cell of this level; of a level above it, all of them."""
_CHUNK_KINDS = ("<u2", "<u2", "<u2", "<u2", "<u4", "<i8")


@dataclass(frozen=True)
class FeaturesFacts:
    """What a features file holds, in the order of its classes."""

    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    base_areas: tuple[float, ...]
    """Summed area of each class in base-plane px²."""
    scored: bool
    """True when any feature has a score."""

    @property
    def count(self) -> int:
        """Number of features."""
        return sum(self.counts)


@dataclass(frozen=True)
class FileIndex:
    """Everything of a features file but its blocks and chunks."""

    facts: FeaturesFacts
    base_size: Size
    blocks: np.ndarray
    """BLOCK_RECORD, in the order of the file."""
    chunks: np.ndarray
    """CHUNK_RECORD, in the order of the file."""


def checksum(data: bytes) -> bytes:
    """16 bytes that tell any change of the data."""
    return xxhash.xxh3_128_digest(data)


def encode_index(index: FileIndex) -> bytes:
    """Bytes of an index."""
    facts = index.facts
    head = {
        "base_size": list(index.base_size),
        "classes": list(facts.class_names),
        "counts": list(facts.counts),
        "base_areas": list(facts.base_areas),
        "scored": facts.scored,
        "blocks": len(index.blocks),
        "chunks": len(index.chunks),
    }
    text = orjson.dumps(head)
    return b"".join([struct.pack("<I", len(text)), padded(text), index.blocks.tobytes(), index.chunks.tobytes()])


def decode_index(data: bytes) -> FileIndex:
    """An index from its bytes, which the footer's checksum has shown to be whole."""
    (length,) = struct.unpack_from("<I", data)
    head: dict[str, Any] = orjson.loads(data[4 : 4 + length])
    place = 4 + length + -length % 4
    blocks = np.frombuffer(data, BLOCK_RECORD, head["blocks"], place)
    chunks = np.frombuffer(data, CHUNK_RECORD, head["chunks"], place + blocks.nbytes)
    facts = FeaturesFacts(
        tuple(head["classes"]), tuple(head["counts"]), tuple(map(float, head["base_areas"])), head["scored"]
    )
    return FileIndex(facts, Size(*head["base_size"]), blocks, chunks)


def encode_chunk(entries: SummaryEntries) -> bytes:
    """Packed bytes of summary entries: columns with their bytes transposed, for that packs well and fast."""
    columns = (entries.columns, entries.rows, entries.class_numbers, entries.bins, entries.counts, entries.areas)
    planes = [
        np.ascontiguousarray(column.astype(kind)).view(np.uint8).reshape(len(entries), -1).T.tobytes()
        for column, kind in zip(columns, _CHUNK_KINDS, strict=True)
    ]
    return zlib.compress(b"".join(planes), 1)


def summary_bytes(entries: SummaryEntries, level: int, side: int) -> bytes:
    """Entries of one level as the viewer takes them: header, then columns on multiples of four, areas on eight."""
    narrow = (entries.columns, entries.rows, entries.class_numbers, entries.bins)
    data = SUMMARY_HEADER.pack(SUMMARY_MAGIC, len(entries), level, side)
    data += b"".join(padded(column.astype("<u2").tobytes()) for column in narrow)
    data = padded(data + entries.counts.astype("<u4").tobytes(), 8)
    return data + entries.areas.astype("<f8").tobytes()


def decode_chunk(data: bytes, count: int) -> SummaryEntries:
    """Summary entries of packed bytes; raises DamagedError when they are not `count` entries."""
    try:
        text = zlib.decompress(data)
    except zlib.error as error:
        raise DamagedError("A part of a layer's summary cannot be unpacked.") from error
    widths = [np.dtype(kind).itemsize for kind in _CHUNK_KINDS]
    if len(text) != count * sum(widths):
        raise DamagedError("A part of a layer's summary has not the size that it states.")
    columns, place = [], 0
    for kind, width in zip(_CHUNK_KINDS, widths, strict=True):
        planes = np.frombuffer(text, np.uint8, count * width, place).reshape(width, count)
        columns.append(np.ascontiguousarray(planes.T).reshape(-1).view(kind))
        place += count * width
    return SummaryEntries(*columns)
