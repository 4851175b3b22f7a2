"""Runs of `train.semi_supervised` as predictors: the class of every pixel, the first class not drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.config import config_from_values
from train.export_predictor import MPP, MPP_RANGE
from train.publish import PublishedModel
from train.run_facts import RunFacts, read_run
from train.semi_config import CLASSIFICATION, TASKS, Config
from train.set_facts import facts_of, licence_of
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.models import build, parameter_count

CORE = 768
"""Stored pixels, about, that a window tells: the more, the fewer of its pictures are shared with its neighbours."""
GROUND_COLOR = "#b8b8b8"
NOTES = (
    "Not a medical device. {context} It is therefore shown pictures of {side} stored px, as in training, that stand "
    "half a side apart and are faded into each other: no seams, and four pictures tell each pixel. {classes}"
)
CONTEXT = {
    "esp-psp": "What this network tells of a pixel depends on the whole picture around it.",
    "resnet18-multitask": "This network sees as far as its pictures reach.",
}


def cards_of_run(run: Path, name: str) -> list[PublishedModel]:
    """One predictor of kind dense; the classes of whole pictures are not shown."""
    facts = read_run(run)
    config = config_from_values(Config, facts.keys)
    names = [str(each) for each in facts.facts["classes"]]
    # Pictures that were halved for training are halved by the predictor: it is shown stored pixels like any other.
    scale = 1 << config.halvings
    half = config.side // 2 * scale
    card = PredictorCard(
        name=name, kind="dense",
        classes=(PredictorClass(names[0], GROUND_COLOR), *(PredictorClass(each) for each in names[1:])),
        channels=tuple(names), background=(names[0],), mpp=MPP, mpp_range=MPP_RANGE,
        side=2 * half * max(2, CORE // (2 * half)) + 2 * half, halo=half, stride=scale, sha256="",
        about=about(facts, config, half),
    )  # fmt: skip
    return [PublishedModel(card, facts.weights)]


def about(facts: RunFacts, config: Config, half: int) -> dict[str, Any]:
    """The rest of the card."""
    data = [{**each, **taught_by(config)} for each in facts_of(config.source.split("+"), Path(config.data))]
    ground = f"“{facts.facts['classes'][0]}” is everything else and is not drawn."
    return {
        "architecture": facts.architecture, "config": facts.network, "activation": "softmax", "multiple": half,
        "picture": config.side, "parameters": parameter_count(build(facts.architecture, **facts.network)),
        "licence": licence_of(data), "data": data,
        "notes": NOTES.format(context=CONTEXT[facts.architecture], side=2 * half, classes=ground),
        "training": {**facts.training(), "method": config.method if config.tasks == "S+C" else "S"},
        "scores": [score(row) for row in facts.results()],
    }  # fmt: skip


def taught_by(config: Config) -> dict[str, str]:
    """How many of the labels a run used, in words; nothing where it used all."""
    words = [f"{100 * config.pixel_share:g} % of the pixel labels"] if config.pixel_share < 1 else []
    if CLASSIFICATION in TASKS[config.tasks] and config.picture_share < 1:
        words.append(f"{100 * config.picture_share:g} % of the classes of pictures")
    return {"used": ", ".join(words)} if words else {}


def score(row: dict[str, Any]) -> dict[str, Any]:
    """A row of train.evaluate_segmentation as a card has it."""
    measures = {name: row[name] for name in ("dsc", "iou", "balanced_accuracy") if row.get(name) is not None}
    return {"set": row["source"], "words": f"pixels of the part {row['part']}", "pictures": row["pictures"], **measures}
