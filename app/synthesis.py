"""The way from a web process to synthesised tiles: the shared disk cache first, then the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.settings import Settings
from wsi_ml.errors import DeadlineError, EngineUnavailableError
from wsi_ml.slides.library import CACHE_FOLDER
from wsi_ml.slides.tile_cache import TileCacheReader
from wsi_ml.slides.tiles import SynthesisedTile
from wsi_ml.sr.engine import BlockingEngineClient, EngineClient, socket_path
from wsi_ml.sr.synthesis import MadeTile, TileKey, provenance

HEALTH_DEADLINE_S = 1.0


class Synthesis:
    """Synthesised tiles as one web process gets them; holds no network and no thread."""

    def __init__(self, settings: Settings, library_root: Path):
        self._deadline_s = settings.sr_deadline_s
        self._cache = TileCacheReader(library_root / CACHE_FOLDER)
        path = socket_path(library_root)
        self._client = EngineClient(path)
        self._blocking = BlockingEngineClient(path)

    def provenance(self, plan: SynthesisedTile) -> str:
        """Value of `X-Tile-Source` for a tile that its own upscaler makes."""
        return provenance(plan.upscaler, plan.sha256)

    def cached(self, version: str, plan: SynthesisedTile) -> MadeTile | None:
        """The tile from the disk cache, checked, or None."""
        data = self._cache.get(_key(version, plan).text)
        return None if data is None else MadeTile(data, self.provenance(plan))

    async def make_async(self, version: str, plan: SynthesisedTile) -> MadeTile:
        """The tile from the engine; cancelling the await tells the engine. Raises the engine's named errors."""
        return await self._client.tile(_key(version, plan), self._deadline_s)

    def make(self, version: str, plan: SynthesisedTile) -> MadeTile:
        """As `make_async`, waiting in the calling thread."""
        return self._blocking.tile(_key(version, plan), self._deadline_s)

    def stats(self) -> dict[str, Any] | None:
        """What the engine says of itself, or None when it does not answer."""
        try:
            return self._blocking.stats(HEALTH_DEADLINE_S)
        except (EngineUnavailableError, DeadlineError):
            return None

    def close(self) -> None:
        """Let go of the connections."""
        self._blocking.close()


def _key(version: str, plan: SynthesisedTile) -> TileKey:
    return TileKey(version, plan.upscaler, plan.sha256, plan.t_col, plan.t_row, plan.extension)
