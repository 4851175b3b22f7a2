"""Writer of the stored pyramid: streams blocks of the stored plane into a tiled BigTIFF and its tile index.

The plane is cut into blocks of 4 × 4 tiles. One task reads a block, encodes its tiles, halves it, encodes the tiles of
the next two levels the same way and hands what is left (one half tile) upwards. Because 512 is even, halving block by
block equals halving the whole plane, so no level is ever in memory: a scan of 100,000 px a side needs a few blocks per
thread. Blocks come in Z order and are written in that order, so the same pixels always give the same bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

from wsi_ml.geometry import TILE_SIDE, Region, Size, ceil_div, clip, pyramid_sizes
from wsi_ml.slides import tiff_tags
from wsi_ml.slides.card import INDEX_FILE, PYRAMID_FILE
from wsi_ml.slides.codec import STORE_STEPS_SUBSAMPLING, encode_steps, steps_text
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.pyramid import INDEX_MAGIC, RECORD, checksum

BLOCK_LEVELS = 3
"""Levels made inside one block: the block is 2^(BLOCK_LEVELS − 1) = 4 tiles wide."""
OVERVIEW_SIDE = 2048
CHROMA_STEP = {"444": 1, "420": 2}[STORE_STEPS_SUBSAMPLING]
MAX_THREADS = 16

ReadRegion = Callable[[Region], np.ndarray]
Advance = Callable[[int, int], None]


class Tile(NamedTuple):
    """An encoded tile on its way to the file."""

    level: int
    t_col: int
    t_row: int
    data: bytes
    check: bytes


class PyramidWriter:
    """Writes `pyramid.tif` and `tiles.idx` of one stored plane into a folder; see `write`.

    `read` gives RGB uint8 of any region of the stored plane and is called from several threads at once.
    """

    def __init__(self, folder: Path, stored_size: Size, stored_mpp: float, read: ReadRegion):
        self.folder = folder
        self.sizes = pyramid_sizes(stored_size)
        self.mpp = stored_mpp
        self.read = read
        self.block_levels = min(BLOCK_LEVELS, len(self.sizes))
        self.counts = [Size(ceil_div(size.width, TILE_SIDE), ceil_div(size.height, TILE_SIDE)) for size in self.sizes]
        self.offsets = [np.zeros((count.height, count.width), np.uint64) for count in self.counts]
        self.lengths = [np.zeros((count.height, count.width), np.uint32) for count in self.counts]
        self.checks = [np.zeros((count.height, count.width), "V16") for count in self.counts]
        self._open_tiles: dict[tuple[int, int, int], np.ndarray] = {}
        self._overview_level = next(i for i, size in enumerate(self.sizes) if max(size) <= OVERVIEW_SIDE)
        overview = self.sizes[self._overview_level]
        self.overview = np.zeros((overview.height, overview.width, 3), np.uint8)
        """The first stored level that fits OVERVIEW_SIDE, before encoding; whole once `write` has returned."""

    def write(self, advance: Advance | None = None, threads: int | None = None) -> None:
        """Write both files and make them durable; `advance(done, total)` counts stored pixels of level 0.

        Raises what `read` raises and OSError when the disk is full; the folder is then to be thrown away.
        """
        with (self.folder / PYRAMID_FILE).open("wb", buffering=1 << 20) as file:
            file.write(tiff_tags.header(0))
            end = self._write_tiles(file, advance or (lambda done, total: None), threads or thread_count())
            self._write_directories(file, end)
            file.flush()
            os.fsync(file.fileno())
        self._write_index()

    # -- tiles -----------------------------------------------------------------------------------------------------

    def _write_tiles(self, file: BinaryIO, advance: Advance, threads: int) -> int:
        total, done, offset = self.sizes[0].width * self.sizes[0].height, 0, tiff_tags.HEADER.size
        for block, tiles, rest in self._blocks_in_order(threads):
            region = self._block_region(*block)
            for tile in tiles + self._raise_half(self.block_levels, *block, rest):
                self.offsets[tile.level][tile.t_row, tile.t_col] = offset
                self.lengths[tile.level][tile.t_row, tile.t_col] = len(tile.data)
                self.checks[tile.level][tile.t_row, tile.t_col] = np.void(tile.check)
                offset += file.write(tile.data)
            done += region.width * region.height
            advance(done, total)
        return offset

    def _blocks_in_order(self, threads: int) -> Iterator[tuple[tuple[int, int], list[Tile], np.ndarray]]:
        """Blocks made by `threads` threads, given out in Z order; a few more than threads are under way."""
        waiting: deque[tuple[tuple[int, int], Future[tuple[list[Tile], np.ndarray]]]] = deque()
        side = TILE_SIDE << (self.block_levels - 1)
        grid = Size(ceil_div(self.sizes[0].width, side), ceil_div(self.sizes[0].height, side))
        pool = ThreadPoolExecutor(threads, "ocular-ingest")
        try:
            for block in z_order(grid):
                waiting.append((block, pool.submit(self._make_block, *block)))
                if len(waiting) > threads + 2:
                    done, future = waiting.popleft()
                    yield done, *future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, *future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _block_region(self, b_col: int, b_row: int) -> Region:
        side = TILE_SIDE << (self.block_levels - 1)
        return clip(Region(b_col * side, b_row * side, side, side), self.sizes[0])

    def _make_block(self, b_col: int, b_row: int) -> tuple[list[Tile], np.ndarray]:
        """Tiles of all levels inside one block, and its pixels at the first level above."""
        pixels = self.read(self._block_region(b_col, b_row))
        tiles: list[Tile] = []
        for level in range(self.block_levels):
            tiles_across = 1 << (self.block_levels - 1 - level)
            t_col, t_row = b_col * tiles_across, b_row * tiles_across
            tiles += self._encode_tiles(level, t_col, t_row, pixels)
            self._keep_overview(level, t_col, t_row, pixels)
            pixels = halve_pixels(pixels)
        return tiles, pixels

    def _encode_tiles(self, level: int, t_col: int, t_row: int, pixels: np.ndarray) -> list[Tile]:
        """Tiles of an area of one level whose first tile is (t_col, t_row)."""
        tiles = []
        for y in range(0, pixels.shape[0], TILE_SIDE):
            for x in range(0, pixels.shape[1], TILE_SIDE):
                part = pad_tile(pixels[y : y + TILE_SIDE, x : x + TILE_SIDE])
                data = encode_steps(part)
                tiles.append(Tile(level, t_col + x // TILE_SIDE, t_row + y // TILE_SIDE, data, checksum(data)))
        return tiles

    def _keep_overview(self, level: int, t_col: int, t_row: int, pixels: np.ndarray) -> None:
        if level == self._overview_level:
            x, y = t_col * TILE_SIDE, t_row * TILE_SIDE
            self.overview[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels

    def _raise_half(self, level: int, t_col: int, t_row: int, half: np.ndarray) -> list[Tile]:
        """Put a half tile, made from tile (t_col, t_row) one level below, into its tile of `level`.

        When that tile has all its parts it is encoded, halved and raised in turn; returns the tiles this completed.
        """
        if level >= len(self.sizes):
            return []
        key = (level, t_col // 2, t_row // 2)
        region = clip(Region(key[1] * TILE_SIDE, key[2] * TILE_SIDE, TILE_SIDE, TILE_SIDE), self.sizes[level])
        tile = self._open_tiles.setdefault(key, np.zeros((region.height, region.width, 3), np.uint8))
        x, y = t_col % 2 * TILE_SIDE // 2, t_row % 2 * TILE_SIDE // 2
        tile[y : y + half.shape[0], x : x + half.shape[1]] = half
        if x + half.shape[1] < region.width or y + half.shape[0] < region.height:
            return []
        del self._open_tiles[key]
        self._keep_overview(*key, tile)
        return self._encode_tiles(*key, tile) + self._raise_half(level + 1, key[1], key[2], halve_pixels(tile))

    # -- directories and index -------------------------------------------------------------------------------------

    def _write_directories(self, file: BinaryIO, end: int) -> None:
        text = tiff_tags.description(self.sizes[0], TILE_SIDE, steps_text(), self.mpp)
        at = first = end + -end % 16
        file.write(bytes(at - end))
        for level, size in enumerate(self.sizes):
            tiles = tiff_tags.LevelTiles(
                size, self.offsets[level].ravel().tolist(), self.lengths[level].ravel().tolist()
            )
            at += file.write(
                tiff_tags.directory(
                    at,
                    tiles,
                    text=text,
                    mpp=self.mpp * self.sizes[0].width / size.width,
                    tile_side=TILE_SIDE,
                    chroma_step=CHROMA_STEP,
                    last=level == len(self.sizes) - 1,
                )
            )
        file.seek(0)
        file.write(tiff_tags.header(first))

    def _write_index(self) -> None:
        records = bytearray(INDEX_MAGIC)
        for offsets, lengths, checks in zip(self.offsets, self.lengths, self.checks, strict=True):
            for offset, length, check in zip(offsets.flat, lengths.flat, checks.flat, strict=True):
                records += RECORD.pack(int(offset), int(length), check.tobytes())
        with (self.folder / INDEX_FILE).open("wb") as file:
            file.write(bytes(records) + checksum(bytes(records)))
            file.flush()
            os.fsync(file.fileno())


def thread_count() -> int:
    """Threads for the conversion: the cores this process may use, at most MAX_THREADS (each holds a block or two)."""
    return min(MAX_THREADS, len(os.sched_getaffinity(0)))


def z_order(grid: Size) -> list[tuple[int, int]]:
    """All (column, row) of a grid in Z order, so that the four parts of any tile above come together."""

    def interleave(cell: tuple[int, int]) -> int:
        return sum((cell[0] >> bit & 1) << 2 * bit | (cell[1] >> bit & 1) << 2 * bit + 1 for bit in range(20))

    return sorted(((col, row) for row in range(grid.height) for col in range(grid.width)), key=interleave)


def pad_tile(pixels: np.ndarray, side: int = TILE_SIDE) -> np.ndarray:
    """`pixels` as a full contiguous tile, its last column and row repeated."""
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return np.ascontiguousarray(pixels)
    return cv2.copyMakeBorder(pixels, 0, side - height, 0, side - width, cv2.BORDER_REPLICATE)
