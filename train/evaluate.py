"""Measure a trained model on held-out slides: tables, pictures with error maps, and results.json for the big tables.

    python -m train.evaluate --run runs/joint --output docs/results/sr-joint
    python -m train.evaluate --card sr-fast --output docs/results/sr-fast
    python -m train.evaluate --run runs/joint --source msu --data PATH-DT-MSU --sr-without BG --output docs/results/msu

`--card` takes the path of a card, the name of a shipped model, or bicubic, lanczos or linear (the best linear filter of
the training tiles). Without `--source` super-resolution is measured on the ×40 tile sets and classes on the weak ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train import figures, loop
from train.candidates import METHODS, Candidate, open_card, open_method, open_run
from train.held_out import ATLAS_SLIDES, PairSet, PatchSet, atlas_pairs, source_pairs, source_patches, tissue_patches
from train.report import markdown
from train.scoring import SlideScores, pairs_json, patches_json, score_pairs
from train.sr_fast import Config as SrFastConfig
from wsi_ml.data.sources import SourceOptions, open_source
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.scores import Upscale

RESULTS_FILE, REPORT_FILE = "results.json", "README.md"
RESULTS_FORMAT = 1
PATCH_SIDE, SOURCE_BATCH = 224, 32


@dataclass(frozen=True)
class Sets:
    """What a model is measured on."""

    pairs: list[PairSet]
    patches: list[PatchSet]


def open_candidate(args: argparse.Namespace, device: torch.device) -> Candidate:
    """The model that the command line names."""
    if args.run is not None:
        return open_run(args.run, device)
    if args.card in METHODS:
        return open_method(args.card, args.data, (*ATLAS_SLIDES, *SrFastConfig().validation))
    return open_card(args.card, device)


def open_sets(args: argparse.Namespace, candidate: Candidate) -> Sets:
    """The held-out sets for what the model does; the tissue sets only where they are there."""
    if args.source:
        return _source_sets(args, candidate)
    pairs = [atlas_pairs(args.data, tuple(args.slides or ATLAS_SLIDES), args.tiles)] if candidate.upscale else []
    return Sets(pairs, tissue_patches(args.data) if candidate.tell else [])


def _source_sets(args: argparse.Namespace, candidate: Candidate) -> Sets:
    """Sets of a test source of `wsi_ml.data.sources`: all of a dense grid, some patches of slides without classes."""
    named = tuple(args.slides or ())
    labelled = not args.source.endswith(("unlabelled", "slides"))
    options = SourceOptions(
        data=args.data, batch=SOURCE_BATCH, side=PATCH_SIDE, seed=args.seed, part="test", test=named,
        layer=args.layer, classes=candidate.classes, patches_per_slide=0 if labelled else args.sr_per_class,
    )  # fmt: skip
    source: Any = open_source(args.source, options)
    words = f"the test patches of source {args.source}, {PATCH_SIDE} px at ×20"
    name, pairs, patches = args.source, None, None
    if candidate.upscale:
        pairs = source_pairs(source, name, words, named, args.sr_per_class, args.sr_without, args.seed)
    if candidate.tell:
        patches = source_patches(source, name, words, named)
    return Sets([pairs] if pairs else [], [patches] if patches else [])


def evaluate(candidate: Candidate, sets: Sets, output: Path) -> dict[str, Any]:
    """Scores of every set, pictures beside them in `output`; raises BadRequestError when no set is left."""
    sr, classes, left_out = [], [], []
    for pairs in sets.pairs:
        candidate.check_held_out(pairs.slides)
        assert candidate.upscale is not None  # noqa: S101 -- open_sets gives pairs only to what enlarges
        sr.append(_measure_pairs(candidate.name, candidate.upscale, pairs, output))
    for patches in sets.patches:
        try:
            candidate.check_held_out(patches.slides)
            classes.append(_with_pictures(patches_json(candidate, patches), output))
        except BadRequestError as error:
            left_out.append(f"{patches.name}. {error}")
    if not sr and not classes:
        raise BadRequestError(" ".join(left_out) or f"There is nothing to measure {candidate.name} on.")
    return {"sr": sr, "classification": classes, "left_out": left_out}


def _measure_pairs(name: str, upscale: Upscale, pairs: PairSet, output: Path) -> dict[str, Any]:
    """Scores of the model and of bicubic, and the comparison picture."""
    bicubic = open_upscaler("bicubic")
    plain = score_pairs(bicubic, pairs)
    scored = plain if name == "bicubic" else score_pairs(upscale, pairs)
    file = f"crops-{_file_part(pairs.name)}.png"
    crops = [_crop(upscale, bicubic, pairs, one) for one in scored]
    figures.save_png(output / file, figures.comparison(crops, name))
    return {**pairs_json(pairs, scored, plain), "picture": file}


def _crop(upscale: Upscale, bicubic: Upscale, pairs: PairSet, scored: SlideScores) -> figures.Crop:
    """The busiest window of a slide's picture of median PSNR."""
    number = scored.median_picture()
    stored, base = pairs.read(scored.slide)[number]
    left, top = figures.busiest(base)
    window = (slice(top, top + figures.CROP), slice(left, left + figures.CROP))
    title = f"{scored.slide}, picture {number}, x {left}, y {top}"
    return figures.Crop(title, bicubic(stored)[window], upscale(stored)[window], base[window])


def _with_pictures(row: dict[str, Any], output: Path) -> dict[str, Any]:
    """The row of a classification with its two pictures drawn."""
    part = _file_part(row["set"])
    matrix, bins = f"confusion-{part}.png", f"reliability-{part}.png"
    counts = row["confusion"]
    figures.save_png(output / matrix, figures.confusion_picture(counts["classes"], counts["rows"]))
    figures.save_png(output / bins, figures.reliability_picture(row["reliability"], row["calibration_error"]))
    return {**row, "pictures": {"confusion": matrix, "reliability": bins}}


def _file_part(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).replace("--", "-")


def write_results(output: Path, candidate: Candidate, measured: dict[str, Any], command: str) -> dict[str, Any]:
    """The report first and results.json last: where that file is, everything it names is there."""
    results = {
        "format": RESULTS_FORMAT,
        "command": command,
        "model": {"name": candidate.name, "row": candidate.row, **candidate.facts},
        **measured,
    }
    loop.write_atomic(output / REPORT_FILE, markdown(results).encode())
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    loop.write_atomic(output / RESULTS_FILE, text.encode())
    return results


def _plain(argument: str) -> str:
    """An argument without the folders of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=Path, help="folder of a run of train.sr_gan, train.joint or train.classifier")
    model.add_argument("--card", help="path of a card, name of a shipped model, or " + ", ".join(METHODS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder for README.md, results.json and pictures")
    parser.add_argument("--slides", nargs="*", help="held-out slides; default: " + ", ".join(ATLAS_SLIDES))
    parser.add_argument("--tiles", type=int, help="tiles of each slide of the tile sets; all by default")
    parser.add_argument("--source", default="", help="another test source: msu, library, slides; see docs/data.md")
    parser.add_argument("--layer", default="", help="source library: the layer whose polygons are the classes")
    parser.add_argument("--sr-per-class", type=int, default=100, help="source: patches of each class enlarged")
    parser.add_argument("--sr-without", nargs="*", default=[], help="source: classes whose patches are not enlarged")
    parser.add_argument("--row", default="", help="row of the paper's tables that this model fills")
    parser.add_argument("--seed", type=int, default=0, help="source: which patches are enlarged")
    parser.add_argument("--device", default="auto", help="auto (GPU when there is one), cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the model or the data cannot be read."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    command = "python -m train.evaluate " + shlex.join(_plain(each) for each in argv or sys.argv[1:])
    try:
        candidate = open_candidate(args, loop.pick_device(args.device, 0))
        if args.row:
            candidate = dataclasses.replace(candidate, row=args.row)
        sets = open_sets(args, candidate)
        args.output.mkdir(parents=True, exist_ok=True)
        results = write_results(args.output, candidate, evaluate(candidate, sets, args.output), command)
    except (OcularError, FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
