"""Reader of a stored pyramid: tile bytes as they lie on disk, checked; decoded tiles; regions."""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xxhash

from wsi_ml.errors import DamagedError, LibraryError, OutsideError
from wsi_ml.geometry import Region, Size, ceil_div, clip
from wsi_ml.slides.card import INDEX_FILE, PYRAMID_FILE, read_card
from wsi_ml.slides.codec import decode_jpeg

INDEX_MAGIC = b"OCTILES1"
RECORD = struct.Struct("<QI16s")
CHECK_BYTES = 16

TilePixels = Callable[[int, int, int], np.ndarray]


def checksum(data: bytes) -> bytes:
    """The 16-byte checksum of a tile's bytes (XXH3-128)."""
    return xxhash.xxh3_128_digest(data)


def read_index(path: Path, tile_count: int) -> bytes:
    """Records of the tile index, its own checksum verified; raises LibraryError when damaged or of another length."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LibraryError(
            f"The tile index of version {path.parent.name} cannot be read: {type(error).__name__}."
        ) from error
    expected = len(INDEX_MAGIC) + tile_count * RECORD.size + CHECK_BYTES
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    if len(data) != expected or not data.startswith(INDEX_MAGIC) or checksum(body) != check:
        raise LibraryError(f"The tile index of version {path.parent.name} is damaged; run `ocular verify`.")
    return body[len(INDEX_MAGIC) :]


class Pyramid:
    """One immutable slide version on disk, opened for reading; any number of threads may share it.

    It is never closed by hand: the file closes when the last user lets go, so an eviction cannot pull the descriptor
    from under a running read. Raises LibraryError when the folder is not a whole version.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.card = read_card(self.folder)
        self.tile_side = self.card.tile_side
        self.counts = [
            Size(ceil_div(size.width, self.tile_side), ceil_div(size.height, self.tile_side))
            for size in self.card.levels
        ]
        self._first_record = [0]
        for count in self.counts:
            self._first_record.append(self._first_record[-1] + count.width * count.height)
        self._records = read_index(self.folder / INDEX_FILE, self._first_record[-1])
        try:
            self._descriptor = os.open(self.folder / PYRAMID_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LibraryError(f"The pyramid of version {self.card.version} cannot be opened.") from error
        weakref.finalize(self, os.close, self._descriptor)

    def tile_record(self, level: int, t_col: int, t_row: int) -> tuple[int, int, bytes]:
        """Offset, length and checksum of one stored tile; raises OutsideError for an address outside."""
        if not 0 <= level < len(self.counts):
            raise OutsideError(f"Stored level {level} does not exist: levels are 0 to {len(self.counts) - 1}.")
        count = self.counts[level]
        if not (0 <= t_col < count.width and 0 <= t_row < count.height):
            raise OutsideError(f"Tile {t_col}_{t_row} lies outside stored level {level}.")
        number = self._first_record[level] + t_row * count.width + t_col
        return RECORD.unpack_from(self._records, number * RECORD.size)

    def tile_bytes(self, level: int, t_col: int, t_row: int) -> bytes:
        """The JPEG of one stored tile as it lies on disk, always a full tile (edge tiles are padded).

        Raises OutsideError for an address outside and DamagedError when the bytes do not match their checksum.
        """
        offset, length, check = self.tile_record(level, t_col, t_row)
        data = os.pread(self._descriptor, length, offset)
        if xxhash.xxh3_128_digest(data) != check:
            raise DamagedError(f"Stored tile {t_col}_{t_row} of level {level} does not match its checksum.")
        return data

    def is_whole_tile(self, level: int, t_col: int, t_row: int) -> bool:
        """True when the tile lies wholly inside its level, so that its bytes can be served as they are."""
        size = self.card.levels[level]
        return (t_col + 1) * self.tile_side <= size.width and (t_row + 1) * self.tile_side <= size.height

    def tile_pixels(self, level: int, t_col: int, t_row: int) -> np.ndarray:
        """RGB uint8 of one stored tile without its padding; raises like `tile_bytes`."""
        pixels = decode_jpeg(self.tile_bytes(level, t_col, t_row))
        size = self.card.levels[level]
        width = min(self.tile_side, size.width - t_col * self.tile_side)
        height = min(self.tile_side, size.height - t_row * self.tile_side)
        return pixels[:height, :width]

    def region(self, region: Region, level: int = 0, tile_pixels: TilePixels | None = None) -> np.ndarray:
        """RGB uint8 height×width×3 of a region in the plane of `level`; it must lie inside (OutsideError).

        `tile_pixels` replaces the reading of tiles, so a caller can keep decoded ones.
        """
        if not 0 <= level < len(self.counts) or clip(region, self.card.levels[level]) != region:
            raise OutsideError(f"The region {tuple(region)} is not inside stored level {level}.")
        read = tile_pixels or self.tile_pixels
        side = self.tile_side
        result = np.empty((region.height, region.width, 3), np.uint8)
        for t_row in range(region.y // side, ceil_div(region.y_end, side)):
            for t_col in range(region.x // side, ceil_div(region.x_end, side)):
                pixels = read(level, t_col, t_row)
                part = clip(
                    Region(region.x - t_col * side, region.y - t_row * side, region.width, region.height),
                    Size(pixels.shape[1], pixels.shape[0]),
                )
                x, y = part.x + t_col * side - region.x, part.y + t_row * side - region.y
                result[y : y + part.height, x : x + part.width] = pixels[part.y : part.y_end, part.x : part.x_end]
        return result
