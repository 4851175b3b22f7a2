"""Runs of `train.nuclei` and `train.tissue` as predictors, by the cards that `train.export_predictor` makes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from train.config import config_from_values
from train.export_predictor import MODELS
from train.publish import PublishedModel
from train.run_facts import read_run
from wsi_ml.inference.card import card_from_json

SHIPPED = {"nuclei": "nuclei-fast", "tissue": "tissue-fast"}
"""Training script → the model whose card tells of its network, data and drawing."""


def cards_of_run(run: Path, name: str) -> list[PublishedModel]:
    """One predictor; its data must lie where it lay in training, as the card names what was trained on."""
    facts = read_run(run)
    config_class, make_card = MODELS[SHIPPED[facts.script]]
    card = card_from_json(make_card(config_from_values(config_class, facts.keys), ""))
    about = {**card.about, "training": facts.training(), "scores": []}
    return [PublishedModel(dataclasses.replace(card, name=name, about=about), facts.weights)]
