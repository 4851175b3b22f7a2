"""Slides as grids of patches with labels, as paper D cuts them (Takahama et al. 2019, section 4.1), at ×20.

A patch has 256 stored pixels a side; it is kept, and labelled, by the strict shares of `patch_grid.ShareRules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely

from wsi_ml.data.camelyon import CamelyonSlide, camelyon_regions, find_camelyon
from wsi_ml.data.library_patches import annotated_library
from wsi_ml.data.patch_grid import NOLABEL, ShareRules, kept_cells, patch_labels
from wsi_ml.data.patch_reader import AnnotatedSlide, PatchReader
from wsi_ml.data.patch_truth import MaskTruth, OutlineTruth, Truth, grid_of, tissue_shares
from wsi_ml.errors import BadRequestError
from wsi_ml.slides.reading import open_slide

SIDE = 256
"""Stored pixels on a side of a patch."""
NODE = "_node_"
"""Parts the patient from the node in the names of CAMELYON17."""
HELD_OUT = 0.2
"""Share of the patients for the test, and of the others for the validation."""


@dataclass(frozen=True)
class Cutting:
    """How slides are cut into patches."""

    side: int = SIDE
    rules: ShareRules = field(default_factory=ShareRules)
    tissue: str = "saturation"
    """How tissue is found; see patch_truth.tissue_shares."""


@dataclass(frozen=True)
class PatchSlide:
    """The kept patches of one slide, in reading order."""

    name: str
    pixels: PatchReader
    side: int
    cells: np.ndarray
    """N×2 int: row and column on the slide's grid."""
    labels: np.ndarray
    """int64 N: TUMOUR, NORMAL or NOLABEL of patch_grid."""

    def read(self, number: int) -> np.ndarray:
        """Pixels of patch `number` as the store keeps them, uint8 side×side×3."""
        row, column = self.cells[number].tolist()
        return self.pixels.read(column * self.side, row * self.side, self.side).finished()[0]


class SlideSplit(NamedTuple):
    """Names of slides by their use; no patient is in two of them."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def cut_slide(pixels: PatchReader, truth: Truth | None, cutting: Cutting = Cutting()) -> PatchSlide:
    """The patches of a slide; without truth none has a label. Raises BadRequestError for a slide without tissue."""
    grid = grid_of(pixels.size, cutting.side)
    try:
        cells = kept_cells(tissue_shares(pixels, grid, cutting.tissue), cutting.rules)
    except BadRequestError as error:
        raise BadRequestError(f"“{pixels.name}”: {error}") from error
    labels = np.full(len(cells), NOLABEL, np.int64)
    if truth is not None:
        tumour, normal = (shares[cells[:, 0], cells[:, 1]] for shares in truth.shares(grid))
        labels = patch_labels(tumour, normal, cutting.rules)
    return PatchSlide(pixels.name, pixels, cutting.side, cells, labels)


def library_slides(
    root: Path, layer: str, tumour: Sequence[str], normal: Sequence[str], cutting: Cutting = Cutting()
) -> list[PatchSlide]:
    """Slides of a library with the polygons of a layer; classes not named are without label.

    Without classes in `normal`, all that is not tumour is. Raises BadRequestError for a class that no slide has.
    """
    slides = annotated_library(root, layer)
    there = sorted({name for slide in slides for name in slide.regions})
    missing = [name for name in (*tumour, *normal) if name not in there]
    if missing or not tumour:
        raise BadRequestError(
            f"There is no class {missing[0] if missing else 'named as tumour'!r} in the layers; "
            f"there are {', '.join(there)}. Name them with the keys tumour and normal."
        )
    return [cut_slide(slide.pixels, _library_truth(slide, tumour, normal), cutting) for slide in slides]


def _library_truth(slide: AnnotatedSlide, tumour: Sequence[str], normal: Sequence[str]) -> OutlineTruth:
    def outlines(names: Sequence[str]) -> list[shapely.Geometry]:
        return [outline for name in names for outline in slide.regions.get(name, ())]

    return OutlineTruth(outlines(tumour), outlines(normal) if normal else None)


def camelyon_slides(
    folder: Path, cutting: Cutting = Cutting(), mpp: float | None = None, mask_tumour: int = 2, mask_normal: int = 1
) -> list[PatchSlide]:
    """Slides of CAMELYON16 or 17 with outlines (XML), else masks; a slide known to be normal is normal all over.

    Slides of which nothing is known are kept without labels: their stage can still be told. Raises BadRequestError for
    a folder without slides.
    """
    slides = []
    for found in find_camelyon(folder):
        pixels = PatchReader(open_slide(found.slide), mpp=mpp)
        slides.append(cut_slide(pixels, _camelyon_truth(found, pixels, mask_tumour, mask_normal), cutting))
    return slides


def _camelyon_truth(found: CamelyonSlide, pixels: PatchReader, mask_tumour: int, mask_normal: int) -> Truth | None:
    if found.annotation is not None:
        # What is outlined as normal lies in tumour and is taken out of it; all the rest is normal anyway.
        tumour, _ = camelyon_regions(found.annotation, pixels.outline_size, pixels.region_scale)
        return OutlineTruth(tumour)
    if found.mask is not None:
        return MaskTruth(found.mask, pixels.size, mask_tumour, mask_normal)
    return OutlineTruth([]) if found.is_tumour is False else None


def split_names(names: Sequence[str], validation: Sequence[str], test: Sequence[str], seed: int) -> SlideSplit:
    """Slides by patient: those named, or where none are named a fifth for the test and a fifth of the rest (D3).

    Raises BadRequestError for a name that is not there, for a patient in two parts, and where nothing is left.
    """
    unknown = [name for name in (*validation, *test) if name not in names]
    if unknown:
        raise BadRequestError(
            f"The split names slides that are not there: {', '.join(unknown)}; there are {', '.join(names)}."
        )
    if not validation and not test:
        validation, test = _drawn_split(names, seed)
    parts = SlideSplit(
        tuple(name for name in names if name not in (*validation, *test)), tuple(validation), tuple(test)
    )
    whose = [{patient_of(name) for name in part} for part in parts]
    shared = sorted((whose[0] & whose[1]) | (whose[0] & whose[2]) | (whose[1] & whose[2]))
    if shared:
        raise BadRequestError(f"The patient {shared[0]} is in two parts of the split.")
    if not parts.training:
        raise BadRequestError("No slide is left for training.")
    return parts


def patient_of(name: str) -> str:
    """The patient a slide is of: CAMELYON17 names it; else every slide is its own."""
    return name.split(NODE)[0]


def _drawn_split(names: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Names for validation and test: whole patients of a fixed shuffle; none where there are fewer than three."""
    patients = sorted({patient_of(name) for name in names})
    if len(patients) < 3:
        return [], []
    order = [patients[place] for place in np.random.default_rng(seed).permutation(len(patients))]
    tested = max(1, round(HELD_OUT * len(order)))
    watched = max(1, round(HELD_OUT * (len(order) - tested)))
    test, validation = order[:tested], order[tested : tested + watched]
    return (
        [name for name in names if patient_of(name) in validation],
        [name for name in names if patient_of(name) in test],
    )
