"""A synthetic scene as files: an Aperio-style JPEG-tiled pyramid at ×40, and its exact truth as QuPath GeoJSON."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import shapely
import tifffile

from wsi_ml.data.synthetic import MPP, NUCLEI, Scene
from wsi_ml.data.synthetic_pixels import Painter
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.geojson import write_features
from wsi_ml.geometry import Region, ceil_div

TILE = 256
BLOCK_WIDTH, BLOCK_HEIGHT = 2048, 1024
QUALITY = 90
STEP = 4
"""Each level of the pyramid is a quarter of the one before, as Aperio's scanners do it."""
COLORS = {
    "Background": "#bbbbbb",
    "Stroma": "#f0e442",
    "Gland": "#0072b2",
    "Lumen": "#56b4e9",
    "Adipose": "#e69f00",
    "Epithelial nucleus": "#117733",
    "Stromal nucleus": "#d55e00",
    "Lymphocyte": "#332288",
}
"""Colour of every truth class."""
TRUTH_FILES = ("tissues.geojson", "nuclei.geojson")


def write_slide(scene: Scene, path: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the scene as a slide that OpenSlide reads as Aperio, ×40, 0.25 µm/px; memory for two strips of blocks.

    `progress` is told (rows drawn, rows in all). The file appears whole under its name or not at all.
    """
    width, height = scene.size
    small = np.zeros((ceil_div(height, STEP), ceil_div(width, STEP), 3), np.uint8)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with tifffile.TiffWriter(temporary) as file:
            strips = _strips(scene, small, progress)
            _write_level(file, _tiles(strips, width), (height, width), description=_description(scene))
            smaller = cv2.resize(small, _quarter(small), interpolation=cv2.INTER_AREA)
            # Aperio's second directory is a thumbnail in strips; readers skip it by that.
            file.write(smaller, photometric="rgb", compression="jpeg", rowsperstrip=smaller.shape[0], metadata=None)
            for level in (small, smaller):
                _write_level(file, _tiles(iter([level]), level.shape[1]), level.shape[:2])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def truth_features(scene: Scene) -> tuple[list[Feature], list[Feature]]:
    """(tissues, nuclei) with class names and colours, in base-plane pixels; the same scene gives the same ids."""
    tissues = [_feature(scene, name, outline, f"tissue {n}") for n, (name, outline) in enumerate(scene.tissues())]
    kinds = [NUCLEI[kind] for kind in scene.nuclei.kinds]
    outlines = zip(kinds, scene.nuclei.outlines(), strict=True)
    return tissues, [_feature(scene, name, outline, f"nucleus {n}") for n, (name, outline) in enumerate(outlines)]


def write_truth(scene: Scene, folder: Path) -> tuple[Path, Path]:
    """Write the truth of tissues and of nuclei as two GeoJSON files and return their paths."""
    paths = folder / TRUTH_FILES[0], folder / TRUTH_FILES[1]
    for path, features in zip(paths, truth_features(scene), strict=True):
        path.write_bytes(b"".join(write_features(features, COLORS)))
    return paths


def _feature(scene: Scene, name: str, outline: shapely.Geometry, what: str) -> Feature:
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"ocular synthetic {scene.seed} {scene.size} {what}")
    object_type = "detection" if what.startswith("nucleus") else "annotation"
    return Feature(outline, str(identity), name, COLORS[name], object_type)


def _description(scene: Scene) -> str:
    width, height = scene.size
    return (
        f"Aperio-style synthetic slide drawn by Ocular, seed {scene.seed}\r\n"
        f"{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) JPEG/RGB Q={QUALITY}|AppMag = 40|MPP = {MPP}"
    )


def _quarter(level: np.ndarray) -> tuple[int, int]:
    return ceil_div(level.shape[1], STEP), ceil_div(level.shape[0], STEP)


def _write_level(
    file: tifffile.TiffWriter, tiles: Iterator[np.ndarray], shape: tuple[int, int], description: str | None = None
) -> None:
    file.write(
        tiles, shape=(*shape, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb", compression="jpeg",
        compressionargs={"level": QUALITY}, subsampling=(2, 2), description=description, metadata=None,
        software=False, maxworkers=1,
    )  # fmt: skip


def _tiles(strips: Iterator[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Tiles of strips in row order; the last ones are filled up by repeating the edge."""
    for strip in strips:
        rows, columns = -strip.shape[0] % TILE, -width % TILE
        padded = np.pad(strip, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else strip
        for y in range(0, padded.shape[0], TILE):
            for x in range(0, padded.shape[1], TILE):
                yield np.ascontiguousarray(padded[y : y + TILE, x : x + TILE])


def _strips(scene: Scene, small: np.ndarray, progress: Callable[[int, int], None] | None) -> Iterator[np.ndarray]:
    """Strips of full width from top to bottom, drawn in a few threads; a quarter of each is put into `small`."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for top, strip in _drawn(scene, pool):
            part = cv2.resize(strip, _quarter(strip), interpolation=cv2.INTER_AREA)
            small[top // STEP : top // STEP + part.shape[0]] = part
            if progress is not None:
                progress(top + strip.shape[0], scene.size.height)
            yield strip


def _drawn(scene: Scene, pool: ThreadPoolExecutor) -> Iterator[tuple[int, np.ndarray]]:
    """(top row, strip) in order; two strips are being drawn while one is used."""
    painter = Painter(scene)
    width, height = scene.size
    ahead: deque[tuple[int, list[Future[np.ndarray]]]] = deque()
    for top in range(0, height, BLOCK_HEIGHT):
        rows = min(BLOCK_HEIGHT, height - top)
        blocks = [Region(x, top, min(BLOCK_WIDTH, width - x), rows) for x in range(0, width, BLOCK_WIDTH)]
        ahead.append((top, [pool.submit(painter.paint, block) for block in blocks]))
        if len(ahead) > 2:
            yield _joined(*ahead.popleft())
    while ahead:
        yield _joined(*ahead.popleft())


def _joined(top: int, blocks: list[Future[np.ndarray]]) -> tuple[int, np.ndarray]:
    return top, np.hstack([block.result() for block in blocks])
