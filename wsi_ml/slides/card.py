"""The card of a slide version: every fact about one immutable ingestion, written beside its pyramid as `card.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_ml.errors import LibraryError
from wsi_ml.geometry import TILE_SIDE, Size

CARD_FORMAT = 2
"""Format 1 stated `jpeg_quality` and `jpeg_subsampling` in place of `encoding`; such cards are still read."""
CARD_FILE = "card.json"
PYRAMID_FILE = "pyramid.tif"
INDEX_FILE = "tiles.idx"
THUMBNAIL_FILE = "thumbnail.jpg"
PRIVATE_FOLDER = "private"


@dataclass(frozen=True)
class SourceFacts:
    """What was read: the vendor file as it stood at ingestion. Holds no names, dates or other vendor text."""

    sha256: str
    """SHA-256 of the file (of all files in name order for a slide of several), hex."""
    bytes: int
    """Size of the file or files in bytes."""
    vendor: str
    """OpenSlide's vendor word: `aperio`, `dicom`, `generic-tiff` …"""
    l0_size: Size
    """Size of level 0 in pixels, before trimming to the bounds."""
    l0_mpp: float
    """µm per pixel of level 0 (mean of x and y), from the file or from `--mpp`."""
    mpp_given: bool
    """True when the µm/px came from `--mpp` and not from the file."""
    objective_power: float | None
    """Objective power the file states, if any."""
    l0_bounds_offset: tuple[int, int]
    """Left and top of `openslide.bounds-*` in level-0 pixels: what was trimmed away; (0, 0) without bounds."""
    level: int
    """Vendor level that was read."""
    halvings: int
    """How often the kernel halved that level to reach the stored plane."""


@dataclass(frozen=True)
class Card:
    """Facts of one slide version; sizes in pixels, mpp in µm per pixel."""

    version: str
    """16 hex digits: content hash of the stored tiles, the geometry and the source file."""
    stored_size: Size
    """Size of the stored plane, pyramid level 0."""
    base_size: Size
    """Size of the base plane (×40): 2·stored, less one pixel where the scan's side was odd."""
    stored_mpp: float
    """µm per pixel of the stored plane."""
    levels: list[Size]
    """Sizes of the stored levels, largest first."""
    encoding: str
    """How the stored tiles are encoded, in words: `JPEG steps 5/7 4:4:4`; `JPEG quality 95 4:2:0` in older versions."""
    kernel: str
    """Name of the downsampling kernel: `box2`, or `box2+dct` when tiles were decoded at half size by DCT scaling."""
    icc: str
    """`none` (no profile in the file), `srgb` (profile already sRGB), or `applied: <rendering intent>`."""
    source: SourceFacts
    pyramid_bytes: int
    pyramid_sha256: str
    """SHA-256 of `pyramid.tif`, hex."""
    ingest_key: str
    """SHA-256 over the source's hash and every ingestion parameter: the same key means no work to do."""
    created: str
    """UTC time of the ingestion, ISO 8601."""
    associated: list[str] = field(default_factory=list)
    """Names of guarded associated images kept apart (`label`, `macro`, `thumbnail`)."""
    tile_side: int = TILE_SIDE
    format: int = CARD_FORMAT

    @property
    def base_mpp(self) -> float:
        """µm per pixel of the base plane."""
        return self.stored_mpp / 2

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values."""
        return dataclasses.asdict(self)


def card_from_json(value: dict[str, Any]) -> Card:
    """Card of its JSON values, of this format or format 1; raises LibraryError for missing fields or another format."""
    if value.get("format") not in (1, CARD_FORMAT):
        raise LibraryError(
            f"This slide card has format {value.get('format')!r}; this Ocular reads formats 1 to {CARD_FORMAT}."
        )
    try:
        if value["format"] == 1:
            value = _renewed(value)
        source = value["source"]
        source = SourceFacts(
            **{**source, "l0_size": Size(*source["l0_size"]), "l0_bounds_offset": tuple(source["l0_bounds_offset"])}
        )
        sizes = {name: Size(*value[name]) for name in ("stored_size", "base_size")}
        return Card(**{**value, **sizes, "levels": [Size(*level) for level in value["levels"]], "source": source})
    except (KeyError, TypeError) as error:
        raise LibraryError(f"The slide card is damaged: {error}.") from error


def _renewed(value: dict[str, Any]) -> dict[str, Any]:
    """JSON values of a card of format 1 as this format has them."""
    quality, subsampling = value["jpeg_quality"], value["jpeg_subsampling"]
    kept = {name: fact for name, fact in value.items() if name not in ("jpeg_quality", "jpeg_subsampling")}
    return kept | {"encoding": f"JPEG quality {quality} {':'.join(subsampling)}", "format": CARD_FORMAT}


def read_card(folder: Path) -> Card:
    """Card in a version's folder; raises LibraryError when it is missing or damaged."""
    try:
        return card_from_json(json.loads((folder / CARD_FILE).read_bytes()))
    except (OSError, ValueError) as error:
        raise LibraryError(f"The card of version {folder.name} cannot be read: {type(error).__name__}.") from error
