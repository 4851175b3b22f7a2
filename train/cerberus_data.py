"""What `train.cerberus` reads: pictures of each task from sets that know it, patches, and those it is watched with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_ml.data import nuclei, tissue
from wsi_ml.data.task_batches import PATCH, TARGETS, TaskBatches, TaskBatchSettings
from wsi_ml.data.task_pictures import (
    DRAWN_TYPES,
    TYPE,
    TaskPicture,
    drawn_pictures,
    hand_pictures,
    instance_task,
    research_pictures,
)
from wsi_ml.data.tissue import TissuePatch
from wsi_ml.errors import BadRequestError
from wsi_ml.models.task_losses import NUCLEI_TYPE_WEIGHTS

if TYPE_CHECKING:
    from train.cerberus import Config

DRAWN_VALIDATION = 1_000_003
"""Added to the seed for the drawn scene that is validated on."""


@dataclass
class CerberusData:
    """Training batches and held-out pictures."""

    source: TaskBatches
    pictures: dict[str, list[TaskPicture]] = field(default_factory=dict)
    """Held-out pictures by instance task."""
    patches: list[TissuePatch] = field(default_factory=list)
    validation_names: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()

    def channels(self, task: str, target: str) -> int:
        """Output channels of a dense task; raises BadRequestError for types that no set knows."""
        if not task.endswith(TYPE):
            return TARGETS[target]
        return 1 + len(self.type_names(instance_task(task)))

    def type_names(self, task: str) -> tuple[str, ...]:
        """Names of the types of a task's instances, from type 1 on."""
        if all(picture.types is None for picture in self.source.pictures[task]):
            raise BadRequestError(f"No set of {task} knows types; add drawn to {task}_sets.")
        return DRAWN_TYPES[task]

    def type_weights(self, config: Config) -> list[float]:
        """Weight of each type in the cross-entropy, background 0: as told, else inverse to its pixels, of mean 1."""
        task = next((task for task in config.tasks if task.endswith(TYPE)), None)
        if task is None:
            return list(NUCLEI_TYPE_WEIGHTS)
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
            task: sum(len(np.unique(picture.labels)) - 1 for picture in own)
            for task, own in self.source.pictures.items()
        }
        return {"pictures": pictures, "instances": instances, "patches": len(self.source.patches)}


def open_data(config: Config, settings: TaskBatchSettings) -> CerberusData:
    """Read the sets that the tasks need; raises an error of one sentence when one is not there or a name is unknown."""
    dense = list(dict.fromkeys(instance_task(task) for task in config.tasks if task != PATCH))
    validation, test = _split(config, dense)
    training, held_out = _pictures(config, dense, validation, test)
    patches, held_patches = _patches(config, test) if PATCH in config.tasks else ([], [])
    classes = tuple(tissue.CLASSES.values())
    source = TaskBatches(training, patches, classes, settings, config.seed)
    return CerberusData(source, held_out, held_patches, validation, test)


def _split(config: Config, dense: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names held out for watching and for the final scores: those told, else the ones of docs/models.md."""
    hand = "nuclei" in dense and "dsb2018" in config.nuclei_sets
    validation = config.validation or (nuclei.VALIDATION if hand else ())
    slides = tissue.TEST_SLIDES if PATCH in config.tasks else ()
    return validation, config.test or ((nuclei.TEST if hand else ()) + slides)


def _pictures(
    config: Config, dense: Sequence[str], validation: Sequence[str], test: Sequence[str]
) -> tuple[dict[str, list[TaskPicture]], dict[str, list[TaskPicture]]]:
    """(training, held-out) pictures of each instance task."""
    training: dict[str, list[TaskPicture]] = {task: [] for task in dense}
    held_out: dict[str, list[TaskPicture]] = {task: [] for task in dense}
    root, sets = Path(config.data), config.nuclei_sets if "nuclei" in dense else ()
    typed = f"nuclei{TYPE}" in config.tasks and "nuclei" not in config.tasks
    if "dsb2018" in sets and not typed:
        hand = [name for name in (*validation, *test) if name not in tissue.TEST_SLIDES]
        own, beside = hand_pictures(root, hand)
        training["nuclei"] += own
        held_out["nuclei"] += [picture for picture in beside if picture.name in validation]
    if "monuseg" in sets and not typed:
        training["nuclei"] += research_pictures(root)
    drawn = [task for task in dense if task != "nuclei" or "drawn" in sets]
    for scene in range(config.scenes) if drawn else ():
        _add(training, drawn_pictures(config.seed + scene, config.scene_parts, drawn))
    if drawn:
        parts = min(9, max(1, config.validation_pictures))
        _add(held_out, drawn_pictures(config.seed + DRAWN_VALIDATION, parts, drawn))
    most = config.validation_pictures
    return _with_instances(training), {task: own[:most] for task, own in held_out.items()}


def _add(to: dict[str, list[TaskPicture]], more: dict[str, list[TaskPicture]]) -> None:
    for task, pictures in more.items():
        to[task] += pictures


def _with_instances(by_task: dict[str, list[TaskPicture]]) -> dict[str, list[TaskPicture]]:
    """The pictures without those that show nothing of their task, as long as one does."""
    kept = {task: [picture for picture in own if picture.labels.any()] for task, own in by_task.items()}
    return {task: own or by_task[task] for task, own in kept.items()}


def _patches(config: Config, test: Sequence[str]) -> tuple[list[TissuePatch], list[TissuePatch]]:
    """(training, held-out) patches with weak classes; the held-out ones are from other places, all classes alike."""
    split = tissue.split_patches(tissue.read_tissue_set(Path(config.data)), test)
    held_out: list[TissuePatch] = []
    for label in range(len(tissue.CODES)):
        held_out += [patch for patch in split.by_place if patch.label == label][: config.validation_pictures]
    return split.training, held_out
