"""One block of a features file as bytes: columns one after the other, each on a multiple of four, little-endian."""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy as np

from wsi_ml.errors import DamagedError
from wsi_ml.layers.columns import FeatureColumns, starts_of

MAGIC = b"OCB1"
HEADER = struct.Struct("<4s4I2iI")
"""Magic, features, parts, rings, points, x and y of the origin (units), 0."""
GZIP_LEVEL = 1


def encode_block(columns: FeatureColumns) -> bytes:
    """Bytes of a block, not packed; coordinates relative to the left top corner of the features' boxes."""
    count = len(columns)
    origin = columns.boxes[:, :2].min(axis=0) if count else np.zeros(2, np.int32)
    starts = starts_of(columns.point_ends)
    steps = np.diff(columns.points, axis=0, prepend=np.int32(0))
    steps[starts] = columns.points[starts] - origin
    header = HEADER.pack(
        MAGIC,
        count,
        len(columns.ring_ends),
        len(columns.point_ends),
        len(columns.points),
        int(origin[0]),
        int(origin[1]),
        0,
    )
    arrays = [
        columns.numbers.astype("<u4"),
        columns.class_numbers.astype("<u2"),
        columns.scores.astype("<u2"),
        columns.areas.astype("<f4"),
        (columns.boxes - np.tile(origin, 2)).astype("<i4"),
        columns.part_ends.astype("<u4"),
        columns.ring_ends.astype("<u4"),
        columns.point_ends.astype("<u4"),
        steps[:, 0].astype("<i4"),
        steps[:, 1].astype("<i4"),
    ]
    return header + b"".join(padded(array.tobytes()) for array in arrays)


def decode_block(data: bytes) -> FeatureColumns:
    """Columns of a block's bytes (not packed); raises DamagedError when the bytes are not one whole block."""
    if len(data) < HEADER.size:
        raise DamagedError("A block of features is cut short.")
    magic, count, parts, rings, points, origin_x, origin_y, _ = HEADER.unpack_from(data)
    lengths = [(count, "<u4"), (count, "<u2"), (count, "<u2"), (count, "<f4"), (4 * count, "<i4"), (count, "<u4")]
    lengths += [(parts, "<u4"), (rings, "<u4"), (points, "<i4"), (points, "<i4")]
    sizes = [-(-length * np.dtype(kind).itemsize // 4) * 4 for length, kind in lengths]
    if magic != MAGIC or len(data) != HEADER.size + sum(sizes):
        raise DamagedError("A block of features has not the size that it states.")
    arrays, place = [], HEADER.size
    for (length, kind), size in zip(lengths, sizes, strict=True):
        arrays.append(np.frombuffer(data, kind, length, place))
        place += size
    numbers, class_numbers, scores, areas, boxes, part_ends, ring_ends, point_ends, x_steps, y_steps = arrays
    origin = np.array([origin_x, origin_y], np.int32)
    if rings:
        xy = [_sums(steps, point_ends, each) for steps, each in ((x_steps, origin_x), (y_steps, origin_y))]
    else:
        xy = [x_steps, y_steps]
    return FeatureColumns(
        numbers,
        class_numbers,
        scores,
        areas,
        boxes.reshape(-1, 4) + np.tile(origin, 2),
        part_ends,
        ring_ends,
        point_ends,
        np.stack(xy, axis=1).astype(np.int32),
    )


def pack_block(data: bytes) -> bytes:
    """A block's bytes packed with gzip, the same for the same bytes (no time, no name)."""
    return gzip.compress(data, GZIP_LEVEL, mtime=0)


def unpack_block(packed: bytes) -> bytes:
    """A block's bytes; raises DamagedError when they cannot be unpacked."""
    try:
        if packed:
            return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedError("A block of features cannot be unpacked.") from error
    raise DamagedError("A block of features has no bytes.")


def padded(data: bytes, multiple: int = 4) -> bytes:
    """`data` with zeros up to a whole multiple of bytes."""
    return data + bytes(-len(data) % multiple)


def _sums(steps: np.ndarray, ends: np.ndarray, origin: int) -> np.ndarray:
    """Coordinates from steps: each ring's first is relative to `origin`, the others to the one before."""
    sums = np.cumsum(steps, dtype=np.int64)
    starts = starts_of(ends)
    before = np.where(starts > 0, sums[starts - 1], 0)
    return sums - np.repeat(before, ends.astype(np.int64) - starts) + origin
