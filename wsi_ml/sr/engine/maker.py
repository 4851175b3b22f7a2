"""From tile keys to encoded tiles: stored pixels, model, fallback, cache. Runs in the engine's maker threads."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import cachetools
import numpy as np

from wsi_ml.errors import ModelOutputError, OcularError, UnknownVersionError
from wsi_ml.geometry import Region
from wsi_ml.slides.library import SLIDES_FOLDER
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.slides.tile_cache import TileCache, TileCacheReader
from wsi_ml.sr.engine.models import Models, Runner
from wsi_ml.sr.synthesis import (
    BICUBIC,
    DecodedTiles,
    MadeTile,
    TileKey,
    check_output,
    fallback_provenance,
    finish_tile,
    provenance,
    tile_input,
)

log = logging.getLogger("ocular.engine")

OPEN_PYRAMIDS = 32

Outcome = MadeTile | OcularError
Input = tuple[np.ndarray, Region]
"""Stored pixels with their halo, and the crop to take of their upscaled picture."""


class TileMaker:
    """Makes tiles of one library; any number of threads may call `make`."""

    def __init__(self, library_root: Path, models: Models, cache: TileCache, decoded_bytes: int):
        self.models = models
        self.cache = cache
        self.computed = self.fallbacks = self.failed = 0
        self._reader = TileCacheReader(cache.folder)
        self._slides = library_root / SLIDES_FOLDER
        self._decoded = DecodedTiles(decoded_bytes)
        self._pyramids: cachetools.LRUCache[str, Pyramid] = cachetools.LRUCache(OPEN_PYRAMIDS)
        self._lock = threading.Lock()

    def limit(self, key: TileKey) -> int:
        """How many tiles of this key's model may be made in one call; 1 while the model is not loaded."""
        runner = self.models.loaded(key.upscaler)
        return runner.batch if runner is not None else 1

    def facts(self) -> dict[str, int]:
        """Counters: tiles computed (fallbacks not among them), fallbacks, errors."""
        return {"computed": self.computed, "fallbacks": self.fallbacks, "failed": self.failed}

    def make(self, keys: list[TileKey], threads: int = 0) -> list[Outcome]:
        """The tile, or the named error, for each key; all keys name the same upscaler.

        `threads` CPU threads may work for the calling thread; 0 leaves that as it is.
        """
        # A tile may have been finished between the asking and now.
        found = {key: data for key in keys if (data := self._reader.get(key.text)) is not None}
        outcomes: dict[TileKey, Outcome] = {
            key: MadeTile(data, provenance(key.upscaler, key.sha256)) for key, data in found.items()
        }
        wanted = [key for key in keys if key not in found]
        if wanted:
            try:
                # Asked for once: no replacement can get between the check of the model's hash and its use.
                runner = self.models.runner(wanted[0].upscaler, wanted[0].sha256)
            except OcularError as error:
                outcomes |= {key: self._failure(error) for key in wanted}
            else:
                outcomes |= self._compute(runner, wanted, threads)
        return [outcomes[key] for key in keys]

    def _compute(self, runner: Runner, keys: list[TileKey], threads: int) -> dict[TileKey, Outcome]:
        outcomes: dict[TileKey, Outcome] = {}
        inputs: dict[TileKey, Input] = {}
        for key in keys:
            try:
                inputs[key] = tile_input(self._pyramid(key.version), runner.upscaler.card, key, self._decoded)
            except OcularError as error:
                outcomes[key] = self._failure(error)
        for group in _by_shape(inputs):
            try:
                pictures = runner.run([rgb for rgb, _ in group.values()], threads)
            except ModelOutputError as error:
                outcomes |= {key: self._fall_back(key, error) for key in group}
            except OcularError as error:
                outcomes |= {key: self._failure(error) for key in group}
            else:
                for (key, made_of), picture in zip(group.items(), pictures, strict=True):
                    outcomes[key] = self._finish(key, made_of, picture, runner.upscaler.card.scale)
        return outcomes

    def _finish(self, key: TileKey, made_of: Input, upscaled: np.ndarray, scale: int) -> Outcome:
        rgb, crop = made_of
        try:
            check_output(rgb, upscaled, scale)
        except ModelOutputError as error:
            return self._fall_back(key, error)
        data = finish_tile(key, upscaled, crop)
        self.computed += 1
        self.cache.put(key.text, data)
        return MadeTile(data, provenance(key.upscaler, key.sha256))

    def _fall_back(self, key: TileKey, error: ModelOutputError) -> Outcome:
        """The tile by interpolation, marked as standing in; never cached."""
        if key.upscaler == BICUBIC:
            return self._failure(error)
        log.error("tile falls back to %s: %s", BICUBIC, error)
        try:
            bicubic = self.models.runner(BICUBIC).upscaler
            rgb, crop = tile_input(self._pyramid(key.version), bicubic.card, key, self._decoded)
            data = finish_tile(key, bicubic(rgb), crop)
        except OcularError as second:
            return self._failure(second)
        self.fallbacks += 1
        return MadeTile(data, fallback_provenance(key.upscaler, error.code), True)

    def _failure(self, error: OcularError) -> OcularError:
        self.failed += 1
        return error

    def _pyramid(self, version: str) -> Pyramid:
        with self._lock:
            pyramid = self._pyramids.get(version)
            if pyramid is None:
                folder = self._slides / version
                if not folder.is_dir():
                    raise UnknownVersionError("The slide has no such version.")
                pyramid = self._pyramids[version] = Pyramid(folder)
            return pyramid


def _by_shape(inputs: dict[TileKey, Input]) -> list[dict[TileKey, Input]]:
    groups: dict[tuple[int, ...], dict[TileKey, Input]] = {}
    for key, made_of in inputs.items():
        groups.setdefault(made_of[0].shape, {})[key] = made_of
    return list(groups.values())
