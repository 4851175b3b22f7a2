"""What `train.cerberus` reads: pictures of each task from sets that know it, patches, and those it is watched with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wsi_ml.data import tissue
from wsi_ml.data.task_batches import PATCH, TARGETS, TaskBatches, TaskBatchSettings
from wsi_ml.data.task_pictures import DRAWN_TYPES, POINTS, TYPE, TaskPicture, base_task, instance_task, of_types
from wsi_ml.data.task_sets import Pictures, SetOptions, TaskSet, open_task_set, types_of
from wsi_ml.data.tissue import TissuePatch
from wsi_ml.errors import BadRequestError

if TYPE_CHECKING:
    from train.cerberus_config import Config

POINT_CHANNELS = 2


@dataclass
class CerberusData:
    """Training batches and held-out pictures."""

    source: TaskBatches
    pictures: dict[str, list[TaskPicture]] = field(default_factory=dict)
    """Held-out pictures by task that rows are of."""
    patches: list[TissuePatch] = field(default_factory=list)
    validation_names: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()
    types: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: DRAWN_TYPES)
    """Names of the types of a task's instances, from type 1 on, by task."""

    def channels(self, task: str, target: str) -> int:
        """Output channels of a dense task; raises BadRequestError for types that no set knows."""
        if task.endswith(POINTS):
            return POINT_CHANNELS
        if not task.endswith(TYPE):
            return TARGETS[target]
        base = instance_task(task)
        if all(picture.types is None for picture in self.source.pictures[base]):
            raise no_types(base)
        return 1 + len(self.types[base])

    def type_weights(self, config: Config) -> dict[str, list[float]]:
        """By task, the weight of each type in the cross-entropy, background 0: as told, else inverse to its pixels."""
        return {task: self._weights(task, config) for task in config.tasks if task.endswith(TYPE)}

    def _weights(self, task: str, config: Config) -> list[float]:
        count = self.channels(task, config.target)
        if config.type_weights:
            told = [float(weight) for weight in config.type_weights]
            if len(told) != count or told[0] != 0 or min(told) < 0:
                raise BadRequestError(f"type_weights are {count} numbers from 0 up, the first, the background's, 0.")
            return told
        pixels = np.zeros(count)
        for picture in self.source.pictures[instance_task(task)]:
            if picture.types is not None:
                pixels += np.bincount(picture.types.ravel(), minlength=count)
        inverse = np.divide(1.0, pixels, out=np.zeros(count), where=pixels > 0)
        inverse[0] = 0.0
        return (inverse / inverse.sum() * (count - 1)).tolist()

    def counts(self) -> dict[str, Any]:
        """How much of each task is trained on, for the journal."""
        pictures = {task: len(own) for task, own in self.source.pictures.items()}
        instances = {
            task: sum(len(np.unique(picture.labels[picture.labels > 0])) for picture in own)
            for task, own in self.source.pictures.items()
        }
        return {"pictures": pictures, "instances": instances, "patches": len(self.source.patches)}


def open_data(config: Config, settings: TaskBatchSettings) -> CerberusData:
    """Read the sets that the tasks need; raises an error of one sentence when one is not there or a name is unknown."""
    rows = list(dict.fromkeys(instance_task(task) for task in config.tasks if task != PATCH))
    types = {base_task(task): type_names_of(config, task) for task in config.tasks if _needs_types(task, config)}
    sets = open_sets(config)
    parts = {
        part: {row: _rows_of(row, [getattr(each, part) for each in sets], config) for row in rows}
        for part in ("training", "validation")
    }
    patches = _patches(config) if PATCH in config.tasks else Patches([], [], (), ())
    known = frozenset(patches.slides).union(*(each.known_names for each in sets))
    unknown = [name for name in (*config.validation, *config.test) if name not in known]
    if unknown:
        raise BadRequestError(f"No set holds a picture or slide {unknown[0]}, which is to be held out.")
    classes = tuple(tissue.CLASSES.values())
    source = TaskBatches(_with_instances(parts["training"]), patches.training, classes, settings, config.seed)
    watched = {row: _each_once(own)[: config.validation_pictures] for row, own in parts["validation"].items()}
    validation = tuple(dict.fromkeys(name for each in sets for name in each.validation_names))
    test = tuple(dict.fromkeys(name for each in sets for name in each.test_names))
    return CerberusData(source, watched, patches.held_out, validation, (*test, *patches.test_slides), types)


def open_sets(config: Config) -> list[TaskSet]:
    """The sets that the tasks need, each read once; where only types are learnt of, those that tell them."""
    wanted: dict[str, list[str]] = {}
    for task in dict.fromkeys(base_task(each) for each in config.tasks if each != PATCH):
        own = [each for each in config.tasks if base_task(each) == task]
        words = config.sets_of(task)
        if all(_needs_types(each, config) for each in own):
            words = tuple(word for word in words if types_of(word, task))
        for word in words:
            wanted.setdefault(word, []).append(task)
    options = SetOptions(
        Path(config.data), config.side, config.seed, config.scenes, config.scene_parts, config.validation_pictures,
        config.validation, config.test,
    )  # fmt: skip
    return [open_task_set(word, tasks, options) for word, tasks in wanted.items()]


def type_names_of(config: Config, task: str) -> tuple[str, ...]:
    """Names of the types that a run's sets tell of a task's instances, from type 1 on.

    Raises BadRequestError where no set tells any and where two tell others.
    """
    base = base_task(task)
    told = {word: types_of(word, base) for word in config.sets_of(base) if types_of(word, base)}
    if not told:
        raise no_types(base)
    if len(set(told.values())) > 1:
        raise BadRequestError(f"The sets {' and '.join(told)} tell other types of {base}; train on one kind of them.")
    return next(iter(told.values()))


def no_types(task: str) -> BadRequestError:
    """What is raised where types are wanted that no set tells."""
    return BadRequestError(f"No set of {task} knows types; {task}_sets needs one that does.")


def _needs_types(task: str, config: Config) -> bool:
    return task.endswith(TYPE) or (task.endswith(POINTS) and bool(config.points_of))


def points_of(picture: TaskPicture, config: Config, names: Sequence[str]) -> TaskPicture:
    """The picture with the instances that a task of points counts; raises BadRequestError for an unknown type."""
    if not config.points_of:
        return picture
    unknown = [name for name in config.points_of if name not in names]
    if unknown:
        raise BadRequestError(f"points_of names {unknown[0]!r}; types are {', '.join(names)}.")
    return of_types(picture, [names.index(name) + 1 for name in config.points_of])


def _rows_of(row: str, parts: Sequence[Pictures], config: Config) -> list[TaskPicture]:
    """The pictures of all sets for a task that rows are of."""
    found = [picture for own in parts for picture in own.get(base_task(row), [])]
    if row.endswith(POINTS):
        names = type_names_of(config, row) if config.points_of else ()
        found = [points_of(each, config, names) for each in found if each.types is not None or not config.points_of]
    return found


def _each_once(pictures: Sequence[TaskPicture]) -> list[TaskPicture]:
    """Two sets may hold one picture."""
    return list({picture.name: picture for picture in pictures}.values())


def _with_instances(by_task: dict[str, list[TaskPicture]]) -> dict[str, list[TaskPicture]]:
    """The pictures without those that show nothing of their task, as long as one does."""
    kept = {task: [picture for picture in own if picture.labels.any()] for task, own in by_task.items()}
    return {task: own or by_task[task] for task, own in kept.items()}


class Patches(NamedTuple):
    """Patches with weak classes."""

    training: list[TissuePatch]
    held_out: list[TissuePatch]
    """Of other places of the same slides, all classes alike."""
    slides: tuple[str, ...]
    """All there are."""
    test_slides: tuple[str, ...]


def _patches(config: Config) -> Patches:
    every = tissue.read_tissue_set(Path(config.data))
    slides = tuple(dict.fromkeys(patch.slide for patch in every))
    test = tuple(name for name in config.test if name in slides) or tissue.TEST_SLIDES
    split = tissue.split_patches(every, test)
    held_out: list[TissuePatch] = []
    for label in range(len(tissue.CODES)):
        held_out += [patch for patch in split.by_place if patch.label == label][: config.validation_pictures]
    return Patches(split.training, held_out, slides, test)
