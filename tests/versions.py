"""Slide versions made from arrays without an ingestion: for tests of what reads them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ml.geometry import Region, Size, ceil_div, clip, halve, pyramid_sizes
from wsi_ml.slides.card import CARD_FILE, INDEX_FILE, PYRAMID_FILE, THUMBNAIL_FILE, Card, SourceFacts
from wsi_ml.slides.codec import encode_jpeg, encode_steps, steps_text
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.library import STAGING_FOLDER, Library
from wsi_ml.slides.pyramid import INDEX_MAGIC, RECORD, checksum


@dataclass(frozen=True)
class FakeNetwork:
    """Facts of a network that does not exist: enough for the tile path."""

    name: str = "sr-fake"
    kind: str = "sr"
    sha256: str = "ab" * 32
    mpp_range: tuple[float, float] = (0.4, 0.62)


def smooth_picture(size: Size, seed: int = 0) -> np.ndarray:
    """A smooth colour picture that JPEG keeps within a few grey levels, RGB uint8; different everywhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size.height, : size.width]
    phases = rng.uniform(0, 6.28, 6)
    waves = [
        128 + 90 * np.sin(x / (40 + 9 * c) + phases[c]) * np.cos(y / (33 + 7 * c) + phases[c + 3]) for c in range(3)
    ]
    return np.stack(waves, -1).astype(np.uint8)


def stage_version(folder: Path, stored: np.ndarray, base_size: Size, stored_mpp: float = 0.5, salt: str = "") -> Card:
    """Write the files of a version whose stored plane is `stored`; gives its card."""
    folder.mkdir()
    stored_size = Size(stored.shape[1], stored.shape[0])
    sizes = pyramid_sizes(stored_size)
    records, tiles, pixels = b"", b"", stored
    for size in sizes:
        for t_row in range(ceil_div(size.height, 512)):
            for t_col in range(ceil_div(size.width, 512)):
                part = clip(Region(t_col * 512, t_row * 512, 512, 512), size)
                tile = pixels[part.y : part.y_end, part.x : part.x_end]
                tile = np.pad(tile, ((0, 512 - part.height), (0, 512 - part.width), (0, 0)), mode="edge")
                data = encode_steps(tile)
                records += RECORD.pack(len(tiles), len(data), checksum(data))
                tiles += data
        pixels = halve_pixels(pixels)
    index = INDEX_MAGIC + records
    (folder / PYRAMID_FILE).write_bytes(tiles)
    (folder / INDEX_FILE).write_bytes(index + checksum(index))
    (folder / THUMBNAIL_FILE).write_bytes(encode_jpeg(stored[:64, :64]))
    digest = hashlib.sha256(index + f"{base_size}{stored_mpp}{salt}".encode()).hexdigest()
    card = Card(
        version=digest[:16], stored_size=stored_size, base_size=base_size, stored_mpp=stored_mpp, levels=sizes,
        encoding=steps_text(), kernel="box2", icc="none",
        source=SourceFacts(digest, 1, "test", base_size, stored_mpp / 2, False, 40.0, (0, 0), 0, 1),
        pyramid_bytes=len(tiles), pyramid_sha256=hashlib.sha256(tiles).hexdigest(), ingest_key=digest,
        created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    (folder / CARD_FILE).write_text(json.dumps(card.to_json()))
    return card


def add_slide(
    library: Library, name: str, base_size: Size, *, seed: int = 0, stored_mpp: float = 0.5, slide_id: str | None = None
) -> tuple[str, str, np.ndarray]:
    """Add a slide of a smooth picture, or a version of one; gives slide id, version and the stored picture."""
    stored = smooth_picture(halve(base_size), seed)
    folder = library.root / STAGING_FOLDER / f"{name}-{seed}"
    card = stage_version(folder, stored, base_size, stored_mpp)
    return library.add(folder, card, name, slide_id), card.version, stored
