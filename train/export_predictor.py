"""Turn a run of `train.nuclei` or `train.tissue` into shipped weights and their card.

python -m train.export_predictor --model nuclei-fast --run runs/nuclei --commit $(git rev-parse HEAD)
    --output wsi_ml/models/weights

The scores are added to the card afterwards, by train.evaluate_nuclei and train.evaluate_tissue with `--card`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train import loop, nuclei, tissue
from train.config import config_from_values, ended
from train.export import write_card
from train.run_facts import stages
from train.set_facts import DRAWN, DRAWN_SET, HAND, TISSUE
from wsi_ml.data.nuclei import read_hand_set
from wsi_ml.data.tissue import CLASSES, GLAND_SET, GLAND_SLIDE, read_tissue_set, split_patches
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.card import PredictorCard, PredictorClass, card_from_json
from wsi_ml.models import build, checkpoint, nuclei_unet, parameter_count, tissue_cnn

MPP = 0.5
MPP_RANGE = (0.35, 0.65)
NUCLEUS_COLOR = "#2f6fd0"
NUCLEI_MAP_SIDE = 512
"""Stored pixels: the side of a stored tile, so that windows and tiles fall together."""
TISSUE_MAP_SIDE = 16
"""Map pixels a window: 512 stored pixels."""
TISSUE_COLORS = {
    "ADI": "#e6c229", "BG": "#b8b8b8", "GLA": "#1b9e77", "LYM": "#5e4fa2", "MUS": "#d1495b", "STR": "#e29578",
}  # fmt: skip
NUCLEI_NOTES = (
    "Not a medical device. Interior and boundary (the nucleus's own outermost pixels) together are the nucleus. All "
    "but four of the hand-outlined pictures show haematoxylin alone: eosin and the tissue around were drawn over them. "
    "Scale of the hand-outlined pictures is unknown; they were brought to the size of nuclei."
)
TISSUE_NOTES = (
    "Not a medical device; labels are weak, made from slide titles, boxes and colour rules, 3-8 % of them wrong, none "
    "by a pathologist. It knows these six kinds only and tells every other tissue (epidermis, liver, tumour) as the "
    "one it is most like. Four of the six classes come from one slide each."
)


def nuclei_card_facts(network: dict[str, Any], sha256: str) -> PredictorCard:
    """What the card of `nuclei-fast` tells its callers."""
    return PredictorCard(
        name="nuclei-fast", kind="instance", classes=(PredictorClass("Nucleus", NUCLEUS_COLOR),),
        channels=("interior", "boundary"), mpp=MPP, mpp_range=MPP_RANGE, side=NUCLEI_MAP_SIDE + 2 * nuclei_unet.HALO,
        halo=nuclei_unet.HALO, stride=1, sha256=sha256,
        postprocess={"mask_threshold": 0.5, "seed_threshold": 0.7, "min_area_um2": 6.0, "max_area_um2": 500.0},
        about={
            "weights": "nuclei-fast.safetensors", "architecture": "nuclei-unet", "config": network,
            "multiple": nuclei_unet.GRID, "activation": "sigmoid",
            "parameters": parameter_count(build("nuclei-unet", **network)), "licence": "MIT",
        },
    )  # fmt: skip


def nuclei_card(config: nuclei.Config, sha256: str) -> dict[str, Any]:
    """The card of `nuclei-fast` without its training and scores."""
    held_out = {*config.test, *config.validation}
    trained = [name for name in read_hand_set(Path(config.data)) if name not in held_out]
    data = [
        {**HAND, "pictures": len(trained), "held_out": sorted(held_out)},
        {"set": DRAWN_SET, "scenes": config.scenes, **DRAWN},
    ]
    facts = nuclei_card_facts({"channels": config.channels}, sha256).to_json()
    return {**facts, "data": data, "notes": NUCLEI_NOTES}


def tissue_card(config: tissue.Config, sha256: str) -> dict[str, Any]:
    """The card of `tissue-fast` without its training and scores."""
    network = {"classes": len(CLASSES), "channels": config.channels}
    split = split_patches(read_tissue_set(Path(config.data)), config.test)
    slides = sorted({patch.slide for patch in split.training})
    data = [
        {**TISSUE, "patches": len(split.training), "slides": slides, "held_out": list(config.test)},
        {**TISSUE, "set": GLAND_SET, "slides": [GLAND_SLIDE], "labels": "glands, picked by eye; counted above"},
    ]
    facts = PredictorCard(
        name="tissue-fast", kind="patch",
        classes=tuple(PredictorClass(CLASSES[code], color) for code, color in TISSUE_COLORS.items()),
        channels=tuple(CLASSES.values()), background=(CLASSES["BG"],), mpp=MPP, mpp_range=MPP_RANGE,
        side=TISSUE_MAP_SIDE * tissue_cnn.STRIDE + 2 * tissue_cnn.HALO, halo=tissue_cnn.HALO, stride=tissue_cnn.STRIDE,
        sha256=sha256, postprocess={},
        about={
            "weights": "tissue-fast.safetensors", "architecture": "tissue-cnn", "config": network,
            "multiple": tissue_cnn.GRID, "activation": "softmax",
            "parameters": parameter_count(build("tissue-cnn", **network)), "licence": "MIT",
            "data": data, "notes": TISSUE_NOTES,
        },
    )  # fmt: skip
    return facts.to_json()


MODELS: dict[str, tuple[type, Callable[[Any, str], dict[str, Any]]]] = {
    "nuclei-fast": (nuclei.Config, nuclei_card),
    "tissue-fast": (tissue.Config, tissue_card),
}


def export(model: str, run: Path, output: Path, commit: str) -> Path:
    """Write the weights (the run's moving average), then the card; returns the card's file."""
    if model not in MODELS:
        raise BadRequestError(f"There is no model {model!r} to export; there are {', '.join(sorted(MODELS))}.")
    config_class, make_card = MODELS[model]
    steps, values, tensors = loop.read_state(run)
    data, sha256 = checkpoint.weights_bytes(loop.part(tensors, "average"))
    card = make_card(config_from_values(config_class, values), sha256)
    training = {"commit": commit, "steps": steps, "stages": stages(run)}
    value = {**card, "training": training, "scores": []}
    card_from_json(value, f"{model}.json")
    output.mkdir(parents=True, exist_ok=True)
    loop.write_atomic(output / card["weights"], data)
    card_file = output / f"{model}.json"
    write_card(card_file, value)
    return card_file


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m train.export_predictor", description=__doc__)
    parser.add_argument("--model", required=True, help=f"one of {', '.join(sorted(MODELS))}")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights and the card")
    parser.add_argument("--commit", default="", help="commit of the code that trained the run, for the card")
    args = parser.parse_args(argv)
    return ended(lambda: export(args.model, args.run, args.output, args.commit))


if __name__ == "__main__":
    sys.exit(main())
