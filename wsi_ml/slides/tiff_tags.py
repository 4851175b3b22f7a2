"""The bytes of our own BigTIFF: header, directories and the tags of a JPEG-tiled pyramid level."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_ml.geometry import Size

HEADER = struct.Struct("<2sHHHQ")
ENTRY = struct.Struct("<HHQ8s")
ASCII, SHORT, LONG, RATIONAL, LONG8 = 2, 3, 4, 5, 16
CENTIMETRE = 3
JPEG_COMPRESSION = 7
YCBCR = 6
NOMINAL_POWERS = (160.0, 80.0, 40.0, 20.0, 10.0, 5.0, 2.5, 1.25, 0.625)


@dataclass(frozen=True)
class LevelTiles:
    """Where the tiles of one level lie in the file: offsets and byte counts, row-major."""

    size: Size
    offsets: Sequence[int]
    lengths: Sequence[int]


def nominal_power(mpp: float) -> float:
    """Objective power that goes with µm/px by the usual rule power = 10 / mpp, rounded to a power of two times 20."""
    return min(NOMINAL_POWERS, key=lambda power: max(power * mpp / 10, 10 / (power * mpp)))


def description(size: Size, tile_side: int, encoding: str, mpp: float) -> str:
    """Aperio's form of ImageDescription, so that OpenSlide reports µm/px and power; holds no word of the vendor's."""
    return (
        f"Aperio Image Library (written by Ocular)\r\n{size.width}x{size.height} [0,0 {size.width}x{size.height}] "
        f"({tile_side}x{tile_side}) {encoding}|AppMag = {nominal_power(mpp):g}|MPP = {mpp:.9g}"
    )


def header(first_directory: int) -> bytes:
    """The 16 bytes every BigTIFF begins with."""
    return HEADER.pack(b"II", 43, 8, 0, first_directory)


def directory(
    at: int, level: LevelTiles, *, text: str, mpp: float, tile_side: int, chroma_step: int, last: bool
) -> bytes:
    """One image directory to stand at offset `at` of the file, its long values behind it; `mpp` is the level's own.

    `chroma_step`: pixels per colour sample and axis, 1 for 4:4:4, 2 for 4:2:0; it must be that of the tiles' JPEG.
    """
    pixels_per_cm = struct.pack("<II", *_ratio(10_000 / mpp))
    tags: list[tuple[int, int, int, bytes]] = [
        (254, LONG, 1, struct.pack("<I", 0)),  # as Aperio's: tifffile takes “reduced” levels for label and macro
        (256, LONG, 1, struct.pack("<I", level.size.width)),
        (257, LONG, 1, struct.pack("<I", level.size.height)),
        (258, SHORT, 3, struct.pack("<3H", 8, 8, 8)),
        (259, SHORT, 1, struct.pack("<H", JPEG_COMPRESSION)),
        (262, SHORT, 1, struct.pack("<H", YCBCR)),
        (270, ASCII, len(text) + 1, text.encode("ascii") + b"\0"),
        (277, SHORT, 1, struct.pack("<H", 3)),
        (282, RATIONAL, 1, pixels_per_cm),
        (283, RATIONAL, 1, pixels_per_cm),
        (284, SHORT, 1, struct.pack("<H", 1)),
        (296, SHORT, 1, struct.pack("<H", CENTIMETRE)),
        (322, LONG, 1, struct.pack("<I", tile_side)),
        (323, LONG, 1, struct.pack("<I", tile_side)),
        (324, LONG8, len(level.offsets), struct.pack(f"<{len(level.offsets)}Q", *level.offsets)),
        (325, LONG8, len(level.lengths), struct.pack(f"<{len(level.lengths)}Q", *level.lengths)),
        (530, SHORT, 2, struct.pack("<2H", chroma_step, chroma_step)),
        (532, RATIONAL, 6, struct.pack("<12I", 0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)),
    ]
    values_at = at + 8 + len(tags) * ENTRY.size + 8
    entries, values = b"", b""
    for tag, kind, count, value in tags:
        field = value.ljust(8, b"\0") if len(value) <= 8 else struct.pack("<Q", values_at + len(values))
        entries += ENTRY.pack(tag, kind, count, field)
        if len(value) > 8:
            values += value + bytes(-len(value) % 8)
    following = 0 if last else values_at + len(values)
    return struct.pack("<Q", len(tags)) + entries + struct.pack("<Q", following) + values


def _ratio(value: float) -> tuple[int, int]:
    """`value` as numerator and denominator below 2^32, as exact as they allow."""
    denominator = 1
    while value * denominator * 2 < 2**32 and denominator < 2**20:
        denominator *= 2
    return max(1, round(value * denominator)), denominator
