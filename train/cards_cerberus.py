"""Runs of `train.cerberus` as predictors: one card for each task, all of one weights file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from train.cerberus_config import Config
from train.cerberus_data import type_names_of
from train.config import config_from_values
from train.export_predictor import MPP, MPP_RANGE, NUCLEUS_COLOR, TISSUE_COLORS
from train.publish import PublishedModel
from train.run_facts import RESULTS_FILE, RunFacts, read_run
from train.set_facts import Fact, facts_of, licence_of, own_facts
from wsi_ml.data.task_batches import PATCH
from wsi_ml.data.task_pictures import INSTANCE_TASKS, TYPE, instance_task
from wsi_ml.data.tissue import CLASSES
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.inference.card import AROUND, PredictorCard, PredictorClass
from wsi_ml.inference.cerberus_maps import dense_reach, encoder_reach, halo_for, is_exact
from wsi_ml.models import build, parameter_count
from wsi_ml.models.cerberus import STRIDE

TIGHT_RANGE = (0.4, 0.6)
"""µm per pixel where pictures were varied in size by a tenth only, as the paper has it."""
CORE = 512
"""Stored pixels that a window tells: the side of a stored tile, so that windows and tiles fall together."""
PATCH_STRIDE = 32
"""Stored pixels between two patches of which the class is told."""
STRIDES = {"nuclei": 1, "gland": 2, "lumen": 2}
"""Stored pixels a map pixel: glands and lumina at half the scale, as the paper's program does it."""
LARGEST = {"nuclei": 512, "gland": 1024, "lumen": 1024}
"""Map pixels; larger connected parts are cut."""
LOOKS = {"nuclei": ("Nucleus", NUCLEUS_COLOR), "gland": ("Gland", "#1b9e77"), "lumen": ("Lumen", "#e6c229")}
NOTES = {
    "exact": "Windows leave no trace: the halo holds all that the network sees.",
    "cut": "The network sees {reach} px to each side and its windows have {halo}, so the last digits of a value depend "
    "on where windows stand.",
    "lumen": "Lumina count within the glands that the same network tells.",
}


def cards_of_run(run: Path, name: str) -> list[PublishedModel]:
    """A predictor for each task of the network: `instance` for nuclei, glands and lumina, `patch` for patches.

    With several tasks the task ends the name: `name-gland`. Raises BadRequestError for a network that has none of them.
    """
    facts = read_run(run)
    config = config_from_values(Config, facts.keys)
    tasks = [task for task in INSTANCE_TASKS if task in facts.network["tasks"]]
    tasks += [PATCH] if facts.network["patch_classes"] else []
    if not tasks:
        raise BadRequestError(f"{run.name} has none of the tasks that become predictors: {', '.join(INSTANCE_TASKS)}.")
    names = {task: name if len(tasks) == 1 else f"{name}-{task}" for task in tasks}
    return [PublishedModel(card_of(task, names[task], facts, config), facts.weights) for task in tasks]


def card_of(task: str, name: str, facts: RunFacts, config: Config) -> PredictorCard:
    """The card of one task."""
    halo = halo_for(facts.network["blocks"], task)
    side = CORE + 2 * halo
    about = about_of(task, facts, config)
    if task == PATCH:
        colours = {CLASSES[code]: colour for code, colour in TISSUE_COLORS.items()}
        names = [str(each) for each in facts.facts["classes"]]
        return PredictorCard(
            name=name, kind="patch", classes=tuple(PredictorClass(each, colours.get(each)) for each in names),
            channels=tuple(names), background=tuple(each for each in names if each == CLASSES["BG"]), mpp=MPP,
            mpp_range=TIGHT_RANGE, side=side, halo=halo, stride=PATCH_STRIDE, sha256="", about=about,
        )  # fmt: skip
    types = type_names_of(config, f"{task}{TYPE}") if f"{task}{TYPE}" in facts.network["tasks"] else ()
    classes = tuple(PredictorClass(each) for each in types) if len(types) > 1 else (PredictorClass(*LOOKS[task]),)
    channels = ("interior", "boundary", *(types if len(types) > 1 else ()))
    postprocess = rules_of(task, facts.network["tasks"])
    return PredictorCard(
        name=name, kind="instance", classes=classes, channels=channels + (AROUND if "within" in postprocess else ()),
        mpp=MPP, mpp_range=MPP_RANGE if task == "nuclei" and "stained" in config.nuclei_sets else TIGHT_RANGE,
        side=side, halo=halo, stride=STRIDES[task], sha256="", postprocess=postprocess, about=about,
    )  # fmt: skip


def rules_of(task: str, channels: dict[str, int]) -> dict[str, Any]:
    """How objects of a task are drawn, by the output channels of the network's tasks."""
    rules: dict[str, Any] = {"objects": task, "max_object_px": LARGEST[task]}
    if channels[task] < 3:
        rules["target"] = "base"
    if task == "lumen" and channels.get("gland") == channels[task]:
        rules["within"] = "gland"
    return rules


def about_of(task: str, facts: RunFacts, config: Config) -> dict[str, Any]:
    """The rest of a card."""
    blocks, halo = facts.network["blocks"], halo_for(facts.network["blocks"], task)
    reach = encoder_reach(blocks) if task == PATCH else dense_reach(blocks)
    notes = [
        "Not a medical device.",
        NOTES["exact" if is_exact(blocks, task) else "cut"].format(reach=reach, halo=halo),
    ]
    data = data_of(task, config)
    return {
        "architecture": facts.architecture, "config": facts.network, "task": task, "multiple": STRIDE,
        "activation": "softmax" if task == PATCH else "sigmoid",
        "parameters": parameter_count(build(facts.architecture, **facts.network)), "licence": licence_of(data),
        "data": data, "notes": " ".join([*notes, *([NOTES[task]] if task in NOTES else [])]),
        "training": facts.training(), "scores": scores_of(task, facts.folder),
    }  # fmt: skip


def data_of(task: str, config: Config) -> list[Fact]:
    """The sets that the run learnt from, those of the card's task first: all tasks share an encoder.

    Those of a run that it started from come too; where that is gone, its data is not known.
    """
    order = sorted(config.tasks, key=lambda each: instance_task(each) != task)
    found = facts_of(_names(word for each in order for word in sets_of(each, config)))
    if config.start_run:
        try:
            found += data_of(task, config_from_values(Config, read_run(Path(config.start_run)).keys))
        except (ModelUnavailableError, ValueError):
            found.append(own_facts(f"of the run {Path(config.start_run).name}, which is not there any more"))
    return list({json.dumps(each, sort_keys=True): each for each in found}.values())


def sets_of(task: str, config: Config) -> list[str]:
    """Names of the sets that teach a task, of a folder its last part; `stained` is hand-made and drawn."""
    words = ("tissue-weak",) if task == PATCH else config.sets_of(task)
    return [name for word in words for name in (("dsb2018", "drawn") if word == "stained" else (_short(word),))]


def _names(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _short(word: str) -> str:
    """`crag:CRAG` of `crag:/data/sets/CRAG`: a card tells no places of a machine."""
    layout, _, folder = word.partition(":")
    return f"{layout}:{Path(folder).name}" if folder else word


def scores_of(task: str, folder: Path) -> list[dict[str, Any]]:
    """Rows about a task in the run's results.json, written by train.evaluate_cerberus; none where there is no file."""
    try:
        rows = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    told = (task, f"{task}{TYPE}")
    return [{name: value for name, value in row.items() if value is not None} for row in rows if row["task"] in told]
