"""Objects of an instance model's maps: seeds flooded over their mask, in a number of steps that is fixed.

A watershed in rounds, after Graham and others' post-processing (Cerberus, 2022): seeds are connected pixels of high
interior, the mask is where interior or boundary is likely, and the mask is given to the seeds from high interior to
low. All pixels of a round are decided at once from the round before and the number of rounds is fixed, so what becomes
of a pixel depends on nothing further than FLOOD_REACH pixels from it, but for the seeds' own shapes. That makes a map
that is flooded in parts equal to one flooded at once; a priority queue (OpenCV, scikit-image) has no such bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from wsi_ml.inference.polygons import first_pixels

LEVELS, ROUNDS, LAST_ROUNDS = 8, 2, 8
FLOOD_REACH = LEVELS * ROUNDS + LAST_ROUNDS
"""Pixels that a seed can grow, and that a pixel's fate can hang on: 24."""


@dataclass(frozen=True)
class InstanceSettings:
    """How objects are found; shares are of 1, lengths in map pixels."""

    seed_threshold: float = 0.5
    """Least interior of a seed's pixels, which also must be more interior than boundary."""
    mask_threshold: float = 0.5
    """Least sum of interior and boundary of an object's pixels."""
    min_seed_px: int = 4
    """Least number of pixels of a seed."""
    fill_holes: bool = True
    """Whether a hole that one object surrounds becomes part of it."""
    max_object_px: int = 512
    """Longest side of a seed's box; larger ones are cut along lines this far apart, fixed on the map."""

    @staticmethod
    def read(postprocess: Mapping[str, Any], mask_threshold: float | None) -> InstanceSettings:
        """The settings among a card's postprocess values; `mask_threshold` goes before its value."""
        names = InstanceSettings.__dataclass_fields__
        given = {name: postprocess[name] for name in names if name in postprocess}
        return InstanceSettings(**given | ({} if mask_threshold is None else {"mask_threshold": mask_threshold}))

    @property
    def reach(self) -> int:
        """See `wsi_ml.inference.instances.ObjectFinder`."""
        return FLOOD_REACH

    @property
    def beside(self) -> int:
        """See `wsi_ml.inference.instances.ObjectFinder`: all channels tell of the objects themselves."""
        return 0

    def find(self, channels: np.ndarray, map_origin: tuple[int, int]) -> Objects:
        """See `wsi_ml.inference.instances.ObjectFinder`."""
        return find_objects(channels[0], channels[1], self, map_origin)


@dataclass(frozen=True)
class Objects:
    """The objects of a part of the map."""

    labels: np.ndarray
    """int32 H×W, 0 for none; each object is 4-connected; numbers rise with the seeds' first pixels by rows."""
    cut_seeds: np.ndarray
    """n × 4, boxes (left, top, right, bottom) of the seeds that touch the edge of the part."""


def least_byte(share: float, floor: int = 0) -> int:
    """The least byte, not below `floor`, whose share of 255 is at least `share`."""
    return max(floor, int(np.ceil(share * 255 - 1e-6)))


def find_objects(
    interior: np.ndarray, boundary: np.ndarray, settings: InstanceSettings, map_origin: tuple[int, int]
) -> Objects:
    """Objects of uint8 maps H×W (probability · 255); `map_origin` is (x, y) of the first pixel on the map."""
    mask = interior.astype(np.uint16) + boundary >= least_byte(settings.mask_threshold, 1)
    seeds = (interior >= least_byte(settings.seed_threshold, 1)) & (interior > boundary) & mask
    labels, cut_seeds = _seeds(seeds, settings, map_origin)
    if labels.any():
        labels = _flood(labels, mask, interior)
    return Objects(_filled(labels) if settings.fill_holes else labels, cut_seeds)


def _seeds(seeds: np.ndarray, settings: InstanceSettings, map_origin: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(seeds.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    height, width = seeds.shape
    left, top, right, bottom = boxes[:, 0], boxes[:, 1], boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    cut = (left == 0) | (top == 0) | (right == width) | (bottom == height)
    cut[0] = False
    large = np.flatnonzero((boxes[1:, 2:4] > settings.max_object_px).any(axis=1)) + 1
    if len(large):
        count, labels = _diced(labels, count, large, settings.max_object_px, map_origin)
    kept = np.bincount(labels.ravel(), minlength=count) >= settings.min_seed_px
    kept[0] = False
    first = first_pixels(labels, count)
    numbers = np.zeros(count, np.int32)
    chosen = np.flatnonzero(kept)
    numbers[chosen[np.argsort(first[chosen])]] = np.arange(1, len(chosen) + 1)
    return numbers[labels], np.stack([left, top, right, bottom], -1)[cut]


def _diced(
    labels: np.ndarray, count: int, large: np.ndarray, side: int, map_origin: tuple[int, int]
) -> tuple[int, np.ndarray]:
    """Labels in which the large ones are cut along the map's lines `side` apart; what is left of each is connected."""
    is_large = np.zeros(count, bool)
    is_large[large] = True
    mask = is_large[labels]
    labels = np.where(mask, 0, labels)
    height, width = labels.shape
    for y0 in range(-(map_origin[1] % side), height, side):
        for x0 in range(-(map_origin[0] % side), width, side):
            tile = slice(max(y0, 0), y0 + side), slice(max(x0, 0), x0 + side)
            own = np.ascontiguousarray(mask[tile]).view(np.uint8)
            found, parts = cv2.connectedComponents(own, connectivity=4, ltype=cv2.CV_32S)
            np.add(parts, count - 1, out=labels[tile], where=own.view(bool))
            count += found - 1
    return count, labels


def _flood(labels: np.ndarray, mask: np.ndarray, interior: np.ndarray) -> np.ndarray:
    """Labels grown over the mask, from high interior to low."""
    padded = np.pad(labels, 1)
    heights = np.pad(interior, 1).ravel()
    width = padded.shape[1]
    flat = padded.ravel()
    waiting = np.flatnonzero(np.pad(mask, 1).ravel() & (flat == 0))
    steps = np.array([-width, -1, 1, width])
    for level in range(1, LEVELS + 1):
        # The bytes that a level adds: 255 · (1 − level / LEVELS) and more.
        is_open = heights[waiting] >= 255 * (LEVELS - level) // LEVELS
        active, waiting = waiting[is_open], waiting[~is_open]
        for _ in range(ROUNDS + (LAST_ROUNDS if level == LEVELS else 0)):
            reached, owners = _step(flat, heights, active, steps)
            if not reached.any():
                break
            flat[active[reached]] = owners[reached]
            active = active[~reached]
        waiting = np.concatenate([waiting, active])
    return padded[1:-1, 1:-1]


def _step(
    flat: np.ndarray, heights: np.ndarray, active: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(which pixels are reached, by which label): the highest neighbour's, of equal ones the lowest label."""
    best = np.zeros(len(active), np.int64)
    for step in steps:
        owner = flat[active + step].astype(np.int64)
        claim = (heights[active + step].astype(np.int64) << 32) + ((1 << 32) - owner)
        np.maximum(best, np.where(owner > 0, claim, 0), out=best)
    return best > 0, (-best) & 0xFFFFFFFF


def _filled(labels: np.ndarray) -> np.ndarray:
    """Labels in which the holes that one label surrounds are its own; what touches the edge is no hole."""
    count, parts = cv2.connectedComponents((labels == 0).view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    is_hole = np.ones(count, bool)
    is_hole[0] = False
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        is_hole[edge] = False
    pixels = np.flatnonzero(is_hole[parts])
    if not len(pixels):
        return labels
    flat, hole = labels.ravel(), parts.ravel()[pixels]
    lowest, highest = np.full(count, np.iinfo(np.int32).max, np.int32), np.zeros(count, np.int32)
    for step in (-labels.shape[1], -1, 1, labels.shape[1]):
        beside = flat[pixels + step]
        np.minimum.at(lowest, hole[beside > 0], beside[beside > 0])
        np.maximum.at(highest, hole, beside)
    filled = flat.copy()
    filled[pixels] = np.where(lowest == highest, highest, 0)[hole]
    return filled.reshape(labels.shape)
