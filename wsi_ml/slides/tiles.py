"""The one story of a tile: from its address to the stored bytes, or to what has to be made for it.

Everything a request needs of a slide version is worked out when the version is opened, so a request is a look-up:
`VersionTiles.plan` answers with one of three plans and touches no file.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import cachetools
import numpy as np

from wsi_ml.errors import LibraryError, ModelReplacedError, SourceUnavailableError
from wsi_ml.geometry import DeepZoom, Region
from wsi_ml.licences import is_free
from wsi_ml.slides.codec import encode, encode_jpeg
from wsi_ml.slides.kept import KeptTiles
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.library import Library, LibraryWatch
from wsi_ml.slides.pyramid import Pyramid

STORED, AUTO, SCAN = "stored", "auto", "scan"
PIN_DIGITS = 12
MADE_CACHE_BYTES = 64 << 20
DERIVED_QUALITY = 98
"""JPEG quality of cropped and halved tiles, without chroma subsampling: few tiles, and the pass must not be seen."""
REFRESH_SECONDS = 0.5


class UpscalerFacts(Protocol):
    """What the tile path has to know of an upscaler; `wsi_ml.sr.upscaler.UpscalerCard` is one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def mpp_range(self) -> tuple[float, float]: ...  # noqa: D102


Facts = TypeVar("Facts", bound=UpscalerFacts)
Offer = Callable[[], Sequence[UpscalerFacts]]
"""Gives the upscalers at hand now; the same object while nothing has changed."""


class StoredTile(NamedTuple):
    """The bytes of one stored tile answer as they are."""

    level: int
    t_col: int
    t_row: int


class DerivedTile(NamedTuple):
    """A tile of stored pixels that must be cropped, halved or encoded first: `level` may lie beyond the stored ones."""

    level: int
    t_col: int
    t_row: int
    extension: str


class SynthesisedTile(NamedTuple):
    """A ×40 tile that an upscaler has to make; the address counts tiles of the base plane."""

    upscaler: str
    sha256: str
    t_col: int
    t_row: int
    extension: str


class KeptTile(NamedTuple):
    """A ×40 tile of the scan that was kept; the address counts tiles of the base plane."""

    t_col: int
    t_row: int
    extension: str


Plan = StoredTile | DerivedTile | SynthesisedTile | KeptTile


@dataclass(frozen=True)
class Source:
    """A source of pixels that a slide version offers."""

    name: str
    """Word in the address without a pin: `stored`, `bicubic`, `sr-fast`, `scan`, `auto`."""
    deep_zoom: DeepZoom
    upscaler: UpscalerFacts | None
    """Maker of the ×40 level; None where none of it is made (`stored`, `scan`)."""
    kept: KeptTiles | None = None
    """The scan's own ×40 tiles: all that `scan` has at the top, and what `auto` prefers to synthesis."""

    @property
    def pin(self) -> str:
        """First digits of the hash of what the pixels come from, model and kept tiles; empty for stored ones."""
        hashes = [self.kept.facts.key] if self.kept else []
        hashes += [self.upscaler.sha256] if self.upscaler else []
        text = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        return text[:PIN_DIGITS] if hashes else ""

    @property
    def address(self) -> str:
        """Word of the address that never shows other pixels: `stored`, `sr-fast@0123456789ab`."""
        return f"{self.name}@{self.pin}" if self.pin else self.name


def best_upscaler(upscalers: Iterable[Facts], stored_mpp: float, sha256: str | None = None) -> Facts | None:
    """The network that `auto` shows on a slide of that µm/px, None where none is meant for it.

    The first one offered whose licence is not for research only: such a one is never a default. Or the one of hash
    `sha256` (which kept tiles were compared with) where it is among them.
    """
    fitting = [each for each in upscalers if each.kind == "sr" and each.mpp_range[0] <= stored_mpp <= each.mpp_range[1]]
    free = [each for each in fitting if is_free(each)]
    return next((each for each in fitting if each.sha256 == sha256), free[0] if free else None)


class VersionTiles:
    """Tiles of one slide version; shared by all threads."""

    def __init__(self, pyramid: Pyramid, upscalers: Iterable[UpscalerFacts], kept: KeptTiles | None = None):
        self.pyramid = pyramid
        self.card = pyramid.card
        self.kept = kept
        self.stored = DeepZoom(self.card.stored_size, self.card.tile_side)
        self.base = DeepZoom(self.card.base_size, self.card.tile_side)
        self.sources = {source.name: source for source in self._offered(list(upscalers))}
        self._made: cachetools.LRUCache[DerivedTile, bytes] = cachetools.LRUCache(MADE_CACHE_BYTES, len)
        self._made_lock = threading.Lock()

    def _offered(self, upscalers: list[UpscalerFacts]) -> list[Source]:
        sources = [Source(STORED, self.stored, None)]
        fitting = [each for each in upscalers if each.mpp_range[0] <= self.card.stored_mpp <= each.mpp_range[1]]
        sources += [Source(each.name, self.base, each) for each in fitting]
        sources += [Source(SCAN, self.base, None, self.kept)] if self.kept else []
        best = best_upscaler(upscalers, self.card.stored_mpp, self.kept.facts.model_sha256 if self.kept else None)
        return [*sources, Source(AUTO, self.base, best, self.kept) if best else Source(AUTO, self.stored, None)]

    def source(self, address: str) -> Source:
        """The source an address names; raises SourceUnavailableError, or ModelReplacedError for another pin."""
        name, _, pin = address.partition("@")
        source = self.sources.get(name)
        if source is None:
            raise SourceUnavailableError(f"This slide offers no source “{name}”: it has {', '.join(self.sources)}.")
        if pin and pin != source.pin:
            raise ModelReplacedError(
                f"What “{address}” names (a model or kept tiles) has been replaced; ask for the slide's card again."
            )
        return source

    def plan(self, source: Source, z_level: int, t_col: int, t_row: int, extension: str) -> Plan:
        """How one tile comes about.

        Raises OutsideError for an address outside the source's levels, TileNotKeptError where `scan` has no tile.
        """
        region = source.deep_zoom.tile_region(z_level, t_col, t_row)
        level = source.deep_zoom.top - z_level
        if source.deep_zoom is self.base:
            if level == 0:
                return _top_plan(source, t_col, t_row, extension)
            level -= 1
        side = self.card.tile_side
        if extension == "jpg" and region.width == region.height == side and level < len(self.card.levels):
            return StoredTile(level, t_col, t_row)
        return DerivedTile(level, t_col, t_row, extension)

    def make(self, plan: DerivedTile) -> bytes:
        """Bytes of a cropped, halved or re-encoded tile, from memory where they were made before.

        A crop is a second JPEG pass, so it is encoded finely: its pixels stay within 3 grey levels of the stored ones.
        Raises DamagedError.
        """
        with self._made_lock:
            data = self._made.get(plan)
        if data is None:
            pixels = self._stored_pixels(plan.level, plan.t_col, plan.t_row)
            if plan.extension == "jpg":
                data = encode_jpeg(pixels, DERIVED_QUALITY, "444")
            else:
                data = encode(pixels, plan.extension)
            with self._made_lock:
                self._made[plan] = data
        return data

    def kept_bytes(self, plan: KeptTile) -> bytes:
        """Bytes of a kept tile: as they lie on disk, or its pixels in another format; raises DamagedError."""
        if self.kept is None:
            raise SourceUnavailableError("This slide version has no kept tiles.")
        if plan.extension == "jpg":
            return self.kept.tile_bytes(plan.t_col, plan.t_row)
        return encode(self.kept.tile_pixels(plan.t_col, plan.t_row), plan.extension)

    def _stored_pixels(self, level: int, t_col: int, t_row: int) -> np.ndarray:
        last = len(self.card.levels) - 1
        if level <= last:
            return self.pyramid.tile_pixels(level, t_col, t_row)
        pixels = self.pyramid.region(Region(0, 0, *self.card.levels[last]), last)
        for _ in range(level - last):
            pixels = halve_pixels(pixels)
        return pixels


def _top_plan(source: Source, t_col: int, t_row: int, extension: str) -> Plan:
    """Plan for a tile of the ×40 level: the scan's own where it is kept, else synthesis where the source offers it."""
    kept, upscaler = source.kept, source.upscaler
    if upscaler is not None and not (kept and kept.has(t_col, t_row)):
        return SynthesisedTile(upscaler.name, upscaler.sha256, t_col, t_row, extension)
    if kept is not None:
        kept.require(t_col, t_row)
    return KeptTile(t_col, t_row, extension)


class OpenVersions:
    """Slide versions that are open in this process; sees removals and new models within half a second."""

    def __init__(self, library: Library, upscalers: Offer | Iterable[UpscalerFacts], capacity: int = 256):
        self.library = library
        given = upscalers if callable(upscalers) else list(upscalers)
        self._offer: Offer = given if callable(given) else lambda: given
        self._upscalers = self._offer()
        self._capacity = capacity
        self._open: dict[tuple[str, str], VersionTiles] = {}
        self._lock = threading.Lock()
        self._watch = LibraryWatch(library)
        self._refreshed = time.monotonic()

    def get(self, slide_id: str, version: str) -> VersionTiles:
        """The open version; raises UnknownSlideError, UnknownVersionError, RemovedError or LibraryError."""
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self._refresh()
        tiles = self._open.get((slide_id, version))
        return tiles if tiles is not None else self._open_version(slide_id, version)

    def _open_version(self, slide_id: str, version: str) -> VersionTiles:
        folder = self.library.folder(slide_id, version)
        with self._lock:
            tiles = self._open.get((slide_id, version))
            if tiles is None:
                if len(self._open) >= self._capacity:
                    self._open.clear()
                kept = self._kept_tiles(version)
                tiles = self._open[(slide_id, version)] = VersionTiles(Pyramid(folder), self._upscalers, kept)
        return tiles

    def _kept_tiles(self, version: str) -> KeptTiles | None:
        """Kept tiles of a version; damaged ones cost the source `scan`, never the viewing of stored pixels."""
        try:
            return self.library.kept_tiles(version)
        except LibraryError:
            return None

    def _refresh(self) -> None:
        """Forget every open version when library or models have changed; reopening one costs a millisecond."""
        with self._lock:
            self._refreshed = time.monotonic()
            upscalers = self._offer()
            if self._watch.changed() or upscalers is not self._upscalers:
                self._upscalers = upscalers
                self._open.clear()
