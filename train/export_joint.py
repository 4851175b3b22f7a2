"""Turn a run of `train.joint` into shipped weights (fp16) and two cards: an upscaler's and a predictor's.

python -m train.export_joint --run runs/joint --commit $(git rev-parse HEAD) --output wsi_ml/models/weights

Both cards, `sr-joint.json` and `tissue-joint.json`, name the same file `sr-joint.safetensors`. The halo is measured on
stored pixels of held-out slides and on noise, and both branches are scored as a user runs them, through these files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from train import loop, script
from train.config import config_from_values, ended
from train.evaluate_tissue import Held
from train.export import MPP_RANGE, data_facts, held_out_scores, write_card
from train.export_predictor import MPP, TISSUE_COLORS, TISSUE_NOTES
from train.export_predictor import MPP_RANGE as CLASS_MPP_RANGE
from train.held_out import tissue_patches
from train.joint import Config
from train.run_facts import stages
from train.script import SharedConfig
from train.set_facts import TISSUE
from wsi_ml.data.pairs import Compression, slide_pairs, tile_files
from wsi_ml.data.tissue import CLASSES
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.inference.card import PredictorCard, PredictorClass, card_from_json
from wsi_ml.inference.network_predictor import NetworkPredictor
from wsi_ml.inference.predictor import open_predictor
from wsi_ml.models import build, checkpoint, parameter_count
from wsi_ml.slides.kernel import KERNEL
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.halo import STEP, measure_halo, random_pictures, receptive_radius
from wsi_ml.sr.upscaler import LARGEST_HALO, UpscalerCard

ARCHITECTURE, UPSCALER, PREDICTOR = "sr-joint", "sr-joint", "tissue-joint"
WEIGHTS = f"{UPSCALER}.safetensors"
FOLD = 2
WINDOW_SIDE, WINDOW_HALO, WINDOW_STRIDE = 1024, 128, 32
"""Stored pixels: a map pixel tells the patch around it, so the halo holds half a patch and some pixels more."""
HALO_SIDE, HALO_NOISE = 128, 2
"""Tiles that the halo is measured with, in stored pixels; pictures of noise beside those of slides."""
PUBLISHED = {"channels": 64, "growth": 32, "blocks": 15}
SCORE_NOTES = (
    "The scans scored against were compressed several times (scanner, export, atlas): compare methods on the same "
    "tiles, not with figures of other data. PSNR: RGB; SSIM: 7x7 uniform window."
)


def width_words(network: dict[str, Any]) -> str:
    """A sentence for a network that is not the published one; empty for one that is."""
    other = []
    published = {name: value for name, value in PUBLISHED.items() if name in network}
    if any(network[name] != value for name, value in published.items()):
        size = ", ".join(f"{network[name]} {name} of {value}" for name, value in published.items())
        other.append(f"at reduced width ({size})")
    if network.get("pixel_shuffle"):
        other.append("with sub-pixel convolution in place of nearest neighbour in the decoder")
    if not other:
        return ""
    return f"The published network {' and '.join(other)}: its figures say nothing about the published one. "


def upscaler_card(
    config: SharedConfig, network: dict[str, Any], sha256: str, training: dict[str, Any],
    architecture: str = ARCHITECTURE, name: str = UPSCALER,
) -> UpscalerCard:  # fmt: skip
    """The card of the picture branch, with the halo that its layers allow and without scores."""
    reach = receptive_radius(architecture, network)
    atlas = "atlas" in config.source.split("+")
    data = data_facts(Path(config.data), {*config.test, *config.validation}, config.scan_tiles)
    return UpscalerCard(
        name=name, kind="sr", scale=2, halo=min(-(-reach // STEP) * STEP, LARGEST_HALO), multiple=FOLD,
        mpp_range=MPP_RANGE, sha256=sha256, parameters=parameter_count(build(architecture, **network)),
        architecture=architecture, config=network, weights=WEIGHTS,
        degradation={"kernel": KERNEL, "jpeg": Compression().text}, data=data if atlas else [],
        training=training, notes=width_words(network) + SCORE_NOTES,
    )  # fmt: skip


def predictor_card(
    config: Config, network: dict[str, Any], classes: list[str], sha256: str, training: dict[str, Any]
) -> dict[str, Any]:
    """The card of the classifier, without scores."""
    colors = {CLASSES[code]: color for code, color in TISSUE_COLORS.items()}
    weak = "tissue-weak" in config.source.split("+")
    data = [{**TISSUE, "held_out": list(config.test)}] if weak else []
    facts = PredictorCard(
        name=PREDICTOR, kind="patch", classes=tuple(PredictorClass(name, colors.get(name)) for name in classes),
        channels=tuple(classes), background=tuple({CLASSES["BG"], "BG"} & set(classes)), mpp=MPP,
        mpp_range=CLASS_MPP_RANGE, side=WINDOW_SIDE, halo=WINDOW_HALO, stride=WINDOW_STRIDE, sha256=sha256,
        about={
            "weights": WEIGHTS, "architecture": ARCHITECTURE, "config": network, "multiple": WINDOW_STRIDE,
            "activation": "softmax", "patch": config.validation_side,
            "parameters": parameter_count(build(ARCHITECTURE, **network)), "licence": "MIT", "data": data,
            "notes": width_words(network) + (TISSUE_NOTES if weak else "Not a medical device."),
            "training": training, "scores": [],
        },
    )  # fmt: skip
    return facts.to_json()


def measured_halo(card_file: Path, card: dict[str, Any], data: Path, slides: list[str]) -> dict[str, Any]:
    """The card with the halo that stored pixels and noise ask for."""
    upscaler = open_upscaler(card_file)
    tiles = [stored for slide in slides for stored, _ in slide_pairs(data, slide, count=1)]
    pictures = [tile for tile in tiles if min(tile.shape[:2]) >= HALO_SIDE + STEP]
    pictures += random_pictures(HALO_NOISE, 2 * HALO_SIDE + 64)
    reach = receptive_radius(card["architecture"], card["config"])
    report = measure_halo(upscaler, pictures, reach, side=HALO_SIDE)
    return {**card, "halo": report.recommended, "training": {**card["training"], "halo": report.to_json()}}


def class_scores(card_file: Path, data: Path) -> list[dict[str, Any]]:
    """Rows of the held-out weak labels, as train.evaluate_tissue gives them, of patches shown by themselves."""
    predictor = open_predictor(card_file)
    if not isinstance(predictor, NetworkPredictor):
        raise BadRequestError(f"The card {card_file.name} is not that of a network.")
    rows = []
    for held in tissue_patches(data):
        batches = list(held.read())
        shares = np.concatenate([predictor.classify(batch.stored) for batch in batches])
        rows.append(Held(held.name, held.words, np.concatenate([batch.labels for batch in batches]), shares).to_json())
    return rows


def read_run(run: Path) -> tuple[Config, dict[str, Any], dict[str, Any], int]:
    """Configuration, network.json, tensors and steps of a run of `train.joint`."""
    steps, values, tensors = loop.read_state(run)
    try:
        network = json.loads((run / script.NETWORK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"{run.name} is no run to export: {script.NETWORK_FILE} cannot be read.") from error
    if network.get("architecture") != ARCHITECTURE or network.get("script") != "joint":
        raise BadRequestError(f"{run.name} is a run of {network.get('script')}; only runs of train.joint are exported.")
    return config_from_values(Config, values), network, tensors, steps


def export(run: Path, output: Path, commit: str) -> tuple[Path, Path]:
    """Write the weights (the run's moving average) and both cards, measure, then the cards again; gives their files."""
    config, facts, tensors, steps = read_run(run)
    network, classes, data = facts["config"], facts["classes"], Path(config.data)
    weights, sha256 = checkpoint.weights_bytes(loop.part(tensors, "average"), half=True)
    training: dict[str, Any] = {"commit": commit, "steps": steps, "stages": stages(run)}
    if config.start_run and (Path(config.start_run) / loop.JOURNAL_FILE).is_file():
        first, _, _ = loop.read_state(Path(config.start_run))
        training["stage_one"] = {"steps": first, "stages": stages(Path(config.start_run))}
    enlarging = upscaler_card(config, network, sha256, training).to_json()
    telling = predictor_card(config, network, classes, sha256, training)
    files = output / f"{UPSCALER}.json", output / f"{PREDICTOR}.json"
    card_from_json(telling, files[1].name)

    output.mkdir(parents=True, exist_ok=True)
    loop.write_atomic(output / WEIGHTS, weights)
    for file, card in zip(files, (enlarging, telling), strict=True):
        write_card(file, card)
    slides = [slide for slide in config.test if slide in tile_files(data)]
    enlarging = measured_halo(files[0], enlarging, data, slides)
    write_card(files[0], enlarging)
    enlarging["scores"] = held_out_scores(open_upscaler(files[0]), data, slides, UPSCALER)
    write_card(files[0], enlarging)
    if classes == list(CLASSES.values()):
        telling["scores"] = class_scores(files[1], data)
        write_card(files[1], telling)
    return files


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m train.export_joint", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of train.joint")
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights and both cards")
    parser.add_argument("--commit", default="", help="commit of the code that trained the run, for the cards")
    args = parser.parse_args(argv)
    return ended(lambda: export(args.run, args.output, args.commit))


if __name__ == "__main__":
    sys.exit(main())
