"""Fit the estimated difference of an upscaler's trust map, and put it into the upscaler's card with how well it holds.

python -m train.calibrate_trust --card sr-fast

Fitted on tiles of the training slides of docs/training.md; the validation and test slides only tell how it holds. Run
it again after every export: a calibration counts for the very weights it was fitted with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from train.export import write_card
from train.sr_fast import Config
from wsi_ml.data.pairs import Compression, read_tiles, store_pixels, tile_files
from wsi_ml.errors import BadRequestError, OcularError
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.calibration import Calibration, fit_calibration
from wsi_ml.sr.reliability import JudgedCells, held_up, joined, judge, reliability
from wsi_ml.sr.trust import LITTLE, SOME
from wsi_ml.sr.upscaler import Upscaler, find_upscaler, read_card, read_json

TILES = 8
MEASURE = (
    "detail: mean absolute Laplacian of the stored pixels over all colours; difference: mean |SR - scan|; both in grey "
    "levels of 255 in cells of 32 x 32 stored pixels"
)


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """`count` of some files, or all where there are fewer, evenly over the list: tiles in order lie near each other."""
    places = np.linspace(0, len(files) - 1, min(count, len(files)))
    return [files[place] for place in np.rint(places).astype(int)]


def judged_slides(upscaler: Upscaler, files: dict[str, list[Path]], tiles: int) -> dict[str, JudgedCells]:
    """The cells of `tiles` tiles of each slide, whose stored pixels are made as the store makes them."""
    found = {}
    for slide in tqdm(sorted(files), desc="slides", unit="slide"):
        bases = read_tiles(spread(files[slide], tiles))
        found[slide] = judge(upscaler, ((store_pixels(base), base) for base in bases))
    return found


def trust_of(
    sha256: str, slides: dict[str, JudgedCells], validation: Sequence[str], test: Sequence[str]
) -> dict[str, Any]:
    """The field `trust` of a card: fitted on the slides that are neither validation nor test, held against the others.

    Raises BadRequestError when there is nothing to fit on or nothing to hold it against.
    """
    fitted = {slide: cells for slide, cells in slides.items() if slide not in {*validation, *test}}
    if not fitted or not set(test) <= set(slides):
        raise BadRequestError("The tile sets lack training or test slides; see the split in docs/training.md.")
    cells = joined(fitted.values())
    try:
        calibration = fit_calibration(cells.detail, cells.true)
    except ValueError as error:
        raise BadRequestError(f"The tiles cannot be fitted: {error}.") from error
    parts = [("validation", slide) for slide in validation if slide in slides] + [("test", slide) for slide in test]
    return {
        "sha256": sha256,
        "measure": MEASURE,
        "knots": [list(knot) for knot in calibration.knots],
        "fitted_on": {"slides": sorted(fitted), "cells": len(cells.true), "jpeg": Compression().text},
        "held_out": [{"slide": slide, "part": part, **held_up(calibration, slides[slide])} for part, slide in parts],
        "test": held_up(calibration, joined(slides[slide] for slide in test)),
        "reliability": reliability(calibration, joined(slides[slide] for slide in test), (LITTLE, SOME)),
    }


def calibrate(card_file: Path, data: Path, tiles: int, device: str = "auto") -> dict[str, Any]:
    """Fit, write the card's field `trust` and nothing else of it, and return the field.

    Raises FileNotFoundError without the tile sets, BadRequestError when the upscaler was trained on a test slide.
    """
    files = tile_files(data)
    if not files:
        raise FileNotFoundError(f"{data} holds none of the ×40 tile sets; name their folder with --data.")
    split = Config()
    seen = {slide for part in read_card(card_file).data for slide in part.get("slides", ())} & set(split.test)
    if seen:
        raise BadRequestError(f"{card_file.stem} was trained on {', '.join(sorted(seen))}, a test slide.")
    upscaler = open_upscaler(card_file, device)
    trust = trust_of(upscaler.card.sha256, judged_slides(upscaler, files, tiles), split.validation, split.test)
    write_card(card_file, {**read_json(card_file), "trust": trust})
    return trust


def summary(trust: dict[str, Any]) -> str:
    """The knots and how they hold, for people."""
    calibration = Calibration(tuple((detail, difference) for detail, difference in trust["knots"]))
    lines = ["detail → difference: " + ", ".join(f"{a:g} → {b:g}" for a, b in calibration.knots)]
    for row in [*trust["held_out"], {"slide": "all test slides", "part": "", **trust["test"]}]:
        lines.append(
            f"{row['slide']:<30}{row['part']:<12}true {row['true']:.2f}  estimated {row['estimated']:.2f}  "
            f"off {row['off']:.2f}  ρ {_order(row['correlation'])} (cycle error {_order(row['cycle_correlation'])})"
        )
    for row in trust["reliability"]:
        end = "" if row["to"] is None else f" to {row['to']:g}"
        lines.append(
            f"estimated above {row['above']:g}{end}: {row['cells']} cells, estimated {row['estimated']:.2f}, "
            f"true {row['true']:.2f} ({row['p5']:.2f} to {row['p95']:.2f})"
        )
    return "\n".join(lines)


def _order(correlation: float | None) -> str:
    return "–" if correlation is None else f"{correlation:.2f}"


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the card or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m train.calibrate_trust", description=__doc__)
    parser.add_argument("--card", required=True, help="name of an upscaler that ships, or the file of its card (.json)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--tiles", type=int, default=TILES, help=f"tiles of each slide (default: {TILES})")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    args = parser.parse_args(argv)
    try:
        file = Path(args.card) if args.card.endswith(".json") else find_upscaler(args.card)
        trust = calibrate(file, args.data, max(1, args.tiles), args.device)
    except (OcularError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(summary(trust) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
