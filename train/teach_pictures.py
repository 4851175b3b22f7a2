"""Pictures at ×20 with the teacher's labels: squares of whole scans, told on the whole slide, and single ×40 tiles."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from train.script import ATLAS_TEST, ATLAS_VALIDATION
from wsi_ml.data.pairs import SCANS, TISSUE_SATURATION, read_tiles, store_pixels, tile_files
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.segmentation_folders import PARTS, TABLE
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.teacher import LICENCE, MPP, SOURCE, WORDS, Staining, Teacher, staining_of
from wsi_ml.inference.teacher_labels import classes_of, enlarged, epithelial_share, glands_and_lumina
from wsi_ml.slides.reading import open_slide

FACTS = "teacher.json"
TISSUE_SHARE = 0.6
"""Least share of coloured pixels of a square of a scan."""
TILE_STEP = 4
"""Stored pixels a side of one that the teacher is shown, of a tile: 0.25 µm/px at ×40, 0.5 stored, 2 shown."""
COLUMNS = ("file", "label", "slide", "part", "labels")
KIND = "teacher"


@dataclass(frozen=True)
class TaughtPicture:
    """A picture and what the teacher tells of it."""

    name: str
    slide: str
    rgb: np.ndarray
    """uint8 H×W×3 at ×20, as the store keeps it."""
    classes: np.ndarray
    """uint8 H×W: 0 other, 1 epithelium, 255 unsure."""


@dataclass(frozen=True)
class Told:
    """A whole slide as the teacher sees it."""

    pixels: PatchReader
    step: int
    """Stored pixels a side of one of the map's."""
    small: np.ndarray
    """uint8 h×w×3: the slide at about `MPP`."""
    probabilities: np.ndarray
    """float32 3×h×w."""
    staining: Staining


def tell_slide(pixels: PatchReader, teacher: Teacher) -> Told:
    """The teacher's map of a whole slide; raises BadRequestError for a slide without ×20 plane or without tissue."""
    step = max(1, round(MPP / pixels.stored_mpp))
    small = pixels.reduced(step)
    staining = staining_of(small)
    return Told(pixels, step, small, teacher.probabilities(small, staining), staining)


def atlas_pictures(
    data_root: Path, teacher: Teacher, side: int, squares: int, seed: int, without: Sequence[str] = ()
) -> Iterator[tuple[list[TaughtPicture], Staining]]:
    """The pictures of one slide of the atlas after the other, with its staining.

    Of a slide whose whole scan is there, up to `squares` squares of `side` stored pixels with tissue, told on the
    whole slide; of the others their tiles, each told by itself: that is 64 pixels of what the teacher sees, and their
    mirror images around them. Slides named in `without` are left out. Raises FileNotFoundError where there are no
    tiles, BadRequestError for a slide to leave out that is not there.
    """
    files = tile_files(data_root)
    if not files:
        raise FileNotFoundError(f"{data_root.name} holds none of the tile sets (sr-x40-dev, sr-x40-dev2).")
    unknown = sorted(set(without) - files.keys())
    if unknown:
        raise BadRequestError(f"“{unknown[0]}” cannot be left out: slides are {', '.join(files)}.")
    for slide, paths in files.items():
        if slide in without:
            continue
        scan = data_root / SCANS.get(slide, "")
        if slide in SCANS and scan.is_file():
            pixels = PatchReader(open_slide(scan))
            told = tell_slide(pixels, teacher)
            yield scan_pictures(told, slide, side, squares, seed), told.staining
            pixels.reader.close()
        else:
            yield tile_pictures(slide, [path.stem for path in paths], read_tiles(paths), teacher)


def scan_pictures(told: Told, slide: str, side: int, count: int, seed: int) -> list[TaughtPicture]:
    """Up to `count` squares of a slide's grid that show tissue, chosen by `seed`; `side` is a multiple of the step."""
    if side % told.step:
        raise BadRequestError(f"The side {side} is no multiple of {told.step}, the step of the teacher's map.")
    cell = side // told.step
    coloured = cv2.cvtColor(told.small, cv2.COLOR_RGB2HSV)[..., 1] > TISSUE_SATURATION
    rows, columns = (length // cell for length in coloured.shape)
    shares = coloured[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell).mean((1, 3))
    places = np.argwhere(shares > TISSUE_SHARE)
    chosen = places[np.sort(np.random.default_rng(seed).permutation(len(places))[:count])]
    pictures = []
    for row, column in chosen.tolist():
        x, y = column * side, row * side
        rgb, _ = told.pixels.read(x, y, side).finished()
        part = told.probabilities[:, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        pictures.append(TaughtPicture(f"{slide}-{x}-{y}", slide, rgb, classes_of(enlarged(part, told.step))))
    return pictures


def tile_pictures(
    slide: str, names: Sequence[str], tiles: Sequence[np.ndarray], teacher: Teacher
) -> tuple[list[TaughtPicture], Staining]:
    """The ×40 tiles of a slide at ×20 with labels; how it is stained is read from all of them together."""
    stored = [store_pixels(base) for base in tiles]
    small = [
        cv2.resize(rgb, (rgb.shape[1] // TILE_STEP, rgb.shape[0] // TILE_STEP), interpolation=cv2.INTER_AREA)
        for rgb in stored
    ]
    staining = staining_of(np.concatenate([rgb.reshape(-1, 3) for rgb in small]))
    pictures = []
    for name, rgb, shown in zip(names, stored, small, strict=True):
        probabilities = enlarged(teacher.probabilities(shown, staining), TILE_STEP)
        pictures.append(TaughtPicture(f"{slide}-{name}", slide, rgb, classes_of(probabilities)))
    return pictures, staining


def part_of(slide: str) -> str:
    """Part of a slide of the atlas, as in every other training on it."""
    if slide in ATLAS_TEST:
        return PARTS[2]
    return PARTS[1] if slide in ATLAS_VALIDATION else PARTS[0]


class FolderWriter:
    """Writes taught pictures in the layout `folder`, with the label maps of glands and lumina; whole or not at all.

    Images, masks, glands and lumina go beside each other, so that papers B and C read the same folder. `present` is the
    share of epithelium from which a picture has the class 1. Raises BadRequestError where the folder exists.
    """

    def __init__(self, folder: Path, present: float):
        if folder.exists():
            raise BadRequestError(f"“{folder.name}” exists; name another folder with --output or remove it.")
        self.folder, self.present = folder, present
        self._temp = folder.with_name(f".{folder.name}.{os.getpid()}")
        self._rows: list[dict[str, str]] = []
        self._staining: dict[str, dict[str, Any]] = {}
        self._shares: dict[str, list[float]] = {}

    def __enter__(self) -> FolderWriter:
        for name in ("images", "masks", "glands", "lumina"):
            (self._temp / name).mkdir(parents=True)
        return self

    def add(self, pictures: Sequence[TaughtPicture], staining: Staining) -> None:
        """Pictures of one slide."""
        for picture in pictures:
            glands, lumina = glands_and_lumina(picture.classes, picture.rgb)
            file = f"{picture.name}.png"
            _write(self._temp / "images" / file, picture.rgb)
            _write(self._temp / "masks" / file, picture.classes)
            _write(self._temp / "glands" / file, glands.astype(np.uint16))
            _write(self._temp / "lumina" / file, lumina.astype(np.uint16))
            share = epithelial_share(picture.classes)
            label, part = str(int(share >= self.present)), part_of(picture.slide)
            self._shares.setdefault(picture.slide, []).append(share)
            self._rows.append(dict(zip(COLUMNS, (file, label, picture.slide, part, KIND), strict=True)))
            self._staining[picture.slide] = {
                "glass": round(staining.glass, 1), "tops": [round(each, 4) for each in staining.tops],
                "brown": round(staining.brown, 4),
            }  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What the set is, as `teacher.json` has it."""
        slides = {}
        for slide, shares in self._shares.items():
            held = sum(share >= self.present for share in shares)
            slides[slide] = {
                "part": part_of(slide), "pictures": len(shares), "with_epithelium": held,
                "mean_share": round(float(np.mean(shares)), 4), "staining": self._staining[slide],
            }  # fmt: skip
        return {
            **about(), "classes": ["Other", "Epithelium"], "unsure": 255, "present": self.present, "slides": slides,
            "pictures": dict(Counter(row["part"] for row in self._rows)),
            "pixels": "Pathology Atlas, patolojiatlasi.com (S. Balci), MIT",
        }  # fmt: skip

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            return
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(self._rows)
        (self._temp / TABLE).write_text(table.getvalue(), encoding="utf-8")
        (self._temp / FACTS).write_text(json.dumps(self.facts(), indent=1), encoding="utf-8")
        for path in sorted(self._temp.rglob("*")):
            _sync(path)
        self._temp.rename(self.folder)


def about() -> dict[str, Any]:
    """What everything made by the teacher says of itself."""
    return {
        "labels": f"teacher: told by a model. A score against them is {WORDS}, never accuracy.",
        "teacher": SOURCE, "licence": LICENCE, "shown_mpp": MPP,
    }  # fmt: skip


def _write(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, compress_level=3)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
