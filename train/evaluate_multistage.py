"""Judge a run of paper D on held-out slides: accuracy at one half and areas below precision and recall, per patch.

    python -m train.evaluate_multistage --run runs/d-joint --output docs/results/d-joint --heatmaps runs/d-joint/heat

A run of the extractor is the row “classifier only”, one of the segmentation “separate”, one of end-to-end “end-to-end”;
a segmentation on features of ImageNet's trunk is “ImageNet feature”, a run of pictures “segmentation only”.
`--heatmaps` writes the probabilities of every slide there is, for `train.pn_stage`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from train import loop
from train.config import config_from_values
from train.report import number, table
from train.script import Run
from train.slide_scoring import heat_picture, joined_scores, scores_of, tell_patches, tell_pictures, tell_slide
from train.slide_setup import TUMOUR, Config, open_slides, read_networks
from train.slide_steps import read_all_features
from wsi_ml.data.heatmaps import ENDING, Heatmap, heatmap_bytes
from wsi_ml.data.patch_grid import NOLABEL
from wsi_ml.data.patch_slides import PatchSlide
from wsi_ml.data.slide_maps import SlideFeatures
from wsi_ml.errors import BadRequestError, OcularError

TRAINED = ("extractor", "segmentation", "end-to-end", "picture")
IMAGENET_FEATURES = 1024
OTHER = "other"
"""The part that is all slides of other data."""
PROPOSED = ("98.14 ± .05 (proposed)", "99.24 ± .03 (proposed)")
"""On CAMELYON16 the table at hand does not say which of the two methods this is."""
PAPER = {
    "classifier only": ("95.92 ± .11", "96.08 ± .10", "96.23 ± .21", "96.39 ± .67"),
    "segmentation only": ("92.24 ± .14", "87.21 ± 1.85", "–", "–"),
    "ImageNet feature": ("89.35 ± .59", "78.99 ± 1.59", "–", "–"),
    "separate": ("98.53 ± .03", "99.30 ± .02", PROPOSED[0], PROPOSED[1]),
    "end-to-end": ("98.45 ± .01", "99.34 ± .00", PROPOSED[0], PROPOSED[1]),
}
"""Published accuracy and area on Stomach, then on CAMELYON16, in %; other data, other weights to start from."""


class Teller:
    """A run's networks as one call: slide → probability of tumour of each patch, NaN where it was beyond the map."""

    def __init__(self, folder: Path, device: torch.device, other: Path | None = None, map_side: int = 0):
        """`other` is a library or folder to judge all slides of; `map_side` 0 is the training's."""
        _, values, _ = loop.read_state(folder)
        self.config = config_from_values(Config, values)
        if other is not None:
            self.config = dataclasses.replace(self.config, data=str(other), validation=(), test=())
        self.config = dataclasses.replace(self.config, map_side=map_side or self.config.map_side)
        self.networks = read_networks(folder, TRAINED)
        self.run = Run(folder, loop.Ranks(0, 1, 0), device, False)
        for model in (self.networks.extractor, self.networks.segmentation):
            if model is not None:
                model.to(device).eval()
        self.features = read_all_features(Path(self.config.maps)) if self.config.stage == "segmentation" else {}

    @property
    def row(self) -> str:
        """The row of the paper's tables."""
        if self.config.row:
            return self.config.row
        if self.config.stage == "segmentation":
            assert self.networks.segmentation is not None  # noqa: S101 -- that stage has one
            wide = self.networks.segmentation.config.features == IMAGENET_FEATURES
            return "ImageNet feature" if wide else "separate"
        return {"extractor": "classifier only", "picture": "segmentation only"}.get(self.config.stage, "end-to-end")

    def __call__(self, slide: PatchSlide) -> np.ndarray:
        """See the class; raises BadRequestError for a slide whose features were not made or are of other patches."""
        config, networks = self.config, self.networks
        if config.stage == "picture":
            assert networks.segmentation is not None  # noqa: S101 -- that stage has one
            return tell_pictures(
                networks.segmentation, slide, config.map_side, config.maps_of, config.shrink, self.run
            )  # fmt: skip
        found = self.features.get(slide.name)
        if networks.extractor is not None:
            told = tell_slide(networks.extractor, slide, config.crop, config.chunk, networks.imagenet, self.run)
            if networks.segmentation is None:
                return _tumour(told)
            found = SlideFeatures(slide.name, told, slide.cells, slide.labels, "")
        if found is None or not np.array_equal(found.cells, slide.cells):
            raise BadRequestError(f"There are no features of “{slide.name}” as it is cut now; make them again.")
        assert networks.segmentation is not None  # noqa: S101 -- a run has one of the two
        return tell_patches(networks.segmentation, found, config.map_side, config.maps_of, self.run)


def _tumour(logits: np.ndarray) -> np.ndarray:
    """Probability of tumour of N×2 logits."""
    return torch.from_numpy(logits).softmax(1)[:, TUMOUR].numpy()


def evaluate(
    teller: Teller, slides: Sequence[PatchSlide], part: str, output: Path, heatmaps: Path | None
) -> dict[str, Any]:  # fmt: skip
    """Scores of the part's slides, one by one and pooled, and a picture of each; heatmaps of all slides where wanted.

    Raises BadRequestError where the part has no slide or no label.
    """
    names = teller.config.test if part == "test" else teller.config.validation
    anything = part == OTHER
    judged = [slide for slide in slides if (anything or slide.name in names) and (slide.labels != NOLABEL).any()]
    if not judged:
        raise BadRequestError(f"The run names no slides with labels for the part {part}.")
    output.mkdir(parents=True, exist_ok=True)
    told = {slide.name: teller(slide) for slide in (slides if heatmaps else judged)}
    rows = []
    for place, slide in enumerate(judged):
        picture = f"slide-{place}.png"
        loop.write_atomic(output / picture, _png(heat_picture(slide.cells, slide.labels, told[slide.name])))
        rows.append({"slide": slide.name, **scores_of(told[slide.name], slide.labels), "picture": picture})
    if heatmaps:
        heatmaps.mkdir(parents=True, exist_ok=True)
        for slide in slides:
            cell_mm = slide.side * slide.pixels.stored_mpp / 1000
            heat = Heatmap(slide.name, slide.cells, told[slide.name], cell_mm)
            loop.write_atomic(heatmaps / f"{slide.name}{ENDING}", heatmap_bytes(heat))
    pooled = joined_scores([told[slide.name] for slide in judged], [slide.labels for slide in judged])
    return {"part": part, "slides": rows, "pooled": pooled}


def _png(rgb: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def facts_of(teller: Teller) -> dict[str, Any]:
    """What is known of the run, from its journal: steps, seconds, machine."""
    lines = [json.loads(line) for line in (teller.run.folder / loop.JOURNAL_FILE).read_text().splitlines()]
    start = lines[0]
    config = teller.config
    return {
        "row": teller.row, "stage": config.stage, "preset": config.preset, "source": config.source,
        "labels": _labels(config),
        "parameters": start.get("parameters"), "steps": lines[-1]["step"], "seed": config.seed,
        "minutes": round((lines[-1]["time"] - start["time"]) / 60, 1), "hardware": start.get("hardware", "–"),
        "start": Path(config.start).name or "random",
    }  # fmt: skip


def _labels(config: Config) -> str:
    """Where the labels are from, in words."""
    if config.source == "camelyon":
        return "outlines of CAMELYON's readers, all the rest normal"
    tumour, normal = ", ".join(config.tumour), ", ".join(config.normal) or "all the rest"
    return (
        f"polygons of {f'the layer “{config.layer}”' if config.layer else 'a layer'}: tumour {tumour}; normal {normal}"
    )


def markdown(results: dict[str, Any]) -> str:
    """The report: facts, scores, the paper's row beside ours."""
    shown = [{"run": name, "": value} for name, value in results["run"].items()]
    scores = [_row("all, pooled", results["pooled"]), *(_row(each["slide"], each) for each in results["slides"])]
    published = PAPER.get(results["run"]["row"])
    parts = [
        f"# Patches on slides: {results['run']['row']}", f"Written by `{results['command']}`.", table(shown),
        f"## Slides of the part {results['part']}",
        "Accuracy tells tumour above one half. AP is the sum of steps, the trapezoid joins points by straight lines; "
        "the paper does not say which it means. Patches beyond the map are told nothing and counted apart.",
        table(scores),
    ]  # fmt: skip
    if published:
        heads = ("Stomach accuracy", "Stomach PR-AUC", "CAMELYON16 accuracy", "CAMELYON16 PR-AUC")
        parts += ["The paper's row, in %, on its own data and not comparable with these:",
                  table([dict(zip(heads, published, strict=True))])]  # fmt: skip
    parts += [f"![{each['slide']}: truth, told]({each['picture']})" for each in results["slides"]]
    return "\n\n".join(parts) + "\n"


def _row(name: str, scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "slide": name, "patches": scores["patches"], "tumour": scores["tumour"], "not told": scores["not_told"],
        "accuracy": number(scores["accuracy"], 4), "AP": number(scores["average_precision"], 4),
        "trapezoid": number(scores["pr_trapezoid"], 4),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run or the data cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate_multistage", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help=f"run of the stage {', '.join(TRAINED)}")
    parser.add_argument("--part", choices=("test", "validation"), default="test", help="slides that are judged")
    parser.add_argument("--output", type=Path, required=True, help="folder for README.md, results.json and pictures")
    parser.add_argument("--heatmaps", type=Path, help="folder for the probabilities of all slides")
    parser.add_argument("--data", type=Path, help="another library or folder, of which all slides are judged")
    parser.add_argument("--map-side", type=int, default=0, help="patches a side of a map; 0: the training's")
    parser.add_argument("--device", default="auto", help="auto (GPU when there is one), cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    given = [Path(each).name if Path(each).is_absolute() else each for each in argv or sys.argv[1:]]
    try:
        teller = Teller(args.run, loop.pick_device(args.device, 0), args.data, args.map_side)
        part = OTHER if args.data else args.part
        measured = evaluate(teller, open_slides(teller.config), part, args.output, args.heatmaps)
        command = "python -m train.evaluate_multistage " + shlex.join(given)
        results = {"command": command, "run": facts_of(teller), **measured}
        loop.write_atomic(args.output / "README.md", markdown(results).encode())
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        loop.write_atomic(args.output / "results.json", text.encode())
    except (OcularError, FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
