"""Turn a run of `train.sr_fast` into shipped weights and their card, with the scores on the held-out slides.

python -m train.export --run runs/sr-fast --commit $(git rev-parse HEAD) --output wsi_ml/models/weights
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from train import loop
from train.config import config_from_values, ended
from train.run_facts import stages
from train.sr_fast import Config
from wsi_ml.data.pairs import SCANS, TILE_SETS, Compression, slide_pairs, tile_files
from wsi_ml.models import build, checkpoint, parameter_count
from wsi_ml.models.sr_fast import SCALE, SrFastConfig
from wsi_ml.slides.kernel import KERNEL
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.scores import Upscale, lanczos, score
from wsi_ml.sr.upscaler import UpscalerCard, read_json

NAME = "sr-fast"
# Trained at 0.50-0.53 µm per stored pixel (x40 scans of 0.252-0.263); benchmarks/sr_quality.py measures the gain
# at both ends of this range on resampled held-out tiles, where it still is about 1 dB or more on every slide.
MPP_RANGE = (0.40, 0.62)
SCAN_LICENCES = {
    "set": "wsi-atlas-dev", "licence": "MIT, (c) 2022 Pathology Atlas",
    "credit": "Pathology Atlas, patolojiatlasi.com (S. Balci)",
}  # fmt: skip
TILE_LICENCE = {
    "licence": "MIT, (c) 2022 Pathology Atlas; sarcina-ventriculi: MIT, (c) 2025 Dr. Serdar Balci",
    "credit": "Pathology Atlas, patolojiatlasi.com (S. Balci)",
}


def started_from(start: str, beside: Path) -> dict[str, Any]:
    """Hash of the weights a run started from, and how those were trained where the card `beside` is theirs."""
    if not start:
        return {}
    sha256 = hashlib.sha256(Path(start).read_bytes()).hexdigest()
    known = read_json(beside) if beside.is_file() else {}
    return {"started_from": sha256} | ({"before": known["training"]} if known.get("sha256") == sha256 else {})


def make_card(config: Config, steps: int, training: dict[str, Any], sha256: str, parameters: int) -> UpscalerCard:
    """The card without scores; holds no path of the machine it was trained on."""
    network = {"channels": config.channels, "layers": config.layers}
    return UpscalerCard(
        name=NAME, kind="sr", scale=SCALE, halo=SrFastConfig(**network).halo, multiple=1, mpp_range=MPP_RANGE,
        sha256=sha256, parameters=parameters, architecture="sr-fast", config=network, weights=f"{NAME}.safetensors",
        degradation={"kernel": KERNEL, "jpeg": Compression().text},
        data=data_facts(Path(config.data), {*config.test, *config.validation}, config.scan_tiles),
        training={"steps": steps, **training},
        notes="The scans scored against were compressed several times (scanner, export, atlas): compare methods on the "
        "same tiles, not with figures of other data. PSNR: RGB; SSIM: 7x7 uniform window.",
    )  # fmt: skip


def data_facts(data: Path, held_out: set[str], scan_tiles: int) -> list[dict[str, Any]]:
    """Training sets with their slides, licences and credit."""
    facts: list[dict[str, Any]] = []
    for folder in TILE_SETS:
        slides = sorted(
            slide
            for slide, files in tile_files(data).items()
            if slide not in held_out and folder in {part for file in files for part in file.parts}
        )
        facts.append({"set": folder, "slides": slides, **TILE_LICENCE})
    if scan_tiles:
        facts.append({**SCAN_LICENCES, "slides": sorted(set(SCANS) - held_out)})
    return facts


def held_out_scores(upscale: Upscale, data: Path, slides: Sequence[str], name: str = NAME) -> list[dict[str, Any]]:
    """One row per slide: bicubic, Lanczos and the model on the same stored pixels."""
    methods: dict[str, Upscale] = {"bicubic": open_upscaler("bicubic"), "lanczos": lanczos, name: upscale}
    rows = []
    for slide in tqdm(slides, desc="scores", unit="slide"):
        pairs = slide_pairs(data, slide)
        row: dict[str, Any] = {"slide": slide, "tiles": len(pairs)}
        for each, method in methods.items():
            scores = score(method, pairs)
            row[each] = {"psnr": round(scores.psnr, 3), "ssim": round(scores.ssim, 4)}
        row["gain"] = {
            "psnr": round(row[name]["psnr"] - row["bicubic"]["psnr"], 3),
            "ssim": round(row[name]["ssim"] - row["bicubic"]["ssim"], 4),
        }
        rows.append(row)
    return rows


def write_card(file: Path, card: dict[str, Any]) -> None:
    """Card as readable JSON, in one atomic step."""
    loop.write_atomic(file, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())


def export(run: Path, output: Path, commit: str) -> Path:
    """Write weights (the run's moving average), then the card, then the card with scores; returns the card's file."""
    steps, values, tensors = loop.read_state(run)
    config = config_from_values(Config, values)
    weights = loop.part(tensors, "average")
    data, sha256 = checkpoint.weights_bytes(weights)
    model = build("sr-fast", channels=config.channels, layers=config.layers)
    training = {"commit": commit, **started_from(config.start, output / f"{NAME}.json"), "stages": stages(run)}
    card = make_card(config, steps, training, sha256, parameter_count(model)).to_json()
    output.mkdir(parents=True, exist_ok=True)
    loop.write_atomic(output / card["weights"], data)
    card_file = output / f"{NAME}.json"
    write_card(card_file, card)
    # Scored as a user runs it: through the file just written.
    card["scores"] = held_out_scores(open_upscaler(card_file), Path(config.data), config.test)
    write_card(card_file, card)
    return card_file


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m train.export", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of train.sr_fast")
    parser.add_argument("--output", type=Path, required=True, help="folder for sr-fast.safetensors and sr-fast.json")
    parser.add_argument("--commit", default="", help="commit of the code that trained the run, for the card")
    args = parser.parse_args(argv)
    return ended(lambda: export(args.run, args.output, args.commit))


if __name__ == "__main__":
    sys.exit(main())
