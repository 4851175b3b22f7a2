"""Paper C's objects on whole slides: the rules of `cerberus_objects`, the same whatever the blocks a map is read in.

Everything in those rules happens within connected parts of what is told likely (over corners too), or within the reach
of a growth. So a part that the edge of a block cuts is what is not known, and no more. Parts larger than
`max_object_px` are cut along lines of one pixel, fixed on the map. Sizes follow from µm per map pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from wsi_ml.data.instance_targets import relabelled
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.cerberus_objects import (
    BASE_RULES,
    HALF,
    PLUS_RULES,
    find_objects_of,
    grown_by,
    lumina_within,
)
from wsi_ml.inference.instances import ObjectFinder
from wsi_ml.inference.watershed import InstanceSettings, Objects

RULES_MPP = 0.5
"""µm per pixel for which the rules' sizes hold."""
FULL = np.float32(255)
TARGETS = ("plus", "base")


@dataclass(frozen=True)
class CerberusFinder:
    """Objects of one task; see `ObjectFinder`."""

    task: str
    mpp: float
    """µm per map pixel."""
    threshold: float | None = None
    """In place of the task's own: of interior and contour together for nuclei, of the interior for the others."""
    target: str = "plus"
    """`base`: the boundary channel means nothing, interiors alone grow."""
    within: str = ""
    """Task of the last two channels (interior, boundary), outside whose objects nothing is kept; empty: none."""
    max_object_px: int = 512

    def __post_init__(self) -> None:
        for task in (self.task, self.within or self.task):
            if task not in BASE_RULES:
                raise BadRequestError(f"There are no rules for objects of {task!r}; there are {', '.join(BASE_RULES)}.")
        if self.target not in TARGETS:
            raise BadRequestError(f"target {self.target!r} of a card is not {' or '.join(TARGETS)}.")

    @property
    def reach(self) -> int:
        """See `ObjectFinder`: two discs may meet."""
        return 2 + max(self._grown(task) for task in (self.task, self.within) if task)

    @property
    def beside(self) -> int:
        """See `ObjectFinder`."""
        return 2 if self.within else 0

    def find(self, channels: np.ndarray, map_origin: tuple[int, int]) -> Objects:
        """See `ObjectFinder`."""
        labels, cut = self._found(self.task, channels[:2], map_origin, self.threshold)
        if self.within:
            around, around_cut = self._found(self.within, channels[-2:], map_origin, None)
            labels = relabelled(lumina_within(labels, around))
            cut = np.concatenate([cut, around_cut])
        return Objects(_numbered(labels), cut)

    @property
    def _scale(self) -> float:
        return RULES_MPP / self.mpp

    def _grown(self, task: str) -> int:
        rules = BASE_RULES if self.target == "base" else PLUS_RULES
        return grown_by(rules[task], self._scale) if task in rules else 1

    def _found(
        self, task: str, pair: np.ndarray, map_origin: tuple[int, int], threshold: float | None
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """(label map, boxes of the parts that touch the edge) of interior and boundary."""
        maps = (pair if self.target == "plus" else pair[:1]).astype(np.float32) / FULL
        maps = np.where(_lines(self._likely(task, maps, threshold), self.max_object_px, map_origin), 0, maps)
        maps = maps.astype(np.float32)
        cut = _cut_boxes(self._likely(task, maps, threshold))
        return find_objects_of(task, maps, self._scale, threshold), cut

    def _likely(self, task: str, maps: np.ndarray, threshold: float | None) -> np.ndarray:
        """Pixels whose connected parts decide."""
        if task == "nuclei" and len(maps) == 2:
            # A seed counts even where a threshold above one half leaves its surroundings out.
            return maps[0] + maps[1] > min(HALF, HALF if threshold is None else threshold)
        rules = (BASE_RULES if len(maps) == 1 else PLUS_RULES)[task]
        interior = maps[0] if len(maps) == 1 else maps[0] - (maps[1] > HALF)
        return interior > (rules.threshold if threshold is None else threshold)


def finder_of(postprocess: Mapping[str, Any], threshold: float | None, mpp: float) -> ObjectFinder:
    """The finder that a card's `postprocess` asks for; `threshold` goes before its own, `mpp` is µm per map pixel.

    `"objects": "nuclei"`, `"gland"` or `"lumen"` takes paper C's rules; without it objects are flooded from seeds.
    """
    if "objects" not in postprocess:
        return InstanceSettings.read(postprocess, threshold)
    given = {name: postprocess[name] for name in ("target", "within", "max_object_px") if name in postprocess}
    return CerberusFinder(str(postprocess["objects"]), mpp, threshold, **given)


def _parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(parts connected over edges and corners, n × 5: left, top, width, height, area of each, the outside first)."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return parts, stats


def _lines(mask: np.ndarray, side: int, map_origin: tuple[int, int]) -> np.ndarray:
    """Where parts that are too large are cut."""
    parts, stats = _parts(mask)
    large = np.asarray((stats[:, 2:4] > side).any(axis=1))
    large[0] = False
    lines = np.zeros(mask.shape, bool)
    if large.any():
        lines[-map_origin[1] % side :: side] = True
        lines[:, -map_origin[0] % side :: side] = True
        lines &= large[parts]
    return lines


def _cut_boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes (left, top, right, bottom) of the parts that touch the edge."""
    stats = _parts(mask)[1][1:]
    boxes = np.stack([stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]], axis=1)
    at_edge = (boxes == np.array([0, 0, mask.shape[1], mask.shape[0]])).any(axis=1)
    return boxes[at_edge].astype(np.int64)


def _numbered(labels: np.ndarray) -> np.ndarray:
    """The labels without gaps between their numbers, in their order."""
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    return np.where(present, np.cumsum(present), 0).astype(np.int32)[labels]
