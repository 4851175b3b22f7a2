"""Fast path: the JPEG tiles of a TIFF scan, decoded without OpenSlide, at half size by scaling inside the DCT.

A tile is read with pread and, where the scan is halved, decoded to half its side without ever being whole. That skips
most of the inverse transform and all of OpenSlide's painting, its largest cost. Half-size decoding is close to, but
not the same as, the 2 × 2 mean; the card says `box2+dct`. Whatever is unusual in a file sends it down the ordinary way,
and sample tiles are compared with OpenSlide's own pixels first, so a wrong colour interpretation cannot pass.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import numpy as np
import simplejpeg

from wsi_ml.errors import IngestError
from wsi_ml.geometry import Region, Size, ceil_div, halve
from wsi_ml.slides.colour import ToSrgb
from wsi_ml.slides.kernel import KERNEL, halve_pixels
from wsi_ml.slides.plan import Plan, ScanFacts
from wsi_ml.slides.scan import Scan
from wsi_ml.slides.tiff_header import (
    BITS,
    COMPRESSION,
    HEIGHT,
    JPEG_TABLES,
    PHOTOMETRIC,
    PLANAR,
    SAMPLES,
    TILE_HEIGHT,
    TILE_LENGTHS,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    Directory,
    TiffHeader,
)

KERNEL_DCT = f"{KERNEL}+dct"
JPEG, RGB, YCBCR = 7, 2, 6
VENDORS = ("aperio", "generic-tiff")
CHECKED_TILES = 5
MAX_DIFFERENCE = 1.0
"""Mean grey-level difference from OpenSlide's pixels that a sample tile may show (decoders round differently)."""
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


class JpegTiles:
    """The JPEG tiles of level 0 of a TIFF scan as byte ranges, each made a complete JPEG on reading."""

    def __init__(self, tiff: TiffHeader, page: Directory, descriptor: int):
        self.size = Size(tiff.first(page, WIDTH), tiff.first(page, HEIGHT))
        self.tile = Size(tiff.first(page, TILE_WIDTH), tiff.first(page, TILE_HEIGHT))
        self.across = ceil_div(self.size.width, self.tile.width)
        self.offsets = tiff.integers(page, TILE_OFFSETS).tolist()
        self.lengths = tiff.integers(page, TILE_LENGTHS).tolist()
        self._descriptor = descriptor
        # The marker says which colours the three components are: TIFF tiles need not say so themselves.
        adobe = ADOBE + (b"\x01" if tiff.first(page, PHOTOMETRIC) == YCBCR else b"\x00")
        self._prefix = b"\xff\xd8" + adobe + tiff.raw(page, JPEG_TABLES)[2:-2]

    def decode(self, t_col: int, t_row: int, half: bool) -> np.ndarray:
        """RGB uint8 of one tile, whole or at half size; raises IngestError naming the tile when it is damaged."""
        number = t_row * self.across + t_col
        data = os.pread(self._descriptor, self.lengths[number], self.offsets[number])
        factor = 2 if half else 1
        try:
            size = {"min_height": self.tile.height // 2, "min_width": self.tile.width // 2} if half else {}
            pixels = simplejpeg.decode_jpeg(self._prefix + data[2:], "RGB", min_factor=factor, **size)
        except ValueError as error:
            raise _damaged(t_col, t_row) from error
        if pixels.shape != (self.tile.height // factor, self.tile.width // factor, 3):
            raise _damaged(t_col, t_row)
        return pixels


class JpegPixels:
    """Pixels of the stored plane from JPEG tiles; the fast twin of scan.ScanPixels. Use `JpegFile.pixels`."""

    def __init__(self, tiles: JpegTiles, plan: Plan, colour: ToSrgb, dct: bool):
        self.tiles = tiles
        self.plan = plan
        self.colour = colour
        self.dct = dct and plan.halvings > 0
        self.kernel = KERNEL_DCT if self.dct else KERNEL
        # One halving is made tile by tile (by the DCT or by the kernel), any others on the pixels joined.
        self._tile_steps = min(1, plan.halvings)
        self._joined_steps = plan.halvings - self._tile_steps
        self._size = halve(tiles.size, self._tile_steps)
        self._tile = Size(tiles.tile.width >> self._tile_steps, tiles.tile.height >> self._tile_steps)

    def __call__(self, stored_region: Region) -> np.ndarray:
        """RGB uint8 (sRGB) of a region of the stored plane."""
        x, y = stored_region.x << self._joined_steps, stored_region.y << self._joined_steps
        width = min(stored_region.width << self._joined_steps, self._size.width - x)
        height = min(stored_region.height << self._joined_steps, self._size.height - y)
        pixels = self._joined(Region(x, y, width, height))
        for _ in range(self._joined_steps):
            pixels = halve_pixels(pixels)
        return self.colour.apply(pixels)

    def _joined(self, region: Region) -> np.ndarray:
        """RGB of a region of the plane in which the tiles are joined (level 0, or half of it)."""
        result = np.empty((region.height, region.width, 3), np.uint8)
        width, height = self._tile
        for t_row in range(region.y // height, ceil_div(region.y_end, height)):
            for t_col in range(region.x // width, ceil_div(region.x_end, width)):
                pixels = self._tile_pixels(t_col, t_row)
                x, y = t_col * width - region.x, t_row * height - region.y
                part = pixels[max(0, -y) : region.height - y, max(0, -x) : region.width - x]
                top, left = max(0, y), max(0, x)
                result[top : top + part.shape[0], left : left + part.shape[1]] = part
        return result

    def _tile_pixels(self, t_col: int, t_row: int) -> np.ndarray:
        """One tile, halved where the plan halves at all, without its padding.

        A tile at the scan's right or bottom edge is decoded whole and halved by the kernel even on the fast way, else
        its padding would bleed into the last pixels.
        """
        inside_width = self.tiles.size.width - t_col * self.tiles.tile.width
        inside_height = self.tiles.size.height - t_row * self.tiles.tile.height
        if self.dct and inside_width >= self.tiles.tile.width and inside_height >= self.tiles.tile.height:
            return self.tiles.decode(t_col, t_row, half=True)
        pixels = self.tiles.decode(t_col, t_row, half=False)[:inside_height, :inside_width]
        return halve_pixels(pixels) if self._tile_steps else pixels


class JpegFile:
    """A TIFF scan opened for the fast path; a context manager around its file descriptor."""

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def pixels(self, scan: Scan, facts: ScanFacts, plan: Plan, colour: ToSrgb, dct: bool) -> JpegPixels | None:
        """The fast reader where it applies and agrees with OpenSlide, else None; `dct` allows half-size decoding."""
        if plan.scan_level != 0 or facts.vendor not in VENDORS:
            return None
        with TiffHeader(self._path) as tiff:
            page = next(tiff.directories())
            if not _is_usual(tiff, page, plan):
                return None
            tiles = JpegTiles(tiff, page, self._descriptor)
        if not _is_whole(tiles) or not agrees_with_openslide(tiles, scan):
            return None
        return JpegPixels(tiles, plan, colour, dct)


def _is_usual(tiff: TiffHeader, page: Directory, plan: Plan) -> bool:
    """True for 8-bit RGB or YCbCr in JPEG tiles that cover exactly the untrimmed scan."""
    return (
        Region(0, 0, tiff.first(page, WIDTH), tiff.first(page, HEIGHT)) == plan.l0_bounds
        and TILE_WIDTH in page.fields
        and tiff.first(page, COMPRESSION) == JPEG
        and tiff.first(page, PHOTOMETRIC) in (RGB, YCBCR)
        and tiff.integers(page, BITS).tolist() == [8, 8, 8]
        and tiff.first(page, SAMPLES) == 3
        and tiff.first(page, PLANAR, 1) == 1
    )


def _is_whole(tiles: JpegTiles) -> bool:
    """True when no tile is missing (scanners leave out empty ones; OpenSlide fills those in)."""
    count = tiles.across * ceil_div(tiles.size.height, tiles.tile.height)
    return len(tiles.offsets) == len(tiles.lengths) == count and min(tiles.lengths) > 4


def _damaged(t_col: int, t_row: int) -> IngestError:
    return IngestError(
        f"The scan is damaged: tile column {t_col}, row {t_row} of level 0 cannot be decoded; get the file again."
    )


def agrees_with_openslide(tiles: JpegTiles, scan: Scan) -> bool:
    """True when sample tiles, decoded whole here, have the pixels OpenSlide gives for the same place."""
    down = ceil_div(tiles.size.height, tiles.tile.height)
    for sample in range(CHECKED_TILES):
        t_col = round(sample * (tiles.across - 1) / (CHECKED_TILES - 1))
        t_row = round(sample * 7 % CHECKED_TILES * (down - 1) / (CHECKED_TILES - 1))
        x, y = t_col * tiles.tile.width, t_row * tiles.tile.height
        width = min(tiles.tile.width, tiles.size.width - x)
        height = min(tiles.tile.height, tiles.size.height - y)
        try:
            mine = tiles.decode(t_col, t_row, half=False)
        except IngestError:
            return False
        theirs = scan.read(0, Region(x, y, width, height))
        if np.abs(mine[:height, :width].astype(np.int16) - theirs).mean() > MAX_DIFFERENCE:
            return False
    return True
