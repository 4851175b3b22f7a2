"""Runs of `train.classifier` as predictors: the class of every patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.classifier import JOINT, Config
from train.config import config_from_values
from train.export_predictor import MPP, MPP_RANGE, TISSUE_COLORS, TISSUE_NOTES
from train.publish import PublishedModel
from train.run_facts import RunFacts, read_run
from train.set_facts import facts_of, licence_of
from wsi_ml.data.tissue import CLASSES
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.models import build, parameter_count

WINDOW_SIDE, WINDOW_HALO, WINDOW_STRIDE = 1024, 128, 32
"""Of `sr-joint`, whose features are computed once for all patches of a window: stored pixels."""
BACKGROUND = (CLASSES["BG"], "BG")
SINGLE = "It is shown one patch after the other; predict with overlap=0.5 or 0.75 for a finer map."


def cards_of_run(run: Path, name: str) -> list[PublishedModel]:
    """One predictor of kind patch; raises BadRequestError for a network that was trained on ×40 pictures."""
    facts = read_run(run)
    config = config_from_values(Config, facts.keys)
    if config.picture != "stored":
        raise BadRequestError(f"{run.name} was trained on ×40 pictures, and predictors are shown stored (×20) ones.")
    colors = {CLASSES[code]: color for code, color in TISSUE_COLORS.items()}
    names = [str(each) for each in facts.facts["classes"]]
    patch = config.side
    side, halo, stride = (patch, 0, patch)
    if facts.architecture == JOINT:
        side, halo, stride = WINDOW_SIDE, WINDOW_HALO, WINDOW_STRIDE
    card = PredictorCard(
        name=name, kind="patch", classes=tuple(PredictorClass(each, colors.get(each)) for each in names),
        channels=tuple(names), background=tuple(each for each in names if each in BACKGROUND)[:1], mpp=MPP,
        mpp_range=MPP_RANGE, side=side, halo=halo, stride=stride, sha256="", about=about(facts, config),
    )  # fmt: skip
    return [PublishedModel(card, facts.weights)]


def about(facts: RunFacts, config: Config) -> dict[str, Any]:
    """The rest of the card."""
    joint, weak = facts.architecture == JOINT, "tissue-weak" in config.source.split("+")
    data = [{**each, "held_out": list(facts.facts["held_out"])} for each in facts_of(config.source.split("+"))]
    notes = [TISSUE_NOTES if weak else "Not a medical device.", *([] if joint else [SINGLE])]
    return {
        "architecture": facts.architecture, "config": facts.network, "activation": "softmax",
        **({"multiple": WINDOW_STRIDE, "patch": config.side} if joint else {}),
        **({"normalise": facts.facts["normalise"]} if facts.facts["normalise"] else {}),
        "parameters": parameter_count(build(facts.architecture, **facts.network)), "licence": licence_of(data),
        "data": data, "notes": " ".join(notes), "training": facts.training(),
        "scores": [score(row) for row in facts.results()],
    }  # fmt: skip


def score(row: dict[str, Any]) -> dict[str, Any]:
    """A row of train.evaluate as a card has it: its names and its numbers."""
    return {name: value for name, value in row.items() if name in ("set", "words") or isinstance(value, int | float)}
