"""How far upscalers look, by their layers and on pictures: `python -m benchmarks.sr_halo`.

Shipped networks, and networks with random weights whose output has the contrast of tissue. A halo is enough when tiles,
joined, equal one pass within one grey level on two pictures of tissue and three of noise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import torch

from benchmarks.common import SHARED, table, write_result
from tests.sr.networks import tissue, write_model
from wsi_ml.errors import BadRequestError
from wsi_ml.sr.halo import HaloReport, measure_halo, random_pictures, receptive_radius
from wsi_ml.sr.network import NetworkUpscaler
from wsi_ml.sr.upscaler import WEIGHTS_FOLDER, UpscalerCard, available_upscalers

SLIDE = "wsi-small/CMU-1-Small-Region.svs"
PLACES = ((1300, 1500), (1500, 2200))
"""Left and top of squares of tissue on that slide, which is a ×20 scan."""
REDUCED = {"channels": 32, "growth": 16, "blocks": 4}
RANDOM: list[tuple[str, dict[str, Any]]] = [
    ("sr-joint", REDUCED),
    ("rrdb-plain", {}),
    ("srresnet", {}),
    ("msrresnet", {}),
    ("sr-joint", {}),
]


def pictures(side: int) -> list[np.ndarray]:
    """Tissue (drawn waves where the real slide is not at hand) and noise."""
    file = SHARED / SLIDE
    if file.is_file():
        with openslide.OpenSlide(file) as slide:
            real = [np.asarray(slide.read_region(place, 0, (side, side)).convert("RGB")) for place in PLACES]
    else:
        real = [tissue(side, side, seed) for seed in range(2)]
    return real + random_pictures(3, side)


def row(name: str, card: UpscalerCard, weights: Path, options: argparse.Namespace) -> dict[str, object]:
    """Measured on the number format that serves tiles."""
    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    theory = receptive_radius(card.architecture, card.config)
    upscaler = NetworkUpscaler(card, weights)
    try:
        report = measure_halo(upscaler, pictures(options.picture), theory, side=options.side, most=options.most)
        found = str(report.halo)
    except BadRequestError as error:
        report, found = HaloReport(0, theory, (), 0), str(error)
    return {
        "network": name,
        "parameters": f"{card.parameters:,}",
        "by its layers, px": theory,
        "on pictures, px": found,
        "largest difference by halo": ", ".join(f"{halo}: {worst}" for halo, worst in report.differences),
        "seconds": f"{time.monotonic() - began:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=int, default=320, help="side of the pictures, stored px")
    parser.add_argument("--side", type=int, default=128, help="side of the tiles, stored px")
    parser.add_argument("--most", type=int, default=128, help="largest halo tried, stored px")
    parser.add_argument("--random", type=int, default=len(RANDOM), help="how many random networks, smallest first")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shipped = [card for card in available_upscalers() if card.kind == "sr"]
    rows = [row(f"{card.name} (shipped)", card, WEIGHTS_FOLDER / card.weights, options) for card in shipped]
    with tempfile.TemporaryDirectory() as name:
        for number, (architecture, config) in enumerate(RANDOM[: options.random]):
            card = write_model(Path(name), f"random-{number}", architecture, config)
            words = ", ".join(f"{key} {value}" for key, value in config.items()) or "as published"
            rows.append(row(f"{architecture}, random, {words}", card, Path(name) / card.weights, options))
    text = (
        f"Pictures of {options.picture} px, tiles of {options.side} px, halos to {options.most} px, tolerance 1 grey "
        f"level, {options.threads} threads.\n\n" + table(rows)
    )
    write_result("sr_halo", "Halos of upscalers", "python -m benchmarks.sr_halo", text)


if __name__ == "__main__":
    main()
