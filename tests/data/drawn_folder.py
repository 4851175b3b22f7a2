"""A folder in the layout of PATH-DT-MSU, drawn: each class a rectangle of its own colour on white glass."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from wsi_ml.geometry import Size
from wsi_ml.slides.psi_writer import write_psi

SIZE = Size(1600, 1200)
"""At ×40; the stored plane is 800 × 600."""
COLOURS = {"AT": (200, 120, 60), "LP": (60, 170, 80), "TUM": (150, 70, 160)}
BOXES = {"AT": (100, 100, 700, 600), "LP": (900, 80, 1500, 560), "TUM": (200, 700, 1400, 1150)}
"""x0, y0, x1, y1 at ×40."""


def draw(seed: int = 0) -> np.ndarray:
    """The slide's pixels: fine texture in the boxes, white beyond."""
    rng = np.random.default_rng(seed)
    rgb = np.full((SIZE.height, SIZE.width, 3), 245, np.uint8)
    for name, (x0, y0, x1, y1) in BOXES.items():
        small = rng.integers(-25, 26, ((y1 - y0) // 2, (x1 - x0) // 2, 1)).astype(np.float32)
        texture = cv2.resize(small, (x1 - x0, y1 - y0), interpolation=cv2.INTER_CUBIC)[..., None]
        rgb[y0:y1, x0:x1] = np.clip(np.array(COLOURS[name], np.float32) + texture, 0, 255).astype(np.uint8)
    return rgb


def outlines(names: list[str]) -> str:
    """The annotation file of classes."""
    values = []
    for name in names:
        x0, y0, x1, y1 = BOXES[name]
        values.append({"class": name, "vertices": [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]})
    return json.dumps(values)


def write_slide(path: Path, seed: int = 0, magnification: float = 40.0) -> Path:
    """One drawn slide as `.psi`."""
    rgb = draw(seed)
    return write_psi(
        path, SIZE, lambda r: rgb[r.y : r.y_end, r.x : r.x_end], magnification=magnification, codec="JPEG", quality=95
    )


def write_folder(folder: Path) -> Path:
    """Two slides for training (a, b) and one for the test (c), with annotations under all three names."""
    for part, stems in (("train", "ab"), ("test", "c")):
        for kind in ("images", "annotations"):
            (folder / kind / part).mkdir(parents=True)
        for number, stem in enumerate(stems):
            write_slide(folder / "images" / part / f"{stem}.psi", seed=10 * (part == "test") + number)
            ending = {"a": ".json", "b": "_anno.json", "c": "_v2.5.json"}[stem]
            (folder / "annotations" / part / f"{stem}{ending}").write_text(outlines(list(BOXES)))
    return folder
