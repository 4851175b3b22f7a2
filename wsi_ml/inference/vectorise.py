"""From maps to features: what a predictor told of a slide, as polygons in base-plane pixels with class and score.

| kind | a feature is | class | score |
| --- | --- | --- | --- |
| `patch`, `dense` | a 4-connected region of one likeliest class | that class | mean probability of the class |
| `instance` | an object, flooded from its seed or by paper C's rules | the type of most of its pixels | mean interior |
| `heatmap` | a 4-connected region of one band, edges 0.1, 0.2 … | the one class | mean value |

All are means over the pixels of the feature, before its outline is simplified. The cells and blocks in which the map
is read leave no trace (see `regions` and `instances`): the same map gives the same features in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import shapely

from wsi_ml.errors import PredictionCancelledError
from wsi_ml.geometry import Region, Size
from wsi_ml.inference.card import AROUND, PredictorCard
from wsi_ml.inference.cerberus_finder import finder_of
from wsi_ml.inference.instances import BLOCK, block_boxes, block_instances
from wsi_ml.inference.maps import Maps
from wsi_ml.inference.regions import CELL, Reader, RegionReader
from wsi_ml.inference.watershed import least_byte
from wsi_ml.layers.batch import FeatureBatch

BATCH = 8192
"""Features in a batch at most."""
BANDS = 10
"""Bands of a heatmap over 0 to 1."""
SIMPLIFY = {"patch": 0.0, "dense": 1.0, "instance": 0.5, "heatmap": 0.0}
"""Tolerance of simplification in map pixels where neither the parameters nor the card say it: the squares of patches
and heatmaps are what the model told, and stay."""
UNIT = 1 / 16
"""Grid of the coordinates of features that the slide's edge cuts, in base pixels: the grid of features files."""


def vectorise(
    maps: Maps,
    card: PredictorCard,
    parameters: Mapping[str, Any],
    base_size: Size,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[FeatureBatch]:
    """Features of a slide's maps, in batches; class numbers count `card.drawn`.

    Parameters read, each None or missing for the card's `postprocess` value, then the kind's own: `threshold`
    (`patch`, `dense`: least probability of a pixel's class; `instance`: the mask's; `heatmap`: least value),
    `min_area_um2`, `simplify_px` (stored pixels; `instance`: greatest distance from the exact outline; others: root of
    the smallest triangle that a corner may make); and `stored_mpp`, µm per stored pixel (missing: the card's).
    `progress` is told (cells or blocks done, all of them). Raises PredictionCancelledError soon after `cancelled`
    turns true. Coordinates lie inside `base_size`. Memory is bounded by a row of cells or a block with its margin, and
    the outlines of regions that are still open.
    """
    chosen = {**card.postprocess, **{name: value for name, value in parameters.items() if value is not None}}
    stored_mpp = float(chosen.get("stored_mpp", card.mpp))
    least = float(chosen.get("min_area_um2", 0.0)) / (maps.stride * stored_mpp) ** 2
    least_pixels = max(1, int(np.ceil(least - 1e-9)))
    given = chosen.get("simplify_px")
    tolerance = SIMPLIFY[card.kind] if given is None else float(given) / maps.stride

    def check() -> None:
        if cancelled():
            raise PredictionCancelledError("The prediction was cancelled.")

    drawing = _instance_batches if card.kind == "instance" else _region_batches
    for geometries, numbers, means in drawing(maps, card, chosen, tolerance, least_pixels, check, progress):
        yield from _batches(geometries, numbers, means, 2 * maps.stride, base_size)


_Columns = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(geometries in map pixels, class numbers, mean bytes)."""


def _region_batches(
    maps: Maps,
    card: PredictorCard,
    chosen: Mapping[str, Any],
    tolerance: float,
    least: int,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> Iterator[_Columns]:
    reader, classes = _class_reader(maps, card, chosen.get("threshold"))
    regions = RegionReader(reader, maps.size, tolerance=tolerance, least=least, side=CELL)
    total, done = regions.rows * regions.columns, 0

    def before_cell() -> None:
        nonlocal done
        check()
        progress(done, total)
        done += 1

    for row in range(regions.rows):
        found = regions.row(row, before_cell)
        yield found.polygons, classes[found.values], found.means
    progress(total, total)


def _class_reader(maps: Maps, card: PredictorCard, threshold: float | None) -> tuple[Reader, np.ndarray]:
    """(reader of the values that regions are made of, class number of each value)."""
    if card.kind == "heatmap":
        edges = np.array([least_byte(band / BANDS) for band in range(1, BANDS)])
        low = least_byte(1 / BANDS if threshold is None else threshold)
        bands = np.searchsorted(edges, np.arange(256), side="right") + 1
        values = np.where(np.arange(256) >= low, bands, 0).astype(np.uint8)
        return _covered(maps, lambda told: (values[told[0]], told[0])), np.zeros(BANDS + 1, np.uint16)
    drawn = card.drawn
    numbers = np.array([drawn.index(name) + 1 if name in drawn else 0 for name in card.channels], np.uint8)
    low = least_byte(threshold or 0.0)

    def likeliest(told: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        best = told.argmax(axis=0)
        weights = np.take_along_axis(told, best[None], axis=0)[0]
        return np.where(weights >= low, numbers[best], 0).astype(np.uint8), weights

    return _covered(maps, likeliest), np.arange(-1, len(drawn)).clip(0).astype(np.uint16)


def _covered(maps: Maps, decide: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Reader:
    """A reader of decided values that draws nothing where no window was computed."""

    def read(box: Region) -> tuple[np.ndarray, np.ndarray]:
        is_covered = maps.covered(*box)
        if not is_covered.any():
            return np.zeros(is_covered.shape, np.uint8), np.zeros(is_covered.shape, np.uint8)
        values, weights = decide(maps.region(*box))
        return np.where(is_covered, values, 0).astype(np.uint8), weights

    return read


def _instance_batches(
    maps: Maps,
    card: PredictorCard,
    chosen: Mapping[str, Any],
    tolerance: float,
    least: int,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> Iterator[_Columns]:
    map_mpp = maps.stride * float(chosen.get("stored_mpp", card.mpp))
    finder = finder_of(chosen, chosen.get("threshold"), map_mpp)
    types = [each.name for each in card.classes] if len(card.classes) > 1 else []
    channels = [card.channels.index(name) for name in ("interior", "boundary", *types)]
    channels += [card.channels.index(name) for name in (AROUND if finder.beside else ())]
    drawn = card.drawn
    # Objects of a class that is told but not drawn take part in the vote and are dropped by it.
    numbers = np.array([drawn.index(each.name) if each.name in drawn else -1 for each in card.classes])
    blocks = block_boxes(maps.size, BLOCK)
    # What is larger than any object of its kind is none, but several or something else.
    most = float(chosen.get("max_area_um2", np.inf)) / map_mpp**2

    def read(box: Region) -> np.ndarray:
        check()
        return maps.region(*box)[channels]

    for done, block in enumerate(blocks):
        check()
        progress(done, len(blocks))
        if not maps.covered(*block).any():
            continue
        found = block_instances(read, maps.size, block, finder, tolerance=tolerance, least=least)
        own = (numbers[found.types] >= 0) & (found.pixels <= most)
        yield found.polygons[own], numbers[found.types[own]], found.means[own]
    progress(len(blocks), len(blocks))


def _batches(
    geometries: np.ndarray, numbers: np.ndarray, means: np.ndarray, scale: int, base_size: Size
) -> Iterator[FeatureBatch]:
    base_geometries = shapely.transform(geometries, lambda points: points * scale)
    base_geometries = _inside(base_geometries, base_size)
    kept = np.flatnonzero(~shapely.is_empty(base_geometries))
    scores = (means / 255).astype(np.float32)
    for start in range(0, len(kept), BATCH):
        chosen = kept[start : start + BATCH]
        yield FeatureBatch(base_geometries[chosen], numbers[chosen].astype(np.uint16), scores[chosen])


def _inside(base_geometries: np.ndarray, base_size: Size) -> np.ndarray:
    """Geometries cut at the slide's right and lower edge, over which the last map pixels may reach."""
    bounds = shapely.bounds(base_geometries)
    over = (bounds[:, 2] > base_size.width) | (bounds[:, 3] > base_size.height)
    if not over.any():
        return base_geometries
    slide = shapely.box(0, 0, *base_size)
    cut = shapely.intersection(base_geometries[over], slide, grid_size=UNIT)
    base_geometries[over] = [_polygonal(each) for each in cut]
    return base_geometries


def _polygonal(geometry: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a geometry, without the points and lines that an intersection may leave."""
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts)
