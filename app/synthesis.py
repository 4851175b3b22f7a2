"""The way from a web process to synthesised tiles: the shared disk cache first, then the engine."""

from __future__ import annotations

from pathlib import Path

from wsi_ml.slides.tiles import PIN_DIGITS, SynthesisedTile

