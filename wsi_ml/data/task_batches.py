"""Batches that mix tasks (paper C, section 3.4): each row knows one task; rows of a batch have one size.

Patches for the patch class are smaller than pictures with instances, so a batch holds either these or those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wsi_ml.data.augment import dihedral
from wsi_ml.data.batches import NO_CLASS
from wsi_ml.data.instance_targets import (
    GLAND_SIDE,
    NUCLEI_SIDE,
    contour_target,
    interior_target,
    point_target,
    relabelled,
    weight_map,
)
from wsi_ml.data.task_augment import vary_pixels
from wsi_ml.data.task_pictures import POINTS, TaskPicture
from wsi_ml.data.tissue import TissuePatch
from wsi_ml.errors import BadRequestError

PATCH = "patch"
TARGETS: Mapping[str, int] = {"base": 2, "plus": 3}
"""Channels of an instance task by its target: without and with contour."""
SAMPLERS = ("paper", "authors", "fixed")
POINT_WEIGHT = 5.0
"""Loss weight of a disc's pixels: they are few."""
PATCH_SHARE = 0.3
"""Share of batches that are of patches (paper; the authors' program takes one in four)."""


class TaskBatch(NamedTuple):
    """Rows of one size; in a batch of patches the maps are empty of meaning and all 0."""

    rgb: np.ndarray
    """uint8 N×S×S×3."""
    task: np.ndarray
    """int64 N: place of the row's task in the source's `tasks`."""
    target: np.ndarray
    """uint8 N×S×S: 0 background, 1 interior, 2 contour, of the instances of the row's task."""
    weights: np.ndarray
    """float32 N×S×S: weight of each pixel in the loss of instances."""
    types: np.ndarray
    """uint8 N×S×S: type of each pixel's instance, 0 outside and where types are not known."""
    labels: np.ndarray
    """int64 N: class of a patch, −1 for other rows."""


class TaskRow(NamedTuple):
    """One sample, parts as of `TaskBatch`."""

    rgb: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    types: np.ndarray
    label: int


@dataclass(frozen=True)
class TaskBatchSettings:
    """What a batch is made of."""

    batch: int = 27
    """Rows."""
    side: int = 448
    """Side of pictures with instances."""
    patch_side: int = 144
    """Side of patches."""
    target: str = "plus"
    """`base` (eroded interior) or `plus` (interior and contour)."""
    sampler: str = "paper"
    """`paper` draws by chance, `authors` takes turns, `fixed` draws one task a batch."""
    patch_share: float = PATCH_SHARE
    """Samplers `paper` and `fixed`: chance that a batch is of patches."""
    point_radius: float = 3.0
    """Radius in pixels of the discs that tasks of points learn."""

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise BadRequestError(f"target {self.target!r} is not {' or '.join(TARGETS)}.")
        if self.sampler not in SAMPLERS:
            raise BadRequestError(f"sampler {self.sampler!r} is not {', '.join(SAMPLERS)}.")
        if self.batch < 1 or min(self.side, self.patch_side) < 16 or any(s % 16 for s in (self.side, self.patch_side)):
            raise BadRequestError("A batch has at least one row, and its sides are multiples of 16.")
        if self.point_radius < 1:
            raise BadRequestError(f"point_radius {self.point_radius} is below 1 px.")
        if not 0 <= self.patch_share <= 1:
            raise BadRequestError(f"patch_share {self.patch_share} is not between 0 and 1.")


class Turn(NamedTuple):
    """Which sample a row shows."""

    task: int
    """Place in `tasks`."""
    item: int
    """Place among the task's pictures or patches."""


class TaskBatches:
    """Endless: batches of rows that each know one of the tasks given, any subset; see RowSource.

    `pictures` by instance task; `patches` with the names of their classes, both may be empty but not together.
    """

    def __init__(
        self,
        pictures: Mapping[str, Sequence[TaskPicture]],
        patches: Sequence[TissuePatch],
        classes: tuple[str, ...],
        settings: TaskBatchSettings,
        seed: int,
    ):
        lacking = [task for task, own in pictures.items() if not any(picture.labels.any() for picture in own)]
        if lacking:
            raise BadRequestError(f"The task {lacking[0]} has no picture with an instance to learn from.")
        if any(not 0 <= patch.label < len(classes) for patch in patches):
            raise BadRequestError(f"A patch has a class that is not among the {len(classes)} told.")
        if not pictures and not patches:
            raise BadRequestError("There is nothing to train on: no task has pictures or patches.")
        self.pictures, self.patches, self.settings, self.seed = dict(pictures), list(patches), settings, seed
        self.dense = tuple(self.pictures)
        self.tasks: tuple[str, ...] = (*self.dense, *((PATCH,) if patches else ()))
        """What rows are of."""
        self.classes = classes if patches else ()

    def batch(self, index: int) -> TaskBatch:
        """Batch `index`, a pure function of the seed."""
        rng = np.random.default_rng([self.seed, index])
        turns = self.turns(index)
        rows = [self._patch(turn, rng) if self._is_patch(turn) else self._picture(turn, rng) for turn in turns]
        rgb, target, weights, types = (np.stack(part) for part in list(zip(*rows, strict=True))[:4])
        labels = np.array([row.label for row in rows], np.int64)
        return TaskBatch(rgb, np.array([turn.task for turn in turns], np.int64), target, weights, types, labels)

    def turns(self, index: int) -> list[Turn]:
        """Task and sample of each row of batch `index`."""
        if self.settings.sampler == "authors":
            return self._in_turn(index)
        rng = np.random.default_rng([self.seed, index, 1])
        patches = bool(self.patches) and (not self.dense or rng.random() < self.settings.patch_share)
        if patches:
            tasks = np.full(self.settings.batch, len(self.dense))
        else:
            tasks = rng.integers(len(self.dense), size=self.settings.batch)
            tasks = tasks[:1].repeat(len(tasks)) if self.settings.sampler == "fixed" else tasks
        return [Turn(task, self._drawn(task, rng)) for task in tasks.tolist()]

    def _drawn(self, task: int, rng: np.random.Generator) -> int:
        """A sample of a task by chance: patches and pictures of equal weight evenly."""
        own = [] if task == len(self.dense) else self.pictures[self.dense[task]]
        weights = np.array([picture.weight for picture in own])
        if len(np.unique(weights)) <= 1:
            return int(rng.integers(self._count(task)))
        return int(rng.choice(len(own), p=weights / weights.sum()))

    def _in_turn(self, index: int) -> list[Turn]:
        """The program's order: with T dense tasks, one batch of patches and then T in which every row changes task.

        So in T + 1 batches every task shows as many samples as a batch has rows; a smaller set begins anew, reordered.
        """
        own = int(bool(self.patches))
        group, place = divmod(index, len(self.dense) + own)
        is_patches = bool(own) and place == 0
        turns = []
        for row in range(self.settings.batch):
            task = len(self.dense) if is_patches else (place - own + row) % len(self.dense)
            number = group * self.settings.batch + row
            round_, item = divmod(number, self._count(task))
            order = np.random.default_rng([self.seed, task, round_, 2]).permutation(self._count(task))
            turns.append(Turn(task, int(order[item])))
        return turns

    def _is_patch(self, turn: Turn) -> bool:
        return turn.task == len(self.dense)

    def _count(self, task: int) -> int:
        return len(self.patches) if task == len(self.dense) else len(self.pictures[self.dense[task]])

    def _picture(self, turn: Turn, rng: np.random.Generator) -> TaskRow:
        task = self.dense[turn.task]
        return dense_row(self.pictures[task][turn.item], task, self.settings, rng)

    def _patch(self, turn: Turn, rng: np.random.Generator) -> TaskRow:
        patch, side = self.patches[turn.item], self.settings.patch_side
        rgb = vary_pixels(middle(dihedral(patch.rgb, int(rng.integers(8))), side), rng)
        nothing = np.zeros((side, side), np.uint8)
        return TaskRow(rgb, nothing, nothing.astype(np.float32), nothing, patch.label)

    def __len__(self) -> int:
        """Batches in which every task shows its samples once on average; the program's own count for its order."""
        counts = [self._count(task) for task in range(len(self.tasks))]
        if self.settings.sampler == "authors" and self.dense:
            return len(self.tasks) * -(-max(counts[: len(self.dense)]) // self.settings.batch)
        return -(-sum(counts) // self.settings.batch)


def dense_row(
    picture: TaskPicture, task: str, settings: TaskBatchSettings, rng: np.random.Generator, vary: bool = True
) -> TaskRow:
    """A square of a picture; targets are made after the variation."""
    rgb, labels, types = picture.square(settings.side, rng, vary)
    labels = relabelled(labels)
    if task.endswith(POINTS):
        target = point_target(labels, settings.point_radius)
        return TaskRow(rgb, target, np.where(target > 0, POINT_WEIGHT, 1).astype(np.float32), types, NO_CLASS)
    erosion = disc_side(task)
    target = (contour_target if settings.target == "plus" else interior_target)(labels, erosion)
    return TaskRow(rgb, target, weight_map(labels, erosion), types, NO_CLASS)


def disc_side(task: str) -> int:
    """Side of the disc that erodes the instances of a task."""
    return GLAND_SIDE if task == "gland" else NUCLEI_SIDE


def middle(rgb: np.ndarray, side: int) -> np.ndarray:
    """The middle side×side pixels; raises BadRequestError where there are fewer."""
    height, width = rgb.shape[:2]
    if min(height, width) < side:
        raise BadRequestError(f"A patch of {width} × {height} px holds no square of {side} px.")
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])
