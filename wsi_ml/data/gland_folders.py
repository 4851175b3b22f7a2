"""The published sets of glands outlined by hand, as they come: GlaS (Sirinukunwattana et al. 2017) and CRAG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsi_ml.data.instance_files import FolderPicture, as_types, pictures_of, read_label_map, read_rgb, read_table
from wsi_ml.errors import BadRequestError

GRADES = ("Benign gland", "Malignant gland")
"""Types of GlaS: the grade of a gland's picture."""
GLAS_PARTS = {"train": "training", "testA": "test", "testB": "test"}
CRAG_PARTS = {"train": "training", "valid": "test"}
MASK_ENDING = "_anno"


def read_glas(folder: Path) -> list[FolderPicture]:
    """`train_1.bmp` with `train_1_anno.bmp`, testA and testB; `Grade.csv` gives patients and grades, if it is there.

    The published split parts pictures, not patients. Raises FileNotFoundError, BadRequestError.
    """
    masks = sorted(folder.rglob(f"*{MASK_ENDING}.bmp"))
    if not masks:
        raise FileNotFoundError(f"“{folder.name}” holds no GlaS pictures (train_1.bmp with train_1_anno.bmp).")
    bare = {path.stem for path in folder.rglob("*.bmp")} - {path.stem for path in masks}
    alone = sorted(bare - {path.stem.removesuffix(MASK_ENDING) for path in masks})
    if alone:
        raise FileNotFoundError(f"“{folder.name}” lacks the file “{alone[0]}{MASK_ENDING}.bmp”.")
    tables = sorted(folder.rglob("Grade.csv"))
    grades = _grades(tables[0]) if tables else {}
    return [_glas_picture(mask, grades) for mask in masks]


def _grades(path: Path) -> dict[str, tuple[str, int]]:
    """Picture → (patient, type from 1)."""
    rows = read_table(path, ("name", "patient ID", "grade (GlaS)"))
    kinds = {name.split()[0].lower(): number for number, name in enumerate(GRADES, start=1)}
    wrong = [row for row in rows if row["grade (GlaS)"].lower() not in kinds]
    if wrong:
        raise BadRequestError(
            f"Grade.csv gives “{wrong[0]['name']}” the grade {wrong[0]['grade (GlaS)']!r}, not {' or '.join(kinds)}."
        )
    return {row["name"]: (row["patient ID"], kinds[row["grade (GlaS)"].lower()]) for row in rows}


def _glas_picture(mask: Path, grades: dict[str, tuple[str, int]]) -> FolderPicture:
    name = mask.stem.removesuffix(MASK_ENDING)
    part = GLAS_PARTS.get(name.partition("_")[0])
    if part is None:
        raise BadRequestError(f"“{name}.bmp” is of no part of GlaS; names begin with {', '.join(GLAS_PARTS)}.")
    if grades and name not in grades:
        raise BadRequestError(f"Grade.csv does not name “{name}”.")
    rgb, labels = read_rgb(mask.with_name(f"{name}.bmp")), read_label_map(mask)
    patient, kind = grades.get(name, (name, 0))
    types = {"gland": as_types(np.full(labels.shape, kind), labels, GRADES, name)} if kind else {}
    return FolderPicture(name, f"patient {patient}" if kind else name, part, rgb, {"gland": labels}, types)


def read_crag(folder: Path) -> list[FolderPicture]:
    """`train` and `valid`, each with `Images` and `Annotation`, files of one name; `valid` is the set's test.

    Raises FileNotFoundError, BadRequestError.
    """
    found = []
    for own, part in CRAG_PARTS.items():
        for path in pictures_of(folder / own / "Images"):
            labels = read_label_map(folder / own / "Annotation" / f"{path.stem}.png")
            found.append(FolderPicture(path.stem, path.stem, part, read_rgb(path), {"gland": labels}))
    if not found:
        raise FileNotFoundError(f"“{folder.name}” holds no CRAG pictures (train/Images, valid/Images).")
    return found
