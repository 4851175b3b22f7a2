"""Sets of pictures with instances in folders: published layouts and one of our own, each split by slide or patient.

A set is named by its layout and its folder, `glas:../GlaS`. Pictures must be at 0.5 µm (×20), as all of these are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ml.data.gland_folders import GRADES, read_crag, read_glas
from wsi_ml.data.instance_files import (
    GLAND_TYPES,
    LABEL_KINDS,
    NUCLEI_TYPES,
    FolderPicture,
    as_types,
    pictures_of,
    read_label_map,
    read_rgb,
    read_table,
)
from wsi_ml.data.nuclei_folders import read_conic, read_lizard
from wsi_ml.data.segmentation_folders import PARTS, TABLE
from wsi_ml.data.segmentation_sets import HELD_OUT, SPLIT_SEED
from wsi_ml.errors import BadRequestError

FOLDERS: Mapping[str, str] = {"gland": "glands", "lumen": "lumina", "nuclei": "nuclei"}
"""Folder of each task's label maps in our own layout."""
TYPE_FOLDERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "gland": ("gland_types", GLAND_TYPES),
    "nuclei": ("nuclei_types", NUCLEI_TYPES),
}
"""Folder and types of the tasks that have them."""


@dataclass(frozen=True)
class Layout:
    """How a kind of set lies on disk."""

    tasks: tuple[str, ...]
    """What it may know."""
    types: Mapping[str, tuple[str, ...]]
    """Names of its types by task, from type 1 on."""
    read: Callable[[Path], list[FolderPicture]]


def read_own(folder: Path) -> list[FolderPicture]:
    """`images`, label maps of one name in `glands`, `lumina`, `nuclei`, types beside them, and `pictures.csv`.

    Types are numbers of the pixels in `nuclei_types` and `gland_types`. The table may have the columns file, slide,
    part (training, validation, test) and labels (exact, hand, weak, teacher). A task without a file is not known of a
    picture. Raises FileNotFoundError, BadRequestError.
    """
    images = pictures_of(folder / "images")
    if not images:
        raise FileNotFoundError(f"“{folder.name}” holds no pictures in a folder images.")
    rows = {row["file"]: row for row in read_table(folder / TABLE, ("file",))} if (folder / TABLE).is_file() else {}
    stems = {path.stem for path in images}
    absent = sorted(rows.keys() - {path.name for path in images})
    if absent:
        raise FileNotFoundError(f"{TABLE} names “{absent[0]}”, which is not in images.")
    for name in (*FOLDERS.values(), *(name for name, _ in TYPE_FOLDERS.values())):
        strays = sorted({path.stem for path in (folder / name).glob("*.png")} - stems)
        if strays:
            raise FileNotFoundError(f"The label map “{name}/{strays[0]}.png” has no picture of that name in images.")
    found = [_own_picture(folder, path, rows.get(path.name, {})) for path in images]
    _refuse_shared_slides(found)
    return found


def _own_picture(folder: Path, image: Path, row: Mapping[str, str]) -> FolderPicture:
    labels, types = {}, {}
    for task, name in FOLDERS.items():
        if (folder / name / f"{image.stem}.png").is_file():
            labels[task] = read_label_map(folder / name / f"{image.stem}.png")
    for task, (name, names) in TYPE_FOLDERS.items():
        file = folder / name / f"{image.stem}.png"
        if file.is_file():
            if task not in labels:
                raise FileNotFoundError(f"“{name}/{file.name}” needs the label map “{FOLDERS[task]}/{file.name}”.")
            types[task] = as_types(read_label_map(file), labels[task], names, file.name)
    part, kind = row.get("part", ""), row.get("labels", "") or "hand"
    if part and part not in PARTS:
        raise BadRequestError(f"{TABLE} puts “{image.name}” into part {part!r}; parts are {', '.join(PARTS)}.")
    if kind not in LABEL_KINDS:
        raise BadRequestError(f"{TABLE} calls the labels of “{image.name}” {kind!r}; kinds: {', '.join(LABEL_KINDS)}.")
    return FolderPicture(image.stem, row.get("slide", "") or image.stem, part, read_rgb(image), labels, types, kind)


def _refuse_shared_slides(pictures: Sequence[FolderPicture]) -> None:
    """Raise BadRequestError where a table splits a slide."""
    parts: dict[str, str] = {}
    for picture in pictures:
        part = picture.part or PARTS[0]
        if parts.setdefault(picture.slide, part) != part:
            raise BadRequestError(f"Slide “{picture.slide}” has pictures in two parts; a slide belongs to one.")


LAYOUTS: Mapping[str, Layout] = {
    "glas": Layout(("gland",), {"gland": GRADES}, read_glas),
    "crag": Layout(("gland",), {}, read_crag),
    "lizard": Layout(("nuclei",), {"nuclei": NUCLEI_TYPES}, read_lizard),
    "conic": Layout(("nuclei",), {"nuclei": NUCLEI_TYPES}, read_conic),
    "folder": Layout(tuple(FOLDERS), {task: names for task, (_, names) in TYPE_FOLDERS.items()}, read_own),
}


def layout_of(word: str) -> tuple[Layout, Path] | None:
    """Layout and folder of a set's name, `crag:../CRAG`; None for one that is no folder."""
    name, colon, folder = word.partition(":")
    return (LAYOUTS[name], Path(folder)) if colon and folder and name in LAYOUTS else None


def read_set(word: str, tasks: Sequence[str]) -> list[FolderPicture]:
    """The pictures of a set; raises BadRequestError where no instance of a wanted task is outlined.

    Label maps of the wrong size, of numbers that are no types and of the wrong form are refused by name, and so are
    files that are missing (FileNotFoundError).
    """
    found = layout_of(word)
    if found is None:
        raise BadRequestError(f"{word!r} names no folder; layouts are {', '.join(LAYOUTS)}, as in crag:FOLDER.")
    layout, folder = found
    if not folder.is_dir():
        raise FileNotFoundError(f"The set {word} is not there: “{folder.name}” is no folder.")
    pictures = layout.read(folder)
    for picture in pictures:
        for task in picture.labels:
            picture.of(task)  # compares the sizes
    for task in tasks:
        if not any(task in picture.labels and picture.labels[task].any() for picture in pictures):
            raise BadRequestError(f"“{folder.name}” outlines no {task}: its label maps are missing or empty.")
    return pictures


def split_set(
    pictures: Sequence[FolderPicture], validation: Sequence[str] = (), test: Sequence[str] = ()
) -> dict[str, list[FolderPicture]]:
    """Pictures by part: as named (slides or pictures), else as the set has it, else a fifth of the slides each.

    The fifths are of the slides that are left for training, by a fixed shuffle; of fewer than three none is held out.
    Names that the set does not have are passed over.
    """
    parts = [picture.part or PARTS[0] for picture in pictures]
    for part, names in ((PARTS[1], validation), (PARTS[2], test)):
        parts = [
            part if each.slide in names or each.name in names else own
            for each, own in zip(pictures, parts, strict=True)
        ]  # fmt: skip
    rng = np.random.default_rng(SPLIT_SEED)
    every = len({picture.slide for picture in pictures})
    for part in (PARTS[2], PARTS[1]):
        free = sorted({each.slide for each, own in zip(pictures, parts, strict=True) if own == PARTS[0]})
        if part not in parts and len(free) >= 3:
            chosen = {free[place] for place in rng.permutation(len(free))[: max(1, round(HELD_OUT * every))]}
            parts = [
                part if each.slide in chosen and own == PARTS[0] else own
                for each, own in zip(pictures, parts, strict=True)
            ]  # fmt: skip
    return {part: [each for each, own in zip(pictures, parts, strict=True) if own == part] for part in PARTS}
