"""Pictures with outlined nuclei: the hand-made set (DSB 2018, CC0), drawn scenes; what the network learns of them."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import shapely
from PIL import Image

from wsi_ml.data.synthetic import Scene, make_scene
from wsi_ml.data.synthetic_pixels import Painter
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.kernel import halve_pixels

HAND_SET = "nuclei-dsb2018-brightfield"
TEST = (
    "1d02c4b592", "55f98f43c1", "a0325cb7aa", "bb61fc17da", "f4b7c24baf", "5c6eb9a478", "a31deaf0ac", "a7f6194ddb",
    "e49fc2b4f1", "01d44a26f6", "0d3640c1f1", "1e488c42eb", "6b0ac2ab04", "b0e35e06b8", "ebc1886886",
)  # fmt: skip
"""Three whole clusters of look-alike pictures (pale on white; crowded on violet; large and pale on violet)."""
VALIDATION = ("0121d6759c", "15039b3acc", "1631352dba", "2c61fdcb36", "947c0d94c8", "ea94ba4b01", "ed5be4b63e")
"""One more cluster (dark on white)."""
TOUCH_REACH = 2
"""Pixels to both sides within which two nuclei count as touching."""
SCENE_SIDE = 3072
"""Base-plane pixels on a side of a drawn scene, and of the part of it that is used."""
PART_SIDE = 1024


@dataclass(frozen=True)
class NucleiPicture:
    """A picture and its nuclei."""

    name: str
    rgb: np.ndarray
    """uint8 H×W×3."""
    labels: np.ndarray
    """int32 H×W: 0 outside, another number for each nucleus."""

    def diameter(self) -> float:
        """Median diameter of the nuclei in pixels, of circles of their area; 0 without nuclei."""
        areas = np.bincount(self.labels.ravel())[1:]
        areas = areas[areas > 0]
        return float(np.median(np.sqrt(4 * areas / np.pi))) if len(areas) else 0.0

    def count(self) -> int:
        """How many nuclei there are."""
        return len(np.unique(self.labels[self.labels > 0]))


def read_hand_set(data_root: Path) -> dict[str, NucleiPicture]:
    """The hand-outlined pictures under `data_root`, by name; raises FileNotFoundError when the set is not there."""
    index = data_root / HAND_SET / "index.csv"
    if not index.is_file():
        raise FileNotFoundError(f"{data_root} holds no {HAND_SET}.")
    with index.open(newline="") as lines:
        names = sorted(row["id"] for row in csv.DictReader(lines))
    return {name: read_picture(index.parent / "images" / f"{name}.png", index.parent / "labels") for name in names}


def read_picture(image: Path, label_folder: Path) -> NucleiPicture:
    """A picture file with the label map of the same name (PNG) in `label_folder`."""
    with Image.open(image) as picture, Image.open(label_folder / f"{image.stem}.png") as labels:
        return NucleiPicture(image.stem, np.asarray(picture.convert("RGB")), np.asarray(labels).astype(np.int32))


def targets(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network learns of a label map: (interior and rim uint8 2×H×W, where nuclei touch bool H×W).

    The rim is each nucleus's own outermost pixels: those with a pixel of another label above, below, left or right.
    The interior is the rest of it. So the two together are the nucleus, and between the interiors of two touching
    nuclei lie two rim pixels. The picture's border makes no rim.
    """
    rim = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    rim[:, 1:] |= across
    rim[:, :-1] |= across
    rim[1:] |= down
    rim[:-1] |= down
    nucleus = labels > 0
    kernel = np.ones((2 * TOUCH_REACH + 1,) * 2, np.uint8)
    highest = cv2.dilate(labels.astype(np.float32), kernel)
    lowest = cv2.erode(np.where(nucleus, labels, 1 << 23).astype(np.float32), kernel)
    touching = (lowest < highest) & (highest > 0)
    return np.stack([nucleus & ~rim, nucleus & rim]).astype(np.uint8), touching


def label_outlines(outlines: np.ndarray, size: Size) -> np.ndarray:
    """Label map int32 of an array of polygons in its pixels: a pixel belongs to the outline that holds its centre."""
    labels = np.zeros((size.height, size.width), np.int32)
    for number, outline in enumerate(outlines, start=1):
        x0, y0, x1, y1 = (int(edge) for edge in np.clip(outline.bounds, 0, [size.width, size.height] * 2))
        columns, rows = np.meshgrid(np.arange(x0, min(x1 + 1, size.width)), np.arange(y0, min(y1 + 1, size.height)))
        inside = shapely.contains_xy(outline, columns + 0.5, rows + 0.5)
        labels[rows[inside], columns[inside]] = number
    return labels


@dataclass(frozen=True)
class DrawnPart:
    """Part of a drawn scene at the stored resolution, with its nuclei and without."""

    picture: NucleiPicture
    bare: np.ndarray
    """uint8 H×W×3: the same tissue had it no nuclei."""


def draw_parts(seed: int, count: int) -> list[DrawnPart]:
    """`count` parts (at most 9) of the scene of a seed, 512 × 512 stored pixels each, their truth exact."""
    scene = make_scene(Size(SCENE_SIDE, SCENE_SIDE), seed)
    with_nuclei, bare = Painter(scene), Painter(replace(scene, nuclei=scene.nuclei[np.zeros(0, int)]))
    per_row = SCENE_SIDE // PART_SIDE
    # The middle first: the scene's rim is background.
    order = sorted(range(per_row * per_row), key=lambda n: (abs(n // per_row - 1) + abs(n % per_row - 1), n))
    parts = []
    for place in order[:count]:
        region = Region(place % per_row * PART_SIDE, place // per_row * PART_SIDE, PART_SIDE, PART_SIDE)
        picture = NucleiPicture(f"scene-{seed}-{place}", halve_pixels(with_nuclei.paint(region)), _truth(scene, region))
        parts.append(DrawnPart(picture, halve_pixels(bare.paint(region))))
    return parts


def _truth(scene: Scene, base_region: Region) -> np.ndarray:
    """Label map of a base-plane region at half its resolution."""
    outlines = scene.nuclei.outlines()
    near = outlines[shapely.intersects(outlines, shapely.box(base_region.x, base_region.y, *_end(base_region)))]
    corner = np.array([base_region.x, base_region.y])
    stored = shapely.transform(near, lambda points: (points - corner) / 2)
    return label_outlines(stored, Size(base_region.width // 2, base_region.height // 2))


def _end(region: Region) -> tuple[int, int]:
    return region.x_end, region.y_end
