"""Objects of a whole map, found block by block as if it had been flooded at once.

Each block is read with a margin. An object belongs to the block that holds its first pixel by rows. The margin grows
until nothing that is unknown beyond it can reach an object of the block:

* What becomes of a pixel depends on pixels at most `reach` away, and on which seeds those belong to.
* A seed is known when it lies inside the margin; one that touches its edge is not, nor is what lies beyond the edge.
* So a pixel more than `reach` + 1 from both is as in the whole map, and an object whose pixels and their neighbours
  are all that far is whole and right.

Seeds of more than `max_object_px` are cut along lines fixed on the map, so a margin of 2 · max_object_px and three
times `reach` always suffices: there a seed that touches the edge and matters is known to be too large. Hence the
same objects for blocks of any size, none lost, none twice, in bounded memory.

How objects are found is an `ObjectFinder`'s: the flood of `watershed`, or paper C's rules in `cerberus_finder`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely

from wsi_ml.geometry import Region, Size, clip, grow
from wsi_ml.inference.polygons import first_pixels, label_polygons
from wsi_ml.inference.watershed import Objects

BLOCK = 2048
"""Side of a block in map pixels."""
MARGIN = 96
"""Map pixels around a block at first: enough for nuclei."""

ChannelReader = Callable[[Region], np.ndarray]
"""Gives uint8 C×h×w of a box inside the map: interior, boundary, one channel for each type that is voted on, then
what the finder needs beside."""


class ObjectFinder(Protocol):
    """A way to find objects whose result at a pixel depends on what is near, and on whole seeds near it."""

    @property
    def reach(self) -> int:
        """How far, in map pixels, what is not known can change a pixel that belongs to another seed."""
        ...

    @property
    def beside(self) -> int:
        """How many of the last channels tell of something other than the objects and their types."""
        ...

    @property
    def max_object_px(self) -> int:
        """Longest side of a seed's box; larger ones are cut along lines this far apart, fixed on the map."""
        ...

    def find(self, channels: np.ndarray, map_origin: tuple[int, int]) -> Objects:
        """Objects of uint8 maps C×H×W (probability · 255); `map_origin` is (x, y) of the first pixel on the map."""
        ...


@dataclass(frozen=True)
class Instances:
    """Objects as columns, sorted by their first pixels by rows."""

    polygons: np.ndarray
    """Object array, in map pixels."""
    types: np.ndarray
    """Index of the type that most pixels have, 0 without types."""
    pixels: np.ndarray
    means: np.ndarray
    """Mean interior of the pixels, 0 to 255."""


def block_boxes(size: Size, side: int = BLOCK) -> list[Region]:
    """The blocks of a map, by rows."""
    corners = ((x, y) for y in range(0, size.height, side) for x in range(0, size.width, side))
    return [clip(Region(x, y, side, side), size) for x, y in corners]


def block_instances(
    read: ChannelReader,
    size: Size,
    block: Region,
    finder: ObjectFinder,
    *,
    tolerance: float = 0.0,
    least: int = 1,
    margin: int = MARGIN,
) -> Instances:
    """The objects of at least `least` pixels whose first pixel lies in `block`; `tolerance` as of `label_polygons`."""
    widest = 2 * finder.max_object_px + 3 * finder.reach + 2
    while True:
        margin = min(margin, widest)
        window = grow(block, margin, size)
        channels = read(window)
        objects = finder.find(channels, (window.x, window.y))
        owned, is_certain = _owned(objects, block, window, size, finder.reach + 2)
        if is_certain or margin == widest:
            return _instances(channels[: len(channels) - finder.beside], owned, window, tolerance, least)
        margin *= 2


def _owned(objects: Objects, block: Region, window: Region, size: Size, reach: int) -> tuple[np.ndarray, bool]:
    """(labels of the objects whose first pixel lies in the block, 0 elsewhere; whether they are certain)."""
    labels = objects.labels
    count = int(labels.max()) + 1
    left, top = block.x - window.x, block.y - window.y
    inside = labels[top : top + block.height, left : left + block.width]
    first = first_pixels(labels, count)
    row, column = first // window.width - top, first % window.width - left
    own = (row >= 0) & (row < block.height) & (column >= 0) & (column < block.width)
    own[0] = False
    touching = np.zeros(count, bool)
    touching[inside.ravel()] = True
    unknown = _unknown_boxes(objects.cut_seeds, window, size, reach)
    is_certain = not _reaches(unknown, labels, touching, (left, top, left + block.width, top + block.height))
    return np.where(own[labels], labels, 0), is_certain


def _unknown_boxes(cut_seeds: np.ndarray, window: Region, size: Size, reach: int) -> np.ndarray:
    """Boxes (left, top, right, bottom) in the window that what is unknown beyond its edges may reach."""
    width, height = window.width, window.height
    is_cut = np.array([window.x > 0, window.y > 0, window.x_end < size.width, window.y_end < size.height])
    left_top = [[-1, 0, 0, height], [0, -1, width, 0]]
    beyond = np.array([*left_top, [width, 0, width + 1, height], [0, height, width, height + 1]])
    at_edge = cut_seeds == [0, 0, width, height]
    boxes = np.concatenate([beyond[is_cut], cut_seeds[(at_edge & is_cut).any(axis=1)]])
    low, high = (boxes[:, :2] - reach).clip(0), np.minimum(boxes[:, 2:] + reach, [width, height])
    return np.concatenate([low, high], axis=1)


def _reaches(boxes: np.ndarray, labels: np.ndarray, touching: np.ndarray, block: tuple[int, int, int, int]) -> bool:
    """Whether a box meets the block or an object that touches the block."""
    meets = (boxes[:, :2] < block[2:]).all(axis=1) & (boxes[:, 2:] > block[:2]).all(axis=1)
    if meets.any():
        return True
    near = np.zeros(len(touching), bool)
    for left, top, right, bottom in boxes.tolist():
        near[labels[top:bottom, left:right].ravel()] = True
    return bool((near & touching)[1:].any())


def _instances(channels: np.ndarray, labels: np.ndarray, window: Region, tolerance: float, least: int) -> Instances:
    """The labelled objects of at least `least` pixels."""
    flat = labels.ravel()
    pixels = np.bincount(flat)
    kept = pixels >= least
    kept[0] = False
    # Numbers rise with the seeds' first pixels; an object's own may come earlier.
    numbers, polygons = label_polygons(np.where(kept[labels], labels, 0), tolerance)
    order = np.argsort(first_pixels(labels, len(pixels))[numbers])
    numbers, polygons = numbers[order], polygons[order]
    totals = np.bincount(flat, channels[0].ravel())[numbers]
    types = np.zeros(len(numbers), np.intp)
    if len(channels) > 3:
        chosen = np.flatnonzero(kept[flat])
        best = channels[2:].reshape(len(channels) - 2, -1)[:, chosen].argmax(axis=0)
        votes = np.bincount(flat[chosen] * (len(channels) - 2) + best, minlength=len(pixels) * (len(channels) - 2))
        types = votes.reshape(len(pixels), -1)[numbers].argmax(axis=1)
    polygons = shapely.transform(polygons, lambda points: points + np.array([window.x, window.y]))
    return Instances(polygons, types, pixels[numbers], totals / pixels[numbers])
