"""Sets that teach paper C's tasks, by name: what of each is for training, for watching and for the final scores.

`dsb2018` and `stained` are the same hand-outlined nuclei, `monuseg` is for research only, `drawn` is made by code, and
`glas:FOLDER`, `crag:`, `lizard:`, `conic:`, `folder:` read the user's files (see `instance_folders`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ml.data import nuclei
from wsi_ml.data.instance_folders import layout_of, read_set, split_set
from wsi_ml.data.segmentation_folders import PARTS
from wsi_ml.data.stained_pictures import stained_pictures
from wsi_ml.data.task_pictures import (
    DRAWN_TYPES,
    RESEARCH_TEST,
    RESEARCH_VALIDATION,
    TaskPicture,
    drawn_pictures,
    hand_pictures,
    research_pictures,
)
from wsi_ml.errors import BadRequestError

DRAWN_VALIDATION = 1_000_003
"""Added to the seed for the drawn scene that is validated on."""
MOST_PARTS = 9
SET_TASKS: Mapping[str, tuple[str, ...]] = {
    "dsb2018": ("nuclei",), "stained": ("nuclei",), "monuseg": ("nuclei",), "drawn": ("gland", "lumen", "nuclei"),
}  # fmt: skip
"""What the sets without a folder know."""
Pictures = dict[str, list[TaskPicture]]


@dataclass(frozen=True)
class SetOptions:
    """How sets are read."""

    data: Path
    """Folder of the sets that have a name only."""
    side: int = 448
    seed: int = 0
    scenes: int = 4
    scene_parts: int = 9
    validation_parts: int = 8
    """Parts of the drawn scene that is watched, 1 to 9."""
    validation: tuple[str, ...] = ()
    """Pictures or slides to watch; a set that has none of them takes its own."""
    test: tuple[str, ...] = ()
    """The same for the final scores."""


@dataclass
class TaskSet:
    """Pictures of a set by part and task."""

    word: str
    kind: str
    """How its labels were made: exact, hand, weak, teacher, or several of them."""
    training: Pictures = field(default_factory=dict)
    validation: Pictures = field(default_factory=dict)
    test: Pictures = field(default_factory=dict)
    validation_names: tuple[str, ...] = ()
    """Pictures or slides that are not trained on."""
    test_names: tuple[str, ...] = ()
    known_names: frozenset[str] = frozenset()
    """All names that a split may give."""


def knows(word: str, task: str) -> bool:
    """Whether a set may have instances of a task; raises BadRequestError for a name that is no set."""
    found = layout_of(word)
    if found is None and word not in SET_TASKS:
        raise BadRequestError(
            f"{word!r} is no set: {', '.join(SET_TASKS)}, or a layout and a folder, as in crag:FOLDER."
        )
    return task in (SET_TASKS[word] if found is None else found[0].tasks)


def types_of(word: str, task: str) -> tuple[str, ...]:
    """Names of the types that a set tells of a task's instances, from type 1 on; () where it tells none."""
    found = layout_of(word)
    if found is not None:
        return found[0].types.get(task, ())
    return DRAWN_TYPES.get(task, ()) if word == "drawn" else ()


def open_task_set(word: str, tasks: Sequence[str], options: SetOptions) -> TaskSet:
    """The pictures of a set that show one of `tasks`, by part.

    Raises FileNotFoundError for a set that is not there, BadRequestError for one that cannot be learnt from.
    """
    for task in tasks:
        if not knows(word, task):
            raise BadRequestError(f"The set {word} knows no {task}.")
    if layout_of(word) is not None:
        return _folder(word, tasks, options)
    return {"dsb2018": _hand, "stained": _hand, "monuseg": _research, "drawn": _drawn}[word](word, tasks, options)


def _hand(word: str, tasks: Sequence[str], options: SetOptions) -> TaskSet:
    """DSB 2018; held out are the clusters of `wsi_ml.data.nuclei`."""
    names = frozenset(nuclei.read_hand_set(options.data))
    validation = _chosen(options.validation, names, nuclei.VALIDATION)
    test = _chosen(options.test, names, nuclei.TEST)
    training, held = hand_pictures(options.data, (*validation, *test))
    if word == "stained":
        scenes = options.scenes, options.scene_parts
        training = stained_pictures(options.data, (*validation, *test), options.side, options.seed, *scenes)
    return _of_nuclei(word, "hand", (training, held), (validation, test), names)


def _research(word: str, tasks: Sequence[str], options: SetOptions) -> TaskSet:
    """MoNuSeg, split by picture: every picture is of another patient."""
    pictures = research_pictures(options.data)
    names = frozenset(picture.name for picture in pictures)
    validation = _chosen(options.validation, names, RESEARCH_VALIDATION)
    test = _chosen(options.test, names, RESEARCH_TEST)
    training = [picture for picture in pictures if picture.name not in (*validation, *test)]
    return _of_nuclei(word, "hand", (training, pictures), (validation, test), names)


def _of_nuclei(
    word: str, kind: str, pictures: tuple[list[TaskPicture], list[TaskPicture]],
    held: tuple[tuple[str, ...], tuple[str, ...]], names: frozenset[str],
) -> TaskSet:  # fmt: skip
    """A set of nuclei of (training pictures, pictures among which those held out are), held out by name."""
    training, others = pictures
    parts = [{"nuclei": [each for each in others if each.name in own]} for own in held]
    return TaskSet(word, kind, {"nuclei": training}, parts[0], parts[1], *held, names)


def _drawn(word: str, tasks: Sequence[str], options: SetOptions) -> TaskSet:
    """Drawn scenes; those that are watched and measured have other seeds."""
    found = TaskSet(word, "exact")
    for scene in range(options.scenes):
        _add(found.training, drawn_pictures(options.seed + scene, options.scene_parts, tasks))
    parts = min(MOST_PARTS, max(1, options.validation_parts))
    _add(found.validation, drawn_pictures(options.seed + DRAWN_VALIDATION, parts, tasks))
    return found


def _add(to: Pictures, more: Pictures) -> None:
    for task, pictures in more.items():
        to.setdefault(task, []).extend(pictures)


def _folder(word: str, tasks: Sequence[str], options: SetOptions) -> TaskSet:
    """A user's folder, split by slide or patient, or as the set itself is split."""
    pictures = read_set(word, tasks)
    parts = split_set(pictures, options.validation, options.test)
    by_task = {
        part: {task: [each.of(task) for each in own if task in each.labels] for task in tasks}
        for part, own in parts.items()
    }
    kinds = ", ".join(sorted({each.kind for each in pictures}))
    # A published split may part pictures of one patient, so what is held out is named by picture there.
    validation, test = (
        tuple(sorted({each.name if each.part else each.slide for each in parts[part]})) for part in PARTS[1:]
    )
    known = frozenset(name for each in pictures for name in (each.slide, each.name))
    training, watched, measured = (by_task[part] for part in PARTS)
    return TaskSet(word, kinds, training, watched, measured, validation, test, known)


def _chosen(named: Sequence[str], own: frozenset[str], otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the named ones that a set has, else its own choice."""
    return tuple(name for name in named if name in own) or otherwise
