"""Synthesis of one ×40 tile: stored pixels with a halo → upscaler → exact crop → encoded bytes. No process, no queue.

Tiles are cut so that, joined, they equal the whole plane upscaled in one pass: the region an upscaler sees is grown by
its halo and clipped only where the slide itself ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cachetools
import numpy as np

from wsi_ml.errors import ModelOutputError
from wsi_ml.geometry import DeepZoom, Region, Size, ceil_div, grow
from wsi_ml.slides.codec import SERVED_QUALITY, encode
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.slides.tiles import PIN_DIGITS
from wsi_ml.sr.upscaler import Upscaler, UpscalerCard, refuse_one_colour

SYNTHESIS_CODE = 1
"""Part of every cache key: raised when the way tiles are cut, checked or encoded changes their pixels."""
BICUBIC = "bicubic"
"""The one upscaler that is plain interpolation; it stands in for a network that fails."""


@dataclass(frozen=True)
class TileKey:
    """Everything that makes the pixels of a synthesised tile; the address counts tiles of the base plane."""

    version: str
    upscaler: str
    sha256: str
    """Hash of the upscaler's weights, hex, whole."""
    t_col: int
    t_row: int
    extension: str = "jpg"
    quality: int = SERVED_QUALITY

    @property
    def text(self) -> str:
        """The key in the tile cache."""
        return (
            f"{self.version}/{self.upscaler}@{self.sha256}/top/{self.t_col}_{self.t_row}.{self.extension}"
            f"?quality={self.quality}&code={SYNTHESIS_CODE}"
        )


class MadeTile(NamedTuple):
    """An encoded tile, where its pixels come from (header `X-Tile-Source`), and whether it stands in for another."""

    data: bytes
    source: str
    fallback: bool = False


class TilePlan(NamedTuple):
    """Which stored pixels a tile needs and which part of their upscaled picture it is."""

    stored_region: Region
    """Pixels to read, halo included, in the stored plane."""
    crop: Region
    """The tile inside the upscaled picture of `stored_region`."""


def provenance(name: str, sha256: str) -> str:
    """Value of `X-Tile-Source` for pixels made by the upscaler of that name and hash."""
    return BICUBIC if name == BICUBIC else f"sr; model={name}; sha256={sha256[:PIN_DIGITS]}"


def fallback_provenance(name: str, reason: str) -> str:
    """Value of `X-Tile-Source` for bicubic pixels shown in place of what model `name` failed to make."""
    return f"{BICUBIC}; fallback-for={name}; reason={reason}"


def plan_tile(
    base_size: Size, stored_size: Size, tile_side: int, t_col: int, t_row: int, halo: int, scale: int = 2
) -> TilePlan:
    """Stored region and crop of one tile of the top Deep Zoom level; raises OutsideError for an address outside."""
    deep_zoom = DeepZoom(base_size, tile_side)
    base_region = deep_zoom.tile_region(deep_zoom.top, t_col, t_row)
    x, y = base_region.x // scale, base_region.y // scale
    x_end, y_end = ceil_div(base_region.x_end, scale), ceil_div(base_region.y_end, scale)
    stored_region = grow(Region(x, y, x_end - x, y_end - y), halo, stored_size)
    left, top = base_region.x - scale * stored_region.x, base_region.y - scale * stored_region.y
    return TilePlan(stored_region, Region(left, top, base_region.width, base_region.height))


class DecodedTiles:
    """Decoded stored tiles kept in memory, least recently used out first, shared by threads and slide versions.

    A synthesised tile reads up to nine stored ones for its halo, and its neighbours read the same.
    """

    def __init__(self, cap_bytes: int):
        self._tiles: cachetools.LRUCache[tuple, np.ndarray] = cachetools.LRUCache(max(1, cap_bytes), lambda a: a.nbytes)
        self._lock = threading.Lock()

    def reader(self, pyramid: Pyramid) -> Callable[[int, int, int], np.ndarray]:
        """`pyramid.tile_pixels` by way of this memory; callers must not write into what they get."""

        def read(level: int, t_col: int, t_row: int) -> np.ndarray:
            key = (pyramid.card.version, level, t_col, t_row)
            with self._lock:
                pixels = self._tiles.get(key)
            if pixels is None:
                pixels = pyramid.tile_pixels(level, t_col, t_row)
                if pixels.nbytes <= self._tiles.maxsize:
                    with self._lock:
                        self._tiles[key] = pixels
            return pixels

        return read


def tile_input(pyramid: Pyramid, card: UpscalerCard, key: TileKey, decoded: DecodedTiles) -> tuple[np.ndarray, Region]:
    """Stored pixels an upscaler needs for a tile, and the crop to take of its output; raises Outside-, DamagedError."""
    facts = pyramid.card
    plan = plan_tile(facts.base_size, facts.stored_size, facts.tile_side, key.t_col, key.t_row, card.halo, card.scale)
    return pyramid.region(plan.stored_region, tile_pixels=decoded.reader(pyramid)), plan.crop


def check_output(rgb: np.ndarray, upscaled: np.ndarray, scale: int) -> None:
    """Raise ModelOutputError for a wrong shape, NaN or infinite values, or one colour made of a picture."""
    expected = (rgb.shape[0] * scale, rgb.shape[1] * scale, 3)
    if upscaled.shape != expected:
        raise ModelOutputError(f"The model gave a picture of shape {upscaled.shape} in place of {expected}.")
    if upscaled.dtype != np.uint8:
        wrong = "NaN or infinite pixels" if not np.isfinite(upscaled).all() else f"{upscaled.dtype} pixels"
        raise ModelOutputError(f"The model gave {wrong}.")
    refuse_one_colour(rgb, upscaled)


def finish_tile(key: TileKey, upscaled: np.ndarray, crop: Region) -> bytes:
    """Encoded bytes of the tile that `crop` cuts out of an upscaled region."""
    return encode(upscaled[crop.y : crop.y_end, crop.x : crop.x_end], key.extension, key.quality)


def synthesise(pyramid: Pyramid, upscaler: Upscaler, key: TileKey, decoded: DecodedTiles) -> bytes:
    """Encoded bytes of one tile; raises OutsideError, DamagedError or ModelOutputError."""
    rgb, crop = tile_input(pyramid, upscaler.card, key, decoded)
    upscaled = upscaler(rgb)
    check_output(rgb, upscaled, upscaler.card.scale)
    return finish_tile(key, upscaled, crop)
