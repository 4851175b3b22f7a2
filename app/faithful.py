"""Faithful ×40 as the command line and the server show it: what was compared with the scan, and what was kept."""

from __future__ import annotations

from typing import Any

from wsi_ml.errors import LibraryError
from wsi_ml.slides.kept import KeptFacts
from wsi_ml.slides.library import Library


def faithful_json(library: Library, version: str) -> dict[str, Any] | None:
    """Facts of a version's comparison with its scan, None where there was none; damaged ones say `fault` alone."""
    try:
        tiles = library.kept_tiles(version)
    except LibraryError as error:
        return {"fault": str(error)}
    return None if tiles is None else tiles.facts.to_json()


def faithful_text(facts: dict[str, Any] | None) -> str:
    """The same for people, as lines below a slide's card; empty without a comparison."""
    if facts is None:
        return ""
    if "fault" in facts:
        return f"\n  ×40     {facts['fault']}"
    spread = ", ".join(f"{quantile_name(share)} {value:.3f}" for share, value in facts["quantiles"] if share < 1)
    return (
        f"\n  floor   SSIM {facts['floor']:g}: {facts['kept']} of {facts['tiles']} ×40 tiles "
        f"({facts['kept_share']:.1%}) kept as scanned, the others made by {facts['model']} "
        f"({facts['model_sha256'][:12]})\n"
        f"  kept    {facts['bytes_kept'] / 1e6:.1f} MB, {facts['bytes_saved'] / 1e6:.1f} MB less than all tiles\n"
        f"  SSIM    {spread}"
    )


def quantile_name(share: float) -> str:
    """Word for a share of the tiles: `least`, `1 %`, `median`."""
    return {0.0: "least", 0.5: "median", 1.0: "most"}.get(share, f"{100 * share:g} %")


def kept_json(facts: KeptFacts, created: bool) -> dict[str, Any]:
    """Facts of a comparison that was just asked for, for `ocular ingest --json`."""
    return {**facts.to_json(), "new": created}
