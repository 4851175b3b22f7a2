"""Folders as CAMELYON16 and CAMELYON17 come: slides as TIFF, lesions as ASAP XML or as mask TIFF, tables of truth."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import shapely

from wsi_ml.data.msu import read_regions, stored_parts
from wsi_ml.errors import AnnotationFileError, BadRequestError
from wsi_ml.geometry import Size

SLIDE_ENDINGS = (".tif", ".tiff")
MASK_END = "_mask"
TUMOUR_GROUPS = frozenset({"_0", "_1", "Tumor", "metastases", "metastasis"})
"""Groups that are tumour in the two challenges' files."""
OTHER_GROUPS = frozenset({"_2", "Exclusion", "normal"})
"""Groups that are not, and are taken out of the tumour around them."""
TABLES = ("stages.csv", "stage_labels.csv", "reference.csv")
"""Truth by slide: of CAMELYON17 (negative, itc, micro, macro) and of CAMELYON16's test (Normal, Tumor)."""
HEALTHY, DISEASED = frozenset({"negative", "normal"}), frozenset({"itc", "micro", "macro", "tumor"})


class CamelyonSlide(NamedTuple):
    """A slide and where its truth is."""

    slide: Path
    annotation: Path | None
    """ASAP XML of the lesions."""
    mask: Path | None
    """TIFF of the same size whose values are classes."""
    is_tumour: bool | None
    """None where nothing in the folder tells."""


def find_camelyon(folder: Path) -> list[CamelyonSlide]:
    """All slides below a folder, by name; `<stem>.xml` and `<stem>_mask.tif` may be anywhere below it too.

    Raises FileNotFoundError for no folder, BadRequestError for one without slides.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder “{folder.name}” with slides.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    images = {path.stem: path for path in files if path.suffix.lower() in SLIDE_ENDINGS}
    outlines = {path.stem: path for path in files if path.suffix.lower() == ".xml"}
    told = _tables(files)
    slides = []
    for stem, path in sorted(images.items()):
        if not stem.endswith(MASK_END):
            annotation = outlines.get(stem)
            slides.append(CamelyonSlide(path, annotation, images.get(stem + MASK_END), _truth(stem, annotation, told)))
    if not slides:
        raise BadRequestError(f"The folder “{folder.name}” holds no slides ({', '.join(SLIDE_ENDINGS)}).")
    return slides


def camelyon_regions(
    annotation: Path, size: Size, scale: float
) -> tuple[list[shapely.Polygon], list[shapely.Polygon]]:  # fmt: skip
    """(tumour, not tumour) of an ASAP file of a slide of `size`, in the file's plane divided by `scale`.

    What is not tumour is taken out of the tumour around it. Raises AnnotationFileError for an outline outside the slide
    and for a file without any group of the challenges.
    """
    regions = read_regions(annotation, size, scale)
    tumour = [each for group in sorted(regions.keys() & TUMOUR_GROUPS) for each in regions[group]]
    other = [each for group in sorted(regions.keys() & OTHER_GROUPS) for each in regions[group]]
    if not tumour and not other:
        names = ", ".join(sorted(regions))
        raise AnnotationFileError(
            f"“{annotation.name}” has only the groups {names}; those of tumour are {', '.join(sorted(TUMOUR_GROUPS))}."
        )
    left = shapely.union_all(tumour).difference(shapely.union_all(other))
    return [part for part in stored_parts(left, 1.0) if isinstance(part, shapely.Polygon) and not part.is_empty], other


def _truth(stem: str, annotation: Path | None, told: dict[str, bool]) -> bool | None:
    if stem in told:
        return told[stem]
    if annotation is not None or stem.lower().startswith("tumor"):
        return True
    return False if stem.lower().startswith("normal") else None


def _tables(files: list[Path]) -> dict[str, bool]:
    """Whether there is tumour on a slide, by the folder's tables; rows of patients and unknown words tell nothing."""
    told: dict[str, bool] = {}
    for path in files:
        if path.name in TABLES:
            with path.open(newline="", encoding="utf-8-sig") as lines:
                for row in csv.reader(lines):
                    word = row[1].strip().lower() if len(row) > 1 else ""
                    if word in HEALTHY | DISEASED:
                        told[Path(row[0].strip()).stem] = word in DISEASED
    return told
