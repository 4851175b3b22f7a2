"""What a run of `train.cerberus` is measured on: pictures that neither it nor the run under its heads has seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from train import loop, script
from train.cerberus_config import Config
from train.cerberus_data import open_sets, points_of, type_names_of
from train.config import config_from_values
from train.evaluate_nuclei import CLUSTERS, MONUSEG, SCENE_PARTS, SCENE_SEED
from wsi_ml.data import nuclei
from wsi_ml.data.instance_folders import layout_of
from wsi_ml.data.task_pictures import (
    INSTANCE_TASKS,
    POINTS,
    TaskPicture,
    base_task,
    drawn_pictures,
    hand_pictures,
    research_pictures,
)
from wsi_ml.errors import BadRequestError, ModelUnavailableError

TEACHER = "a teacher's labels: agreement with a model, not accuracy"
TRUTHS = {"exact": "exact", "hand": "by hand", "weak": "weak", "teacher": TEACHER}


class HeldOut(NamedTuple):
    """Pictures of a set that were not trained on."""

    task: str
    """The task whose instances they show."""
    name: str
    truth: str
    """How its labels were made."""
    pictures: list[TaskPicture]


def read_run(folder: Path) -> tuple[Config, tuple[str, ...], int]:
    """(keys, names held out, steps done) of a run; raises ModelUnavailableError for a folder that holds none."""
    script.read_network(folder)
    facts = json.loads((folder / script.NETWORK_FILE).read_text(encoding="utf-8"))
    steps, values, _ = loop.read_state(folder)
    known = {field.name for field in dataclasses.fields(Config)}
    try:
        config = config_from_values(Config, {name: value for name, value in values.items() if name in known})
    except BadRequestError as error:
        raise ModelUnavailableError(f"{folder.name} is no run of train.cerberus: {error}") from error
    return config, tuple(facts.get("held_out", ())), steps


def held_out_sets(
    config: Config, held_out: Sequence[str], data_root: Path, tasks: Sequence[str]
) -> Iterator[HeldOut]:  # fmt: skip
    """The sets for some instance tasks: hand-outlined nuclei, drawn scenes, the test part of the run's own folders.

    Of a set from which some pictures were held out the run has seen the others: only those held out are told of.
    """
    if "nuclei" in tasks:
        yield from _hand(held_out, data_root)
        yield from _research(held_out, data_root)
    for task, drawn in drawn_pictures(SCENE_SEED, SCENE_PARTS, tasks).items():
        yield HeldOut(task, "drawn scene", TRUTHS["exact"], [each for each in drawn if each.labels.any()])
    yield from _own_folders(config, tasks)


def _hand(held_out: Sequence[str], data_root: Path) -> Iterator[HeldOut]:
    """The test clusters of DSB 2018; of a run that knows the set, those of their pictures that it held out."""
    seen = not nuclei.read_hand_set(data_root).keys().isdisjoint(held_out)
    pictures = hand_pictures(data_root, nuclei.TEST)[1]
    for name, names in CLUSTERS.items():
        kept = [each for each in pictures if each.name in names and (each.name in held_out or not seen)]
        if kept:
            yield HeldOut("nuclei", f"dsb2018 test: {name}", TRUTHS["hand"], kept)


def _research(held_out: Sequence[str], data_root: Path) -> Iterator[HeldOut]:
    """MoNuSeg: all of it where none was trained on, else the pictures held out."""
    if not (data_root / MONUSEG).is_dir():
        return
    pictures = research_pictures(data_root)
    kept = [picture for picture in pictures if picture.name in held_out]
    name = "MoNuSeg 2018 training" + (", held out" if kept else "")
    yield HeldOut("nuclei", name, "by hand, CC BY-NC-SA", kept or pictures)


def _own_folders(config: Config, tasks: Sequence[str]) -> Iterator[HeldOut]:
    """The test part of the user's folders, read as the training read them."""
    glands, lumina, cells = (
        tuple(word for word in config.sets_of(task) if layout_of(word) is not None) for task in INSTANCE_TASKS
    )
    wanted = tuple(task for task in config.tasks if base_task(task) in tasks)
    if not wanted or not (glands or lumina or cells):
        return
    own = dataclasses.replace(config, tasks=wanted, gland_sets=glands, lumen_sets=lumina, nuclei_sets=cells)
    for found in open_sets(own):
        layout, _, folder = found.word.partition(":")
        truth = ", ".join(TRUTHS[kind] for kind in found.kind.split(", "))
        for task, pictures in found.test.items():
            shown = [picture for picture in pictures if picture.labels.any()]
            if shown and task in tasks:
                yield HeldOut(task, f"{layout} {Path(folder).name}, test", truth, shown)


def with_points(found: HeldOut, config: Config, task: str) -> HeldOut | None:
    """The pictures for a task of points; None where the set does not tell the types that count."""
    if not task.endswith(POINTS) or base_task(task) != found.task:
        return None
    names = type_names_of(config, task) if config.points_of else ()
    told = [each for each in found.pictures if each.types is not None or not config.points_of]
    shown = [points_of(each, config, names) for each in told]
    return found._replace(task=task, pictures=shown) if shown else None
