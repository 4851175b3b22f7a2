"""Drawn slides for paper D: tissue on glass, a violet tumour in pink tissue, with outlines, a mask or ASAP XML."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import tifffile

from wsi_ml.data.patch_grid import NORMAL, TUMOUR
from wsi_ml.data.patch_slides import PatchSlide
from wsi_ml.data.read_patch import ReadPatch
from wsi_ml.geometry import Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.psi_writer import write_psi

SIDE = 40
"""Side of a patch in the tests, stored pixels."""
SIZE = Size(960, 800)
"""At ×20: 24 × 20 patches."""
TISSUE = (80, 80, 880, 720)
"""x0, y0, x1, y1; the rest is glass."""
TUMOURS = {"a": (80, 80, 400, 400), "b": (480, 320, 880, 720), "c": (200, 240, 600, 480), "d": (80, 480, 560, 720)}
COLOURS = {"normal": (205, 140, 170), "tumour": (120, 70, 160)}


def draw(name: str) -> np.ndarray:
    """The slide's pixels at ×20."""
    rng = np.random.default_rng(ord(name[0]))
    rgb = np.full((SIZE.height, SIZE.width, 3), 244, np.uint8)
    for box, kind in ((TISSUE, "normal"), (TUMOURS.get(name, (0, 0, 0, 0)), "tumour")):
        x0, y0, x1, y1 = box
        if x1 > x0:
            small = rng.integers(-18, 19, ((y1 - y0) // 4, (x1 - x0) // 4, 1)).astype(np.float32)
            texture = cv2.resize(small, (x1 - x0, y1 - y0), interpolation=cv2.INTER_CUBIC)[..., None]
            rgb[y0:y1, x0:x1] = np.clip(np.array(COLOURS[kind], np.float32) + texture, 0, 255).astype(np.uint8)
    return rgb


def ring(box: tuple[int, int, int, int]) -> list[list[int]]:
    x0, y0, x1, y1 = box
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def write_library(root: Path, names: str = "abcd") -> Path:
    """Slides a, b, … with tumour and normal tissue as polygons of a layer."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        rgb = draw(name)
        path = root.parent / f"{name}.psi"
        write_psi(path, SIZE, lambda r, rgb=rgb: rgb[r.y : r.y_end, r.x : r.x_end], magnification=20.0, codec="JPEG")
        slide = ingest(path, root)
        outlines = [{"class": "Normal", "vertices": ring(TISSUE)}, {"class": "Tumour", "vertices": ring(TUMOURS[name])}]
        truth = root.parent / f"{name}.json"
        truth.write_text(json.dumps(outlines))
        import_layer(root, slide.slide_id, truth, name="truth", plane="scan")
    return root


def write_tiff(path: Path, name: str) -> None:
    """A tiled TIFF pyramid of 0.5 µm/px as CAMELYON's slides are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = draw(name)
    options = {"photometric": "rgb", "compression": "jpeg", "tile": (128, 128), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        file.write(rgb, resolution=(20_000, 20_000), **options)
        small = cv2.resize(rgb, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        file.write(small, resolution=(5_000, 5_000), subfiletype=1, **options)


def asap(groups: dict[str, tuple[int, int, int, int]]) -> str:
    """An ASAP file with a rectangle for each group."""
    shapes, names = [], []
    for number, (group, box) in enumerate(groups.items()):
        points = "".join(
            f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in enumerate(ring(box)[:-1])
        )
        shapes.append(
            f'<Annotation Name="A{number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>{points}'
            "</Coordinates></Annotation>"
        )
        names.append(f'<Group Name="{group}" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>')
    return (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{"".join(shapes)}</Annotations>'
        f"<AnnotationGroups>{''.join(names)}</AnnotationGroups></ASAP_Annotations>"
    )


def write_camelyon(folder: Path) -> Path:
    """CAMELYON17's folder: outlines (with a hole), a mask, a slide known to be negative, and one nobody knows."""
    images, annotations = folder / "images", folder / "annotations"
    for node, name in enumerate("abcx"):
        write_tiff(images / f"patient_00{node // 2}_node_{node}.tif", name)
    annotations.mkdir()
    (annotations / "patient_000_node_0.xml").write_text(
        asap({"metastases": TUMOURS["a"], "normal": (80, 80, 160, 160)})
    )
    write_mask(folder / "masks" / "patient_000_node_1_mask.tif", TUMOURS["b"])
    with (folder / "stages.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["patient", "stage"], ["patient_001.zip", "pN0"], ["patient_001_node_2.tif", "negative"]]
        )
    return folder


def write_mask(path: Path, box: tuple[int, int, int, int], tumour: int = 2, size: Size = SIZE) -> None:
    """A mask at a quarter of ×20: normal 1 in the tissue, tumour in the box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size.height // 4, size.width // 4), np.uint8)
    for (x0, y0, x1, y1), value in ((TISSUE, 1), (box, tumour)):
        mask[y0 // 4 : y1 // 4, x0 // 4 : x1 // 4] = value
    tifffile.imwrite(path, mask, tile=(64, 64), compression="zlib")


class DrawnPixels:
    """A drawn slide in memory, read as `PatchReader` reads."""

    def __init__(self, name: str):
        self.name, self.size, self.stored_mpp, self.rgb = name, SIZE, 0.5, draw(name)

    def read(self, x: int, y: int, side: int) -> ReadPatch:
        return ReadPatch(self.rgb[y : y + side, x : x + side], None)

    def reduced(self, step: int) -> np.ndarray:
        return cv2.resize(self.rgb, (SIZE.width // step, SIZE.height // step), interpolation=cv2.INTER_AREA)


def drawn_slide(name: str, side: int = SIDE) -> PatchSlide:
    """The patches of a drawn slide with labels by where their middle lies."""
    x0, y0, x1, y1 = TISSUE
    cells = np.array(
        [[row, column] for row in range(y0 // side, y1 // side) for column in range(x0 // side, x1 // side)]
    )
    left, top, right, bottom = TUMOURS[name]
    y, x = ((cells + 0.5) * side).T
    labels = np.where((x > left) & (x < right) & (y > top) & (y < bottom), TUMOUR, NORMAL).astype(np.int64)
    return PatchSlide(name, DrawnPixels(name), side, cells, labels)
