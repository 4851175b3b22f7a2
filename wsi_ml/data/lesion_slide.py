"""Drawn slides on which a patch alone does not tell its class: lesions in tissue, of which squares look like the other.

Both kinds of tissue have the same colour and as much nuclear area. Normal tissue has many small nuclei and lesions few
large ones, which only the stored plane shows. In a share of the squares it is the other way round: what these are, only
their surroundings tell. The outlines are exact. It is nobody's tissue, and no model of any disease.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import shapely

from wsi_ml.errors import BadRequestError
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.geojson import write_features
from wsi_ml.geometry import Size
from wsi_ml.slides.psi_writer import write_psi

SQUARE = 64
"""Stored pixels on a side of a square, which has one look."""
DECEIVING = 0.2
"""Share of the squares that look like the other kind."""
CORNERS = 96
LESIONS = (1, 3)
"""How many there are, from and to."""
LESION_RADII = (0.10, 0.22)
"""Of the slide's shorter side."""
TISSUE_RADIUS = 0.455
"""Of each side of the slide."""
NUCLEI = {"Normal": (44, 2.6), "Lesion": (12, 5.0)}
"""Mean number and radius (stored px) of a square's nuclei: the same area."""
COLOURS = {"Lesion": "#cc3311", "Normal": "#0072b2"}
GLASS, EOSIN, HAEMATOXYLIN = (244, 243, 245), (226, 170, 196), (112, 76, 150)
SUBPIXEL_BITS = 4


class LesionScene(NamedTuple):
    """What is on the slide, in stored pixels."""

    size: Size
    seed: int
    tissue: shapely.Polygon
    lesions: shapely.Geometry
    """Inside the tissue; may be empty."""

    def regions(self) -> list[tuple[str, shapely.Polygon]]:
        """(class, outline): lesions and the rest of the tissue, which do not overlap."""
        parts = {"Lesion": self.lesions, "Normal": self.tissue.difference(self.lesions)}
        return [
            (name, each) for name, area in parts.items() for each in shapely.get_parts(area)
            if each.geom_type == "Polygon" and each.area >= 1
        ]  # fmt: skip


def make_lesions(size: Size, seed: int) -> LesionScene:
    """Lay out a slide; the same size and seed give the same outlines.

    Raises BadRequestError for less than 8 squares a side.
    """
    if min(size) < 8 * SQUARE:
        raise BadRequestError(f"A slide with lesions has {8 * SQUARE} stored px a side or more.")
    rng = np.random.default_rng([seed, 0])
    sides = np.array(size, float)
    tissue = _blob(rng, sides / 2, sides * TISSUE_RADIUS, 0.05)
    found = []
    for _ in range(int(rng.integers(LESIONS[0], LESIONS[1] + 1))):
        middle = sides * rng.uniform(0.22, 0.78, 2)
        found.append(_blob(rng, middle, np.full(2, sides.min() * rng.uniform(*LESION_RADII)), 0.15))
    return LesionScene(size, seed, tissue, shapely.union_all(found).intersection(tissue))


def make_node(size: Size, seed: int, extent: float, breadth: float) -> LesionScene:
    """Lay out a slide with one lesion in the middle, `extent` stored px long and `breadth` wide; 0: none."""
    rng = np.random.default_rng([seed, 0])
    sides = np.array(size, float)
    tissue = _blob(rng, sides / 2, sides * TISSUE_RADIUS, 0.05)
    lesion = _blob(rng, sides / 2, np.array([extent, breadth]) / 2, 0.05) if extent else shapely.Polygon()
    return LesionScene(size, seed, tissue, lesion.intersection(tissue))


def paint_lesions(scene: LesionScene, deceiving: float = DECEIVING) -> np.ndarray:
    """RGB uint8 of the slide at ×20; `deceiving` is the share of squares that look like the other kind."""
    rng = np.random.default_rng([scene.seed, 1])
    width, height = scene.size
    rows, columns = -(-height // SQUARE), -(-width // SQUARE)
    row, column = (each.ravel() for each in np.indices((rows, columns)))
    middles = shapely.points((column + 0.5) * SQUARE, (row + 0.5) * SQUARE)
    is_lesion = shapely.contains(scene.lesions, middles) ^ (rng.random(len(row)) < deceiving)
    inside = shapely.contains(scene.tissue.buffer(SQUARE), middles)
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:] = EOSIN
    for place in np.flatnonzero(inside):
        corner = np.array([column[place], row[place]]) * SQUARE
        _draw_nuclei(rgb, rng, corner, *NUCLEI["Lesion" if is_lesion[place] else "Normal"])
    rgb = _uneven(cv2.GaussianBlur(rgb, (0, 0), 0.7), rng)
    glass = np.ones((height, width), np.uint8)
    cv2.fillPoly(glass, [_points(scene.tissue)], 0, shift=SUBPIXEL_BITS)
    rgb[glass.astype(bool)] = GLASS
    return rgb


def _blob(rng: np.random.Generator, middle: np.ndarray, radii: np.ndarray, wobble: float) -> shapely.Polygon:
    """A rounded, gently irregular outline."""
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    orders = np.arange(1, 6)
    heights, phases = rng.standard_normal(5) / orders, rng.uniform(0, 2 * np.pi, 5)
    wave = (heights * np.sin(angle[:, None] * orders + phases)).sum(axis=1)
    reach = 1 + wobble * np.clip(wave, -1.5, 1.5)
    if wobble < 0.1:  # tissue never reaches beyond its radius, so that it stays on the slide
        reach = np.minimum(reach, 1.0)
    points = middle + np.stack([np.cos(angle), np.sin(angle)], -1) * reach[:, None] * radii
    return shapely.make_valid(shapely.Polygon(points.round(2)))


def _draw_nuclei(rgb: np.ndarray, rng: np.random.Generator, corner: np.ndarray, number: int, radius: float) -> None:
    """Ellipses in a square, about `number` of about `radius` stored px, in place."""
    scale = 1 << SUBPIXEL_BITS
    for _ in range(rng.poisson(number)):
        x, y = corner + rng.uniform(0, SQUARE, 2)
        axes = radius * rng.uniform(0.8, 1.2, 2)
        colour = [round(each * light) for light in [rng.uniform(0.85, 1.15)] for each in HAEMATOXYLIN]
        centre, sides = (round(x * scale), round(y * scale)), (round(axes[0] * scale), round(axes[1] * scale))
        cv2.ellipse(rgb, centre, sides, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def _uneven(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with smooth and fine differences of light."""
    height, width = rgb.shape[:2]
    coarse = rng.normal(0, 5, (height // 48 + 2, width // 48 + 2)).astype(np.float32)
    light = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    light += rng.normal(0, 4, (height, width)).astype(np.float32)
    return np.clip(rgb + light[..., None], 0, 255).astype(np.uint8)


def _points(outline: shapely.Polygon) -> np.ndarray:
    """Corners for OpenCV with SUBPIXEL_BITS; pixel centres lie at half-integers of the plane."""
    corners = np.array(outline.exterior.coords[:-1]) - 0.5
    return np.rint(corners * (1 << SUBPIXEL_BITS)).astype(np.int32)


def write_lesions(scene: LesionScene, path: Path, deceiving: float = DECEIVING) -> Path:
    """Write the slide as `.psi` at ×20 and its outlines as GeoJSON beside it; gives the file of the outlines."""
    rgb = paint_lesions(scene, deceiving)
    write_psi(path, scene.size, lambda region: rgb[region.y : region.y_end, region.x : region.x_end],
              magnification=20.0, codec="JPEG")  # fmt: skip
    features = []
    for number, (name, outline) in enumerate(scene.regions()):
        identity = uuid.uuid5(uuid.NAMESPACE_URL, f"ocular lesions {scene.seed} {scene.size} {number}")
        base = shapely.transform(outline, lambda points: points * 2)
        features.append(Feature(base, str(identity), name, COLOURS[name], "annotation"))
    truth = path.with_suffix(".geojson")
    truth.write_bytes(b"".join(write_features(features, COLOURS)))
    return truth
