"""Planes, sizes, regions and Deep Zoom arithmetic: pure integer functions, no I/O.

Planes (the pixel grid a coordinate lives in) and the prefixes that local names carry:

* `base_`   the base plane, ×40, the size of the scan (for a ×20 scan twice the stored size)
* `stored_` the stored plane, level 0 of the pyramid, ×20
* `l0_`     level 0 of the vendor's scan; `scan_` the vendor level that ingestion reads
* `z_`      the plane of one Deep Zoom level; `t_col`, `t_row` count tiles in it
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from wsi_ml.errors import OutsideError

TILE_SIDE = 512
LEVEL_TOLERANCE = 0.01


class Size(NamedTuple):
    """Width and height in pixels of one plane."""

    width: int
    height: int


class Region(NamedTuple):
    """An axis-parallel box of pixels in one plane: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def x_end(self) -> int:
        """First column to the right of the region."""
        return self.x + self.width

    @property
    def y_end(self) -> int:
        """First row below the region."""
        return self.y + self.height


def ceil_div(number: int, divisor: int) -> int:
    """Quotient of two positive integers, rounded up."""
    return -(-number // divisor)


def halve(size: Size, times: int = 1) -> Size:
    """Size after `times` exact halvings, each rounded up (a 1-px side stays 1)."""
    step = 1 << times
    return Size(ceil_div(size.width, step), ceil_div(size.height, step))


def pyramid_sizes(stored_size: Size, tile_side: int = TILE_SIDE) -> list[Size]:
    """Sizes of the stored levels, largest first, down to the first that fits one tile."""
    sizes = [stored_size]
    while max(sizes[-1]) > tile_side:
        sizes.append(halve(sizes[-1]))
    return sizes


def clip(region: Region, size: Size) -> Region:
    """The part of `region` inside a plane of `size`; raises OutsideError when nothing is left."""
    x, y = max(region.x, 0), max(region.y, 0)
    width, height = min(region.x_end, size.width) - x, min(region.y_end, size.height) - y
    if width <= 0 or height <= 0:
        raise OutsideError(f"The region {tuple(region)} lies outside the plane of {size.width} × {size.height} px.")
    return Region(x, y, width, height)


def grow(region: Region, halo: int, size: Size) -> Region:
    """`region` with `halo` pixels on every side, clipped to a plane of `size`."""
    return clip(Region(region.x - halo, region.y - halo, region.width + 2 * halo, region.height + 2 * halo), size)


def power_of_two_steps(ratio: float) -> int:
    """Whole halvings nearest to a downsample `ratio` ≥ 1, never negative: 2.0001 → 1, 3.9 → 2, 0.98 → 0."""
    return max(0, round(math.log2(ratio)))


def is_close_level(ratio: float, wanted: float, tolerance: float = LEVEL_TOLERANCE) -> bool:
    """True when two downsamples are the same level but for rounding of sizes (2.0001 is 2)."""
    return abs(ratio / wanted - 1.0) <= tolerance


@dataclass(frozen=True)
class DeepZoom:
    """Deep Zoom pyramid over a plane: level `top` is the plane itself, level 0 is 1 × 1, overlap 0.

    A plane of half the size (rounded up) has the same levels less the top one, under the same numbers, so the tile
    addresses of the stored plane and of the base plane agree below the top (for planes wider or taller than 1 px).
    """

    size: Size
    tile_side: int = TILE_SIDE

    @property
    def top(self) -> int:
        """Number of the largest level."""
        return (max(self.size) - 1).bit_length()

    def level_size(self, z_level: int) -> Size:
        """Size of one level; raises OutsideError for a level that does not exist."""
        if not 0 <= z_level <= self.top:
            raise OutsideError(f"Level {z_level} does not exist: levels are 0 to {self.top}.")
        return halve(self.size, self.top - z_level)

    def tile_counts(self, z_level: int) -> Size:
        """Columns and rows of tiles in one level."""
        z_size = self.level_size(z_level)
        return Size(ceil_div(z_size.width, self.tile_side), ceil_div(z_size.height, self.tile_side))

    def tile_region(self, z_level: int, t_col: int, t_row: int) -> Region:
        """The pixels of one tile in its level's plane; raises OutsideError for an address outside."""
        z_size = self.level_size(z_level)
        z_x, z_y = t_col * self.tile_side, t_row * self.tile_side
        if not (0 <= z_x < z_size.width and 0 <= z_y < z_size.height):
            raise OutsideError(
                f"Tile {t_col}_{t_row} lies outside level {z_level} of {z_size.width} × {z_size.height} px."
            )
        return Region(z_x, z_y, min(self.tile_side, z_size.width - z_x), min(self.tile_side, z_size.height - z_y))
