"""Probability of tumour of every patch of a slide, as a file; and its regions as numbers that tell a slide's class.

The 21 numbers are those of a published re-implementation of Lee & Paeng 2018, whom paper D follows: DBSCAN of the
patches above 0.58, then size, axes and probabilities of the three largest clusters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from wsi_ml.errors import BadRequestError, ModelUnavailableError

ENDING = ".heat.safetensors"
THRESHOLD = 0.58
"""Patches above this are looked at."""
REGIONS = 3
MEASURES = ("area", "major_axis", "minor_axis", "inverse_area", "mean", "maximum", "minimum")
FEATURE_NAMES = tuple(f"{measure}_{region + 1}" for region in range(REGIONS) for measure in MEASURES)


@dataclass(frozen=True)
class Heatmap:
    """What was told of the patches of one slide."""

    name: str
    cells: np.ndarray
    """int64 N×2: row and column on the slide's grid."""
    probability: np.ndarray
    """float32 N; NaN where nothing was told."""
    cell_mm: float
    """Side of a patch."""


def heatmap_bytes(heat: Heatmap) -> bytes:
    """The content of a heatmap's file."""
    metadata = {"slide": json.dumps({"name": heat.name, "cell_mm": heat.cell_mm}, ensure_ascii=False)}
    arrays = {"cells": heat.cells.astype(np.int64), "probability": heat.probability.astype(np.float32)}
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)


def read_heatmap(path: Path) -> Heatmap:
    """A heatmap's file; raises ModelUnavailableError where it cannot be read."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            facts = json.loads(file.metadata()["slide"])
            cells, probability = file.get_tensor("cells"), file.get_tensor("probability")
        return Heatmap(facts["name"], cells, probability, float(facts["cell_mm"]))
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ModelUnavailableError(
            f"The heatmap {path.name} cannot be read: {error}. Make it again with train.evaluate_multistage."
        ) from error


def likely_cells(heat: Heatmap, threshold: float = THRESHOLD) -> np.ndarray:
    """Numbers of the patches above the threshold."""
    return np.flatnonzero(np.nan_to_num(heat.probability, nan=-1.0) > threshold)


def axes_of(cells: np.ndarray) -> tuple[float, float]:
    """Major and minor axis, in cells, of the ellipse with the second moments of so many unit squares, N×2.

    The 1/12 is the moment of a square about its own middle, so a single cell has axes of 2/√3.
    """
    centred = cells - cells.mean(axis=0)
    moments = centred.T @ centred / len(cells) + np.eye(2) / 12
    smaller, larger = np.linalg.eigvalsh(moments)
    return 4 * float(np.sqrt(larger)), 4 * float(np.sqrt(smaller))


def heatmap_features(cells: np.ndarray, probability: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """FEATURE_NAMES of N likely patches and their clusters (−1: in none), float64 21; zeros for regions not there.

    Areas and axes count patches; of clusters of one size the one with the higher mean comes first.
    """
    if not len(cells) == len(probability) == len(cluster):
        raise BadRequestError(
            f"{len(cells)} patches have {len(probability)} probabilities and {len(cluster)} clusters."
        )
    rows = []
    for number in np.unique(cluster[cluster >= 0]):
        mine, told = cells[cluster == number], probability[cluster == number].astype(np.float64)
        major, minor = axes_of(mine)
        rows.append((len(mine), major, minor, 1 / len(mine), told.mean(), told.max(), told.min()))
    rows.sort(key=lambda row: (-row[0], -row[4]))
    features = np.zeros((REGIONS, len(MEASURES)))
    if rows:
        features[: min(REGIONS, len(rows))] = rows[:REGIONS]
    return features.ravel()
