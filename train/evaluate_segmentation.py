"""Measure runs of `train.semi_supervised` on held-out pictures: pooled DSC and IOU, accuracy of picture classes.

    python -m train.evaluate_segmentation --run runs/semi-tiny --output docs/results/semi
    python -m train.evaluate_segmentation --run runs/s-10 runs/sc-10 --part validation --output docs/results/semi

Writes results.json and README.md with a row for each run, and a picture beside them: picture, truth, told.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from train import loop, script
from train.config import config_from_values
from train.pixel_watching import PixelWatcher
from train.report import number, table
from train.semi_config import CLASSIFICATION, TASKS, Config
from train.semi_supervised import of_method, open_set
from train.watching import averaged
from wsi_ml.data.pixel_batches import LabelledPicture
from wsi_ml.errors import BadRequestError, ModelUnavailableError, OcularError
from wsi_ml.metrics.classification import accuracy, balanced_accuracy
from wsi_ml.models import build

RESULTS_FILE, REPORT_FILE, RESULTS_FORMAT = "results.json", "README.md", 1
PARTS = ("test", "validation")
POOLED_NOTE = (
    "DSC and IOU are pooled: pixels of all pictures are counted together before anything is divided, so that IOU = "
    "DSC / (2 − DSC) for each class. Both are means over the classes after the first. Accuracy is that of whole "
    "pictures' classes; `weak` is balanced accuracy on pictures that have a class but no pixel labels."
)
WORDS = {
    "drawn": "drawn mucosa, glands against the rest, exact to the pixel; not real tissue",
    "nuclei": "nuclei outlined by hand (DSB 2018, CC0), whole clusters of look-alike pictures held out",
    "tissue-weak": "real patches with weak labels, glandular mucosa against the rest; no pixel labels",
    "folder": "the user's own pictures",
    "camelyon": "lymph nodes with outlined metastases; what is not outlined counts as normal",
}


def read_run(folder: Path) -> tuple[Config, dict[str, Any], dict[str, torch.Tensor], int]:
    """(configuration, network.json, averaged weights, steps done); raises ModelUnavailableError for no such run."""
    steps, values, tensors = loop.read_state(folder)
    try:
        network = json.loads((folder / script.NETWORK_FILE).read_text(encoding="utf-8"))
        config = config_from_values(Config, values)
    except (OSError, ValueError, BadRequestError) as error:
        raise ModelUnavailableError(f"{folder.name} is no run of train.semi_supervised: {error}") from error
    if network.get("script") != "semi_supervised":
        raise ModelUnavailableError(f"{folder.name} is a run of train.{network.get('script')}, not semi_supervised.")
    return config, network, loop.part(tensors, "average"), steps


def measure(folder: Path, part: str, args: argparse.Namespace) -> dict[str, Any]:
    """The row of a run; keeps its picture in the output."""
    config, network, weights, steps = read_run(folder)
    if args.data:
        config = dataclasses.replace(config, data=str(args.data))
    run = script.Run(folder, loop.Ranks(0, 1, 0), loop.pick_device(args.device, 0), False)
    # Read as the training read them, so that what it held out is what is measured.
    found = open_set(config, part)
    pictures: list[LabelledPicture] = getattr(found, part)
    if not any(picture.mask is not None for picture in pictures):
        raise BadRequestError(f"The source {config.source} of {folder.name} has no pixel labels in its part {part}.")
    masked = PixelWatcher([picture for picture in pictures if picture.mask is not None], found.classes)
    unmasked = PixelWatcher([picture for picture in pictures if picture.mask is None], found.classes)
    model = of_method(averaged(build(network["architecture"], **network["config"]), weights, run), config.method)
    pooled, exact = masked.measure(model, run)
    _, weak = unmasked.measure(model, run)
    _, shown = masked.look(model, run)
    if shown is not None:
        Image.fromarray(shown).save(args.output / f"{folder.name}.png")
    classes = CLASSIFICATION in TASKS[config.tasks]
    return {
        "run": folder.name, "row": network["row"], "architecture": network["architecture"],
        "source": config.source, "part": part, "seed": config.seed,
        "tasks": config.tasks, "method": config.method, "pixel_share": config.pixel_share,
        "picture_share": config.picture_share,
        "alpha": config.alpha, "beta": config.beta, "form": config.form, "steps": steps,
        "losses": [config.segmentation_loss, config.classification_loss if classes else None],
        "pictures": len(masked.pictures), "pictures_without_mask": len(unmasked.pictures),
        "picture": f"{folder.name}.png" if shown is not None else None,
        "picture_confusion": exact.tolist(),
        "accuracy": accuracy(exact) if classes else None,
        "balanced_accuracy": balanced_accuracy(exact) if classes else None,
        "accuracy_without_mask": accuracy(weak) if classes else None,
        "balanced_accuracy_without_mask": balanced_accuracy(weak) if classes else None,
        **pooled.report(), **_journal_facts(folder),
    }  # fmt: skip


def _journal_facts(folder: Path) -> dict[str, Any]:
    """Minutes over all stretches of a run, hardware and pictures learnt from, of its journal."""
    try:
        lines = [json.loads(line) for line in (folder / loop.JOURNAL_FILE).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return {"minutes": None, "hardware": None, "learnt_from": None}
    starts = [place for place, line in enumerate(lines) if line.get("event") == "start"]
    ends = [*starts[1:], len(lines)]
    seconds = sum(lines[end - 1]["time"] - lines[start]["time"] for start, end in zip(starts, ends, strict=True))
    first = lines[starts[-1]] if starts else {}
    return {
        "minutes": round(seconds / 60, 1), "hardware": first.get("hardware"), "learnt_from": first.get("pictures"),
    }  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """The report: a table of runs, what was measured on what, pictures."""
    runs = results["runs"]
    sources = sorted({name for row in runs for name in row["source"].split("+")})
    words = "\n".join(f"- `{name}`: {WORDS[name]}" for name in sources)
    parts = ["# Segmentation from few pixel labels", f"Written by `{results['command']}`.", POOLED_NOTE, words]
    parts.append(table([_line(row) for row in runs]))
    shown = [row for row in runs if row["picture"]]
    parts += [f"{row['run']}: picture, truth, told.\n\n![{row['run']}]({row['picture']})" for row in shown]
    return "\n\n".join(parts) + "\n"


def _line(row: dict[str, Any]) -> dict[str, Any]:
    segmentation, classification = row["losses"]
    loss = f"{segmentation.upper()}" if classification is None else f"{classification.upper()}+{segmentation.upper()}"
    beta = "–" if "dwf" not in row["losses"] else f"{row['beta']:g}{' rising' if row['form'] != 'falling' else ''}"
    learnt = row["learnt_from"] or {}
    weak = f"{100 * row['picture_share']:g} % ({learnt.get('classification', '–')})"
    return {
        "run": row["run"], "network": row["architecture"], "tasks": row["tasks"],
        "method": "–" if row["tasks"] == "S" else row["method"],
        "source": row["source"], "part": row["part"],
        "pixel labels": f"{100 * row['pixel_share']:g} % ({learnt.get('segmentation', '–')})",
        "picture labels": "–" if row["tasks"] == "S" else weak,
        "loss": loss, "β": beta, "α": "–" if row["tasks"] == "S" else f"{row['alpha']:g}",
        "DSC": number(row["dsc"], 4), "IOU": number(row["iou"], 4), "accuracy": number(row["accuracy"], 4),
        "weak": number(row["balanced_accuracy_without_mask"], 4),
        "pictures": row["pictures"], "seed": row["seed"], "steps": row["steps"],
        "minutes": "–" if row["minutes"] is None else row["minutes"], "hardware": row["hardware"] or "–",
    }  # fmt: skip


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate_segmentation", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="folders of runs of train.semi_supervised")
    parser.add_argument("--part", choices=PARTS, default=PARTS[0], help="held-out pictures to measure on")
    parser.add_argument("--data", type=Path, help="folder of the data, where it lies elsewhere than in training")
    parser.add_argument("--output", type=Path, required=True, help="folder for README.md, results.json and pictures")
    parser.add_argument("--device", default="auto", help="auto (GPU when there is one), cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when a run or its data cannot be read."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    plain = [Path(each).name if Path(each).is_absolute() else each for each in argv or sys.argv[1:]]
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        rows = [measure(folder, args.part, args) for folder in args.run]
    except (OcularError, FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    command = "python -m train.evaluate_segmentation " + shlex.join(plain)
    results = {"format": RESULTS_FORMAT, "command": command, "runs": rows}
    # The report first and results.json last: where that file is, everything it names is there.
    loop.write_atomic(args.output / REPORT_FILE, markdown(results).encode())
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    loop.write_atomic(args.output / RESULTS_FILE, text.encode())
    sys.stdout.write(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
