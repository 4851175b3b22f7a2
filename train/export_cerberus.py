"""Turn a run of `train.cerberus` that tells nuclei into the shipped weights `nuclei` and their card.

python -m train.export_cerberus --run runs/cerberus-nuclei --commit $(git rev-parse HEAD) --output wsi_ml/models/weights

The card is the one that `train.publish` makes, with the shipped name and what was settled on the validation pictures.
The scores are added afterwards, by train.evaluate_nuclei.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from train import loop
from train.cards_cerberus import card_of
from train.cerberus_config import Config
from train.config import config_from_values
from train.export import write_card
from train.publish import PublishedModel, settle
from train.run_facts import read_run
from wsi_ml.data.nuclei import HAND_SET, TEST, VALIDATION, read_hand_set
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.inference.card import card_from_json

NAME = "nuclei"
POSTPROCESS: dict[str, Any] = {"min_area_um2": 6.0, "max_area_um2": 500.0}
"""Beside the rules of the task."""
BETTER = "nuclei-fast"
"""Has the higher PQ on every set of real pictures, so it is offered first."""
NOTES = (
    "Cerberus (Graham et al. 2022) with the decoder of nuclei alone, half the published width and one block a stage; "
    "trained on CC0 and drawn pictures only, so it says nothing of the published network. All but four of the "
    "hand-outlined pictures show haematoxylin alone: eosin and the tissue around were drawn over them. On real H&E it "
    "finds fewer nuclei than nuclei-fast (see the scores of both), which stays the one to take; it marks less keratin."
)


def export(run: Path, output: Path, commit: str) -> Path:
    """Write the weights (fp16 where that loses nothing), then the card; returns the card's file.

    Raises BadRequestError for a run that tells something other than nuclei.
    """
    facts = read_run(run)
    if facts.network["tasks"].keys() != {NAME} or facts.network["patch_classes"]:
        raise BadRequestError(f"{run.name} is no run of nuclei alone (tasks=nuclei), which the shipped model is.")
    card = card_of(NAME, NAME, facts, config_from_values(Config, facts.keys))
    held_out = sorted({*TEST, *VALIDATION})
    trained = [name for name in read_hand_set(Path(facts.keys["data"])) if name not in held_out]
    about = dict(card.about)
    about["data"] = [
        {**each, "pictures": len(trained), "held_out": held_out} if each["set"] == HAND_SET else each
        for each in about["data"]
    ]
    about |= {
        "better": BETTER,
        "notes": f"{about['notes']} {NOTES}",
        "training": {"commit": commit, **about["training"]},
        "scores": [],
    }
    card = dataclasses.replace(card, postprocess={**card.postprocess, **POSTPROCESS}, about=about)
    settled, weights = settle(PublishedModel(card, facts.weights), NAME)
    value = {**settled.to_json(), "weights": f"{NAME}.safetensors"}
    card_from_json(value, f"{NAME}.json")
    output.mkdir(parents=True, exist_ok=True)
    loop.write_atomic(output / value["weights"], weights)
    write_card(output / f"{NAME}.json", value)
    return output / f"{NAME}.json"


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run or the data cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m train.export_cerberus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights and the card")
    parser.add_argument("--commit", default="", help="commit of the code that trained the run, for the card")
    args = parser.parse_args(argv)
    try:
        export(args.run, args.output, args.commit)
    except (OcularError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
