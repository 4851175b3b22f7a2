"""A slide as a grid of patches: which are kept, what they are labelled, where they lie on the map of features.

Rules of Takahama et al. 2019, section 4.1: patches of 256 px without overlap, kept and labelled by strict shares of
their pixels. Cells are (row, column) of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wsi_ml.errors import BadRequestError

NOLABEL, NORMAL, TUMOUR = -1, 0, 1


@dataclass(frozen=True)
class ShareRules:
    """Shares of a patch's pixels that must be passed, strictly."""

    tissue: float = 0.8
    """Of tissue, for the patch to be kept."""
    tumour: float = 0.2
    """Annotated as tumour, for a tumour patch; looked at first."""
    normal: float = 0.8
    """Annotated as normal, for a normal patch."""


class Placement(NamedTuple):
    """Where patches lie on a square map, and which of them fit on it."""

    kept: np.ndarray
    """Numbers of the patches on the map, ascending."""
    rows: np.ndarray
    columns: np.ndarray
    """Cells of these patches on the map."""


def cell_shares(mask: np.ndarray, side: int) -> np.ndarray:
    """Share of true pixels in each whole side×side cell of a mask, float64 ⌊H/side⌋×⌊W/side⌋."""
    if mask.ndim != 2 or side < 1:
        raise BadRequestError(f"Cells of side {side} cannot be cut from a mask of shape {mask.shape}.")
    rows, columns = mask.shape[0] // side, mask.shape[1] // side
    whole = mask[: rows * side, : columns * side].astype(bool)
    return whole.reshape(rows, side, columns, side).mean(axis=(1, 3))


def kept_cells(tissue_shares: np.ndarray, rules: ShareRules = ShareRules()) -> np.ndarray:
    """Cells with tissue enough, N×2 int (row, column) in reading order; raises BadRequestError where there is none."""
    cells = np.argwhere(tissue_shares > rules.tissue)
    if not len(cells):
        raise BadRequestError(
            f"No patch has more than {rules.tissue:.0%} tissue: the slide is empty, or its tissue was not found."
        )
    return cells


def patch_labels(tumour_shares: np.ndarray, normal_shares: np.ndarray, rules: ShareRules = ShareRules()) -> np.ndarray:
    """TUMOUR, else NORMAL, else NOLABEL of each patch, int64, from the annotated shares of its pixels."""
    labels = np.where(normal_shares > rules.normal, NORMAL, NOLABEL)
    return np.where(tumour_shares > rules.tumour, TUMOUR, labels).astype(np.int64)


def centred(cells: np.ndarray, side: int) -> Placement:
    """Places of cells on a map of side×side with the middle of their box at the map's; what sticks out is left out."""
    if not len(cells):
        raise BadRequestError("There are no patches to be placed.")
    low, high = cells.min(axis=0), cells.max(axis=0)
    # Whole cells: a box that cannot lie exactly in the middle lies half a cell towards the top left.
    moved = cells - low + (side - (high - low + 1)) // 2
    inside = ((moved >= 0) & (moved < side)).all(axis=1)
    return Placement(np.flatnonzero(inside), moved[inside, 0], moved[inside, 1])


def label_map(labels: np.ndarray, placement: Placement, side: int) -> np.ndarray:
    """Labels of patches on their map, int64 side×side, NOLABEL elsewhere."""
    placed = np.full((side, side), NOLABEL, np.int64)
    placed[placement.rows, placement.columns] = labels[placement.kept]
    return placed
