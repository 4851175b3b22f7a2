"""Objects of paper C's maps: nuclei by watershed, glands and lumina by threshold and growth (Graham et al. 2022).

Maps are float32 K×H×W of probabilities without the background: interior and contour (`plus`), or interior alone
(`base`). Numbers are those of the authors' program, in pixels at 0.5 µm. Label maps are int32 H×W, 0 outside; parts
connect over edges, not over corners. "At least m" keeps objects of m pixels.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from wsi_ml.data.instance_targets import boxes, disc
from wsi_ml.errors import BadRequestError

HALF = 0.5
LEAST_MASK, LEAST_SEED = 8, 4
"""Pixels of a nucleus's region and of its seed, at full scale."""
BASE_NUCLEI_SIDE = 3
FORGIVEN = 0.25
"""Part of a pixel that the side of a disc may lack: slides have 0.499 or 0.502 µm per pixel where they mean 0.5."""


@dataclass(frozen=True)
class GrowthRules:
    """How interiors become objects."""

    threshold: float
    """An object's interior, less 1 where contour is above one half, is above this."""
    least: int
    """Pixels of an interior that is kept, at full scale."""
    grow: int
    """Side of the disc that it grows by, at full scale."""


PLUS_RULES: Mapping[str, GrowthRules] = {"gland": GrowthRules(0.55, 1000, 10), "lumen": GrowthRules(0.5, 150, 2)}
BASE_RULES: Mapping[str, GrowthRules] = {
    "gland": GrowthRules(0.5, 1500, 11),
    "lumen": GrowthRules(0.5, 150, 3),
    "nuclei": GrowthRules(0.5, 8, BASE_NUCLEI_SIDE),
}


def find_objects_of(
    task: str, maps: np.ndarray, scale: float = 1.0, threshold: float | None = None
) -> np.ndarray:  # fmt: skip
    """Label map of a task's objects; `scale` is map pixels per pixel at 0.5 µm (1, or 0.5 for glands on whole slides).

    `threshold` goes before the task's own. Raises BadRequestError for an unknown task or maps of another form.
    """
    if maps.ndim != 3 or maps.shape[0] not in (1, 2) or not np.issubdtype(maps.dtype, np.floating):
        raise BadRequestError(
            f"Maps are interior and contour, or interior alone, K×H×W of probabilities, not {maps.dtype} {maps.shape}."
        )
    if task not in BASE_RULES:
        raise BadRequestError(f"There are no rules for objects of {task!r}; there are {', '.join(BASE_RULES)}.")
    if task == "nuclei" and maps.shape[0] == 2:
        return nuclei_objects(maps[0], maps[1], scale, HALF if threshold is None else threshold)
    rules = (BASE_RULES if maps.shape[0] == 1 else PLUS_RULES)[task]
    rules = rules if threshold is None else replace(rules, threshold=threshold)
    interior = maps[0] if maps.shape[0] == 1 else maps[0] - (maps[1] > HALF)
    return grown_objects(interior, rules, scale)


def nuclei_objects(
    interior: np.ndarray, contour: np.ndarray, scale: float = 1.0, threshold: float = HALF
) -> np.ndarray:  # fmt: skip
    """Nuclei: seeds of high interior flooded over the region where interior or contour is likely."""
    region = (interior + contour > threshold).astype(np.uint8)
    region = cv2.erode(region, disc(BASE_NUCLEI_SIDE), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    region = _labelled(region, int(LEAST_MASK * scale * scale)) > 0
    seeds = _filled(_labelled(interior > HALF, int(LEAST_SEED * scale * scale)) > 0)
    return flood(-interior, _labelled(seeds, 1), region)


def grown_objects(interior: np.ndarray, rules: GrowthRules, scale: float) -> np.ndarray:
    """Connected interiors, each grown by a disc, its holes filled; where two then overlap, the later number stays."""
    parts = _labelled(interior > rules.threshold, int(rules.least * scale * scale))
    side = grown_by(rules, scale)
    element, grown = disc(max(1, side)), np.zeros(parts.shape, np.int32)
    for number, box in boxes(parts):
        rows, columns = (slice(max(0, part.start - side), part.stop + side) for part in box)
        mask = (parts[rows, columns] == number).astype(np.uint8)
        mask = cv2.dilate(mask, element, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        grown[rows, columns][_filled(mask > 0)] = number
    return grown


def grown_by(rules: GrowthRules, scale: float) -> int:
    """Side of the disc, in map pixels, by which interiors grow."""
    return int(rules.grow * scale + FORGIVEN)


def lumina_within(lumina: np.ndarray, glands: np.ndarray) -> np.ndarray:
    """Lumina without what lies outside every gland."""
    return np.where(glands > 0, lumina, 0).astype(np.int32)


def majority_types(labels: np.ndarray, types: np.ndarray) -> dict[int, tuple[int, float]]:
    """Number of each object → its type and the share of its pixels that tell it.

    The type most pixels have; 0, the background, only where no pixel has another. Of equals the lower one.
    """
    told = {}
    for number, box in boxes(labels):
        votes = np.bincount(types[box][labels[box] == number])
        best = int(votes[1:].argmax()) + 1 if votes[1:].any() else 0
        told[number] = best, float(votes[best] / votes.sum())
    return told


def flood(heights: np.ndarray, seeds: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Watershed by priority (Meyer 1994): from the seeds over the region, lowest height first, first come of equals.

    Seeds outside the region are not kept; a part of the region without a seed stays 0. Connected parts of the region
    do not see each other, so each becomes what it becomes alone.
    """
    inside = np.pad(region, 1).ravel()
    places = np.flatnonzero(inside)
    numbers = np.full(inside.size, -1, np.int64)
    numbers[places] = np.arange(len(places))
    width = heights.shape[1] + 2
    beside = [numbers[places + step].tolist() for step in (-width, -1, 1, width)]
    level, owner = np.pad(heights, 1).ravel()[places].tolist(), np.pad(seeds, 1).ravel()[places].tolist()
    queue = [(level[pixel], age, pixel) for age, pixel in enumerate(np.flatnonzero(owner).tolist())]
    heapq.heapify(queue)
    age = len(queue)
    while queue:
        _, _, pixel = heapq.heappop(queue)
        for side in beside:
            next_ = side[pixel]
            if next_ >= 0 and not owner[next_]:
                owner[next_] = owner[pixel]
                heapq.heappush(queue, (level[next_], age, next_))
                age += 1
    labels = np.zeros(inside.size, np.int32)
    labels[places] = owner
    return labels.reshape(heights.shape[0] + 2, width)[1:-1, 1:-1].copy()


def _labelled(mask: np.ndarray, least: int) -> np.ndarray:
    """Label map of the connected parts of at least `least` pixels, numbered from 1 by their first pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    kept = stats[:, cv2.CC_STAT_AREA] >= least
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return numbers[labels]


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes: background that does not reach the edge over edges of pixels."""
    framed = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(framed, connectivity=4, ltype=cv2.CV_32S)
    return (parts != parts[0, 0])[1:-1, 1:-1]
