"""Features of a slide's patches as a file, and placed on maps that a network reads (Takahama et al. 2019)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import safetensors
import safetensors.numpy

from wsi_ml.data.batches import batches_an_epoch
from wsi_ml.data.patch_grid import NOLABEL, Placement, centred, label_map
from wsi_ml.errors import BadRequestError, ModelUnavailableError

ENDING = ".features.safetensors"
MAPS_OF = ("slide", "lump")


@dataclass(frozen=True)
class SlideFeatures:
    """What an extractor told of the kept patches of a slide."""

    name: str
    features: np.ndarray
    """float32 N×F."""
    cells: np.ndarray
    """int64 N×2: row and column on the slide's grid."""
    labels: np.ndarray
    """int64 N, see patch_grid."""
    made_by: str
    """Checksum of the weights."""


class SlideMap(NamedTuple):
    """One map: a slide's or one lump of tissue's."""

    name: str
    numbers: np.ndarray
    """Of the patches on the map."""
    features: np.ndarray
    """float32 F×side×side, zero where no patch lies."""
    labels: np.ndarray
    """int64 side×side."""
    placement: Placement
    """Of the patches in `numbers`; its `kept` are places in this list."""


class MapBatch(NamedTuple):
    """Maps of one step."""

    maps: np.ndarray
    """float32 N×F×side×side."""
    labels: np.ndarray
    """int64 N×side×side."""


def features_bytes(found: SlideFeatures) -> bytes:
    """The content of a features file."""
    metadata = {"slide": json.dumps({"name": found.name, "made_by": found.made_by}, ensure_ascii=False)}
    arrays = {"features": found.features, "cells": found.cells.astype(np.int64), "labels": found.labels}
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)


def read_features(path: Path) -> SlideFeatures:
    """A features file; raises ModelUnavailableError where it cannot be read."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            facts = json.loads(file.metadata()["slide"])
            features, cells, labels = (file.get_tensor(name) for name in ("features", "cells", "labels"))
        return SlideFeatures(facts["name"], features, cells, labels, facts["made_by"])
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ModelUnavailableError(
            f"The features {path.name} cannot be read: {error}. Make them again with stage=features."
        ) from error


def lumps(cells: np.ndarray) -> list[np.ndarray]:
    """Numbers of the cells of each lump of tissue: cells that touch, corners too; largest first."""
    low, high = cells.min(axis=0), cells.max(axis=0)
    grid = np.zeros(high - low + 1, np.uint8)
    grid[tuple((cells - low).T)] = 1
    _, numbers = cv2.connectedComponents(grid, connectivity=8)
    lump = numbers[tuple((cells - low).T)]
    found = [np.flatnonzero(lump == number) for number in np.unique(lump)]
    return sorted(found, key=len, reverse=True)


def groups_of(cells: np.ndarray, maps_of: str) -> list[np.ndarray]:
    """Numbers of the patches of each map; raises BadRequestError for another kind of map."""
    if maps_of not in MAPS_OF:
        raise BadRequestError(f"Maps are made of a {' or a '.join(MAPS_OF)}, not of a {maps_of!r}.")
    return lumps(cells) if maps_of == "lump" else [np.arange(len(cells))]


def slide_maps(found: SlideFeatures, side: int, maps_of: str = "slide") -> list[SlideMap]:
    """The maps of a slide; patches beyond a map's side are left out, as in the paper."""
    maps = []
    for numbers in groups_of(found.cells, maps_of):
        placement = centred(found.cells[numbers], side)
        placed = np.zeros((found.features.shape[1], side, side), np.float32)
        placed[:, placement.rows, placement.columns] = found.features[numbers[placement.kept]].T
        labels = label_map(found.labels[numbers], placement, side)
        maps.append(SlideMap(found.name, numbers, placed, labels, placement))
    return maps


def shuffled(number: int, count: int, seed: Sequence[int]) -> int:
    """Which of `count` things comes as number `number`: each once an epoch, in an order drawn anew for every epoch."""
    epoch, place = divmod(number, count)
    return int(np.random.default_rng([*seed, epoch]).permutation(count)[place])


class MapRows:
    """Endless: every map with a label once an epoch, in another order each time.

    Raises BadRequestError where no cell of any map is labelled.
    """

    def __init__(self, maps: Sequence[SlideMap], batch: int, seed: int):
        self.maps = [each for each in maps if (each.labels != NOLABEL).any()]
        if not self.maps:
            raise BadRequestError("No patch on the maps to train on has a label.")
        self.size, self.seed = batch, seed

    def batch(self, index: int) -> MapBatch:
        """Batch `index`, the same at every call."""
        chosen = []
        for number in range(index * self.size, (index + 1) * self.size):
            chosen.append(self.maps[shuffled(number, len(self.maps), (self.seed, 3))])
        return MapBatch(np.stack([each.features for each in chosen]), np.stack([each.labels for each in chosen]))

    def __len__(self) -> int:
        return batches_an_epoch(len(self.maps), self.size)
