"""A slide and a layer of drawn nuclei for benchmarks of drawing: seeded, with the densities of real tissue."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import shapely

from wsi_ml.geometry import Size, ceil_div, halve, pyramid_sizes
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import Layer, NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.card import CARD_FILE, INDEX_FILE, PYRAMID_FILE, THUMBNAIL_FILE, Card, SourceFacts
from wsi_ml.slides.codec import encode_steps, steps_text
from wsi_ml.slides.library import STAGING_FOLDER, Library
from wsi_ml.slides.pyramid import INDEX_MAGIC, RECORD, checksum

CLASSES = ("Epithelial", "Inflammatory", "Neoplastic", "Stromal")
POINTS = 16
PITCH = 64
"""Base-plane pixels between nuclei in tissue: 16 µm, as in crowded tissue."""
_ROWS = 50_000
_TILES = 12


def add_slide(library: Library, name: str, size: Size) -> tuple[str, str]:
    """Add a slide of a base plane of any size whose every tile is one of a few, coloured like stained tissue.

    The tiles lie in the file once and the index points to them over and over. Gives slide id and version.
    """
    tiles = [encode_steps(tissue(seed)) for seed in range(_TILES)]
    starts = np.cumsum([0] + [len(tile) for tile in tiles])
    stored = halve(size)
    sizes = pyramid_sizes(stored)
    count = sum(ceil_div(each.width, 512) * ceil_div(each.height, 512) for each in sizes)
    chosen = np.random.default_rng(0).integers(0, _TILES, count)
    records = b"".join(RECORD.pack(int(starts[k]), len(tiles[k]), checksum(tiles[k])) for k in chosen)
    index, data = INDEX_MAGIC + records, b"".join(tiles)
    folder = library.root / STAGING_FOLDER / name
    folder.mkdir()
    (folder / PYRAMID_FILE).write_bytes(data)
    (folder / INDEX_FILE).write_bytes(index + checksum(index))
    (folder / THUMBNAIL_FILE).write_bytes(tiles[0])
    digest = hashlib.sha256(index + name.encode()).hexdigest()
    card = Card(
        version=digest[:16], stored_size=stored, base_size=size, stored_mpp=0.5, levels=sizes,
        encoding=steps_text(), kernel="box2", icc="none",
        source=SourceFacts(digest, 1, "drawn", size, 0.25, False, 40.0, (0, 0), 0, 1),
        pyramid_bytes=len(data), pyramid_sha256=hashlib.sha256(data).hexdigest(), ingest_key=digest,
        created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    (folder / CARD_FILE).write_text(json.dumps(card.to_json()))
    return library.add(folder, card, name, None), card.version


def tissue(seed: int) -> np.ndarray:
    """512 × 512 pixels, RGB uint8, in the colours of stained tissue."""
    rng = np.random.default_rng(seed)
    cloud = cv2.resize(rng.random((40, 40), np.float32), (512, 512), interpolation=cv2.INTER_CUBIC)[..., None]
    pink, violet = np.array([236, 190, 214], np.float32), np.array([176, 132, 186], np.float32)
    return np.clip(pink + (violet - pink) * cloud + rng.normal(0, 5, (512, 512, 1)), 0, 255).astype(np.uint8)


def side_for(count: int) -> int:
    """Side of a square base plane on which `count` nuclei fill four fifths, in base-plane pixels."""
    return int(np.sqrt(count / 0.8)) * PITCH // 2 * 2


def nuclei(count: int, side: int, seed: int = 0) -> FeatureBatch:
    """`count` nuclei of 6 to 12 µm on a jittered grid, thinned out towards the rim, classes in patches."""
    rng = np.random.default_rng(seed)
    across = side // PITCH
    cells = rng.permutation(across * across)[:count]
    middles = np.stack([cells % across, cells // across], -1) * PITCH + PITCH / 2 + rng.uniform(-14, 14, (count, 2))
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    radii = rng.uniform(12, 24, (count, 1)) * rng.uniform(0.88, 1.12, (count, POINTS))
    stretch = rng.uniform(0.75, 1, (count, 1))
    x = middles[:, :1] + radii * np.cos(angles)
    y = middles[:, 1:] + radii * np.sin(angles) * stretch
    points = np.clip(np.round(np.stack([x, y], -1) * 16) / 16, 0, side)
    patches = (np.sin(middles[:, 0] / 3000) + np.cos(middles[:, 1] / 2300) + rng.normal(0, 0.4, count) + 2) % 4
    scores = np.clip(rng.beta(5, 1.6, count), 0, 1).astype(np.float32)
    return FeatureBatch(polygons(points), patches.astype(np.uint16), scores)


def polygons(points: np.ndarray) -> np.ndarray:
    """Object array of shapely polygons of N × V × 2 corners."""
    return shapely.polygons(np.concatenate([points, points[:, :1]], axis=1))


def publish(root: Path, slide_id: str, version: str, size: Size, count: int, name: str) -> Layer:
    """Publish a layer of `count` drawn nuclei."""
    staged = root / "work" / f"{name}.features"
    staged.parent.mkdir(exist_ok=True)
    everything = nuclei(count, min(size))
    with FeaturesWriter(staged, CLASSES, size) as writer:
        for start in range(0, count, _ROWS):
            rows = slice(start, start + _ROWS)
            writer.add(
                FeatureBatch(everything.geometries[rows], everything.class_numbers[rows], everything.scores[rows])
            )
        facts = writer.finish()
    colors = dict(zip(CLASSES, ("#2aa198", "#e8c547", "#d1495b", "#5b8def"), strict=True))
    new = NewLayer(slide_id, version, name, "prediction", {"model": "drawn", "kind": "instance"})
    return LayerStore(root).publish_file(new, staged, facts, colors)
