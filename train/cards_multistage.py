"""Runs of `train.multistage` as predictors: a value for each patch of a slide, told alone or from the whole slide."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from train.config import config_from_values
from train.export_predictor import MPP, MPP_RANGE
from train.publish import PublishedModel
from train.run_facts import RESULTS_FILE, RunFacts, read_run
from train.set_facts import DRAWN, Fact, facts_of, licence_of, own_facts
from train.slide_setup import Config, Networks, checksum, read_networks, without_classes
from train.slide_steps import FEATURES_FOLDER
from wsi_ml.data.patch_slides import SIDE
from wsi_ml.data.slide_maps import ENDING, read_features
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.inference.predictor import OWN_TISSUE, WHOLE_SLIDE_NETWORK
from wsi_ml.models import build, parameter_count

COLOUR = "#cc3311"
NOTES = {
    "extractor": "Tells each patch alone. Not a medical device.",
    "segmentation": "Tells each patch from the features of all patches of the slide (separate learning). "
    "Not a medical device.",
    "end-to-end": "Tells each patch from the features of all patches of the slide (end-to-end learning). "
    "Not a medical device.",
}
EXACT, TEACHER = "Exact truth", "Teacher"
"""Layers named so hold the outlines that a slide was drawn from, or what another model told."""


def cards_of_run(run: Path, name: str) -> list[PublishedModel]:
    """One predictor of kind heatmap; raises BadRequestError for a stage that leaves nothing to tell slides with.

    A run of the segmentation takes the extractor from its run of features, which must still be there.
    """
    facts = read_run(run)
    config = config_from_values(Config, facts.keys)
    if config.stage not in NOTES:
        raise BadRequestError(
            f"{run.name} is a run of the stage {config.stage}; predictors are made of {', '.join(NOTES)}."
        )
    networks, cut = read_networks(run, (config.stage,)), config
    if config.stage == "segmentation":
        networks, cut = _with_extractor(networks, Path(config.maps))
    tensors, network = _joined(networks)
    network |= {
        "features_of": cut.features_of, "crop": cut.crop, "map_side": config.map_side, "maps_of": config.maps_of,
        "tissue": cut.tissue, "tissue_share": cut.tissue_share,
    }  # fmt: skip
    told = PredictorClass(" + ".join(config.tumour) if config.source == "library" else "Tumour", COLOUR)
    side = cut.patch_side or SIDE
    about = {**_about(facts, config, network), **({"normalise": "imagenet"} if networks.imagenet else {})}
    card = PredictorCard(
        name=name, kind="heatmap", classes=(told,), channels=(told.name,), mpp=MPP, mpp_range=MPP_RANGE, side=side,
        halo=0, stride=side, sha256="", about=about,
    )  # fmt: skip
    return [PublishedModel(card, tensors)]


def _with_extractor(networks: Networks, maps: Path) -> tuple[Networks, Config]:
    """The segmentation with the extractor that made its features, and the keys these were made with."""
    try:
        before = read_networks(maps, ("features",))
        keys = config_from_values(Config, read_run(maps).keys)
        (first, *_) = sorted((maps / FEATURES_FOLDER).glob(f"*{ENDING}"))
    except (ModelUnavailableError, ValueError) as error:
        raise ModelUnavailableError(
            f"The run of features {maps.name}, whose extractor the segmentation needs, cannot be read: {error} "
            "Make it again with stage=features."
        ) from error
    assert before.extractor is not None  # noqa: S101 -- that stage has one
    made_by = f"{checksum(before.extractor)} {keys.features_of} {keys.crop}"
    if read_features(first).made_by != made_by:
        raise ModelUnavailableError(f"The features in {maps.name} are of another extractor than the one beside them.")
    return dataclasses.replace(before, segmentation=networks.segmentation), keys


def _joined(networks: Networks) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of `takahama` from its parts."""
    extractor, segmentation = networks.extractor, networks.segmentation
    assert extractor is not None  # noqa: S101 -- every stage that comes here has one
    if segmentation is not None and extractor.config.classes:
        extractor = without_classes(extractor)
    parts = {"extractor": extractor, "segmentation": segmentation}
    tensors = {
        f"{name}.{key}": tensor for name, part in parts.items() if part is not None
        for key, tensor in part.state_dict().items()
    }  # fmt: skip
    return tensors, {name: None if part is None else dataclasses.asdict(part.config) for name, part in parts.items()}


def _about(facts: RunFacts, config: Config, network: dict[str, Any]) -> dict[str, Any]:
    """The rest of the card."""
    data = [{**_fact(config), "held_out": list(facts.facts["held_out"])}]
    return {
        "architecture": WHOLE_SLIDE_NETWORK, "config": network, "activation": "sigmoid", "tissue": OWN_TISSUE,
        "parameters": parameter_count(build(WHOLE_SLIDE_NETWORK, **network)), "licence": licence_of(data),
        "data": data, "notes": NOTES[config.stage], "training": facts.training(), "scores": _scores(facts.folder),
    }  # fmt: skip


def _fact(config: Config) -> Fact:
    """The set with its licence and the kind of its labels, as far as the layer's name tells it."""
    if config.source == "camelyon":
        return facts_of(["camelyon"])[0]
    polygons = f"polygons of the layer “{config.layer}”" if config.layer else "polygons of the slides' newest layer"
    if config.layer.startswith(EXACT):
        return {"set": "drawn slides (train/draw_slides.py)", **DRAWN}
    known = {"labels": f"teacher: {polygons}, told by another model"} if config.layer.startswith(TEACHER) else {}
    return {**own_facts("slides of a library"), "labels": f"own: {polygons}", **known}


def _scores(run: Path) -> list[dict[str, Any]]:
    """What train.evaluate_multistage found, where its results lie in the run."""
    try:
        found = json.loads((run / RESULTS_FILE).read_text(encoding="utf-8"))
        slides = ", ".join(each["slide"] for each in found["slides"])
        return [{"set": f"patches of the {found['part']} slides {slides}", **found["pooled"]}]
    except (OSError, ValueError, KeyError, TypeError):
        return []
