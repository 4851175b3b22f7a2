"""Runs of `train.sr_fast`, `train.sr_gan` and `train.joint` as upscalers, the last one's classifier as a predictor."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from train import export, export_joint, joint, sr_fast, sr_gan
from train.config import config_from_values
from train.export import write_card
from train.publish import PublishedModel
from train.run_facts import RunFacts, read_run
from train.script import SharedConfig
from train.set_facts import facts_of, licence_of
from wsi_ml.data.pairs import tile_files
from wsi_ml.inference.card import card_from_json
from wsi_ml.models import checkpoint
from wsi_ml.sr.upscaler import UpscalerCard
from wsi_ml.sr.upscaler import card_from_json as upscaler_from_json

CLASSES_SUFFIX = "-classes"
"""Ends the name of the predictor that a run of `train.joint` becomes beside its upscaler."""
ATLAS = "atlas"


def cards_of_run(run: Path, name: str) -> list[PublishedModel]:
    """An upscaler, and for a run of `train.joint` a predictor of patches of the same weights."""
    facts = read_run(run)
    if facts.script == "sr_fast":
        return [sr_fast_model(facts, name)]
    config: SharedConfig = config_from_values(joint.Config if facts.script == "joint" else sr_gan.Config, facts.keys)
    enlarging = upscaler_model(facts, config, name)
    if not isinstance(config, joint.Config):
        return [enlarging]
    classes = [str(each) for each in facts.facts["classes"]]
    value = export_joint.predictor_card(config, facts.network, classes, "", facts.training())
    data = facts_of(labelled_sources(config))
    value |= {"name": name + CLASSES_SUFFIX, "weights": export_joint.WEIGHTS, "data": data, "licence": licence_of(data)}
    return [enlarging, PublishedModel(dataclasses.replace(card_from_json(value), sha256=""), facts.weights)]


def sr_fast_model(facts: RunFacts, name: str) -> PublishedModel:
    """The upscaler of a run of `train.sr_fast`, by the card that its export makes."""
    config = config_from_values(sr_fast.Config, facts.keys)
    parameters = sum(tensor.numel() for tensor in facts.weights.values())
    card = export.make_card(config, facts.steps, facts.training(), "", parameters)
    return PublishedModel(dataclasses.replace(card, name=name), facts.weights)


def upscaler_model(facts: RunFacts, config: SharedConfig, name: str) -> PublishedModel:
    """The upscaler of another run, by the card that `train.export_joint` makes, its halo measured."""
    card = export_joint.upscaler_card(config, facts.network, "", facts.training(), facts.architecture, name)
    data = [*card.data, *facts_of(each for each in config.source.split("+") if each != ATLAS)]
    card = dataclasses.replace(card, data=data, licence=licence_of(data))
    return PublishedModel(with_halo(card, facts.weights, config), facts.weights)


def with_halo(card: UpscalerCard, tensors: dict[str, Tensor], config: SharedConfig) -> UpscalerCard:
    """The card with the halo that noise and, where they are at hand, held-out slides ask for."""
    data = Path(config.data)
    slides = [slide for slide in config.test if slide in tile_files(data)]
    weights, sha256 = checkpoint.weights_bytes(tensors)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{card.name}.json"
        (file.parent / card.weights).write_bytes(weights)
        value: dict[str, Any] = {**card.to_json(), "sha256": sha256}
        write_card(file, value)
        measured = export_joint.measured_halo(file, value, data, slides)
    return dataclasses.replace(upscaler_from_json(measured), sha256="")


def labelled_sources(config: joint.Config) -> list[str]:
    """Names of the sources that teach classes: of two that are joined the second."""
    return config.source.split("+", 1)[-1].split("+")
