"""Tables 1 and 2 of Sun, Khvostikov et al. 2024 beside ours: `python -m benchmarks.joint_tables`.

Ours come from the results.json files that `python -m train.evaluate --output docs/results/NAME` writes; several seeds
of one row are joined as mean ± standard deviation. A row without a file is printed as – with the reason below.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, table, write_result

NONE = "–"
FORMAT = 1
PLACE, SLIDE, ATLAS = "tissue-weak, place", "tissue-weak, slide", "atlas"
CLASSES = ("ADI", "BG", "GLA", "LYM", "MUS", "STR")
NO_X40 = "the weak labels are of ×20 pixels only, so there is nothing to train a ×40 classifier on"
WORDS = (
    "**The two halves of each row are not comparable.** The paper's are of ten gastric slides scanned at ×40 with "
    "regions outlined by pathologists (PATH-DT-MSU: AT, BG, LP, MM, TUM). Ours are of other data, all there is "
    "here: weak tissue labels (boxes on slides of known title and colour rules, 3–8 % wrong) and 512-px tiles of the "
    "Pathology Atlas that were compressed several times before. Compare ours with ours only."
)


@dataclass(frozen=True)
class PaperClasses:
    """A row of table 1: recalls of AT, BG, LP, MM, TUM, accuracy, balanced accuracy."""

    title: str
    row: str
    paper: tuple[float, ...] | None
    missing: str


@dataclass(frozen=True)
class PaperPictures:
    """A row of table 2: PSNR in dB and SSIM."""

    title: str
    row: str
    paper: tuple[float, float] | None
    missing: str


def classifier(name: str) -> str:
    return f"not trained: `python -m train.classifier --set architecture={name} --set source=tissue-weak`"


def generator(keys: str) -> str:
    return f"not trained: `python -m train.sr_gan {keys}`"


def method(name: str) -> str:
    return f"not measured: `python -m train.evaluate --card {name} --output docs/results/{name}`"


VGG = " (VGG-19's weights do not ship; `perceptual=0` trains without that term)"
JOINT = "not trained: `python -m train.joint --config train/configs/joint_small.toml`"
TABLE_1 = (
    PaperClasses("ResNet50", "resnet50", (0.947, 1, 0.871, 0.929, 0.810, 0.969, 0.911), classifier("resnet50")),
    PaperClasses("DenseNet121", "densenet121", (0.942, 1, 0.833, 0.941, 0.810, 0.968, 0.905),
                 classifier("densenet121")),
    PaperClasses("EfficientNet", "efficientnet", (0.930, 1, 0.913, 0.942, 0.738, 0.963, 0.904),
                 classifier("efficientnet")),
    PaperClasses("MobileNet", "mobilenet", (0.961, 1, 0.807, 0.907, 0.789, 0.966, 0.893), classifier("mobilenet")),
    PaperClasses("SR+CLS (`sr-joint`)", "sr-joint", (0.947, 1, 0.873, 0.911, 0.849, 0.971, 0.916), JOINT),
    PaperClasses("ResNet50 on ×40", "resnet50-x40", (0.962, 1, 0.846, 0.949, 0.827, 0.973, 0.917), NO_X40),
    PaperClasses("`sr-joint`, classes only", "sr-joint-classes", None, classifier("sr-joint")),
    PaperClasses("`tissue-fast` (shipped)", "tissue-fast", None, method("tissue-fast")),
)  # fmt: skip
TABLE_2 = (
    PaperPictures("SRGAN (`srresnet`)", "srgan", (27.2, 0.78),
                  generator("--set baseline=srgan --set row=srgan --set vgg=vgg19.safetensors") + VGG),
    PaperPictures("ESRGAN (`esrgan`)", "esrgan", (31.82, 0.86),
                  generator("--set baseline=esrgan --set row=esrgan --set vgg=vgg19.safetensors") + VGG),
    PaperPictures("SR+CLS (`sr-joint`)", "sr-joint", (32.66, 0.89), JOINT),
    PaperPictures("auxiliary generator (stage 1)", "sr-gan-generator", None,
                  generator("--config train/configs/sr_gan_small.toml")),
    PaperPictures("SRGAN as BasicSR has it (`msrresnet`)", "msrresnet", None,
                  generator("--set baseline=srgan --set architecture=msrresnet --set vgg=vgg19.safetensors") + VGG),
    PaperPictures("plain RRDB", "rrdb-plain", None,
                  generator("--set architecture=rrdb-plain --set adversarial=0 --set perceptual=0")),
    PaperPictures("`sr-fast` (shipped)", "sr-fast", None, method("sr-fast")),
    PaperPictures("best linear filter, 9×9", "linear", None, method("linear")),
    PaperPictures("Lanczos", "lanczos", None, method("lanczos")),
    PaperPictures("bicubic", "bicubic", None, method("bicubic")),
)  # fmt: skip


def read_results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Results by the row they fill, of every folder/NAME/results.json; raises SystemExit naming a damaged file."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*/results.json")):
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SystemExit(f"{file.parent.name}/{file.name} is no JSON: {error}.") from error
        if value.get("format") != FORMAT:
            raise SystemExit(f"{file.parent.name}/{file.name} has format {value.get('format')!r}, not {FORMAT}.")
        rows.setdefault(value["model"]["row"], []).append(value)
    return rows


def of_set(results: list[dict[str, Any]], part: str, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(model, row) of those results that were measured on a set."""
    return [(each["model"], row) for each in results for row in each[part] if row["set"] == name]


def over_seeds(values: list[float | None], places: int) -> str:
    """`mean`, or `mean ± standard deviation` of two and more; – where one is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return NONE
    mean = f"{np.mean(known):.{places}f}"
    return mean if len(known) == 1 else f"{mean} ± {np.std(known, ddof=1):.{places}f}"


def training_cells(models: list[dict[str, Any]]) -> dict[str, object]:
    """How much was spent on a row."""
    seeds = sorted({str(model["seed"]) for model in models if model.get("seed") is not None})
    minutes = [model["minutes"] for model in models if model.get("minutes") is not None]
    sizes = sorted({model["parameters"] for model in models if model.get("parameters") is not None})
    steps = sorted({model["steps"] for model in models if model.get("steps") is not None})
    return {
        "parameters": ", ".join(f"{size:,}" for size in sizes) or NONE,
        "steps": ", ".join(f"{each:,}" for each in steps) or NONE,
        "seeds": ", ".join(seeds) or NONE,
        "minutes a run": over_seeds(minutes, 0),
    }


def class_row(line: PaperClasses, results: list[dict[str, Any]]) -> dict[str, object]:
    """One row of table 1."""
    paper, place, slide = line.paper, of_set(results, "classification", PLACE), of_set(results, "classification", SLIDE)
    recalls = [over_seeds([row["recall"].get(code) for _, row in place], 3) for code in CLASSES]
    return {
        "model": line.title,
        "paper: recall AT / BG / LP / MM / TUM": " / ".join(f"{each:.3f}" for each in paper[:5]) if paper else NONE,
        "paper: accuracy": f"{paper[5]:.3f}" if paper else NONE,
        "paper: balanced": f"{paper[6]:.3f}" if paper else NONE,
        "ours: recall " + " / ".join(CLASSES): " / ".join(recalls) if place else NONE,
        "ours: accuracy": over_seeds([row["accuracy"] for _, row in place], 3),
        "ours: balanced": over_seeds([row["balanced_accuracy"] for _, row in place], 3),
        "ours: calibration error": over_seeds([row["calibration_error"] for _, row in place], 3),
        "another slide: BG / GLA": " / ".join(
            over_seeds([row["recall"].get(code) for _, row in slide], 3) for code in ("BG", "GLA")
        ),
        **training_cells([model for model, _ in place or slide]),
    }


def picture_row(line: PaperPictures, results: list[dict[str, Any]]) -> dict[str, object]:
    """One row of table 2."""
    found = of_set(results, "sr", ATLAS)
    means = [row["mean"]["model"] for _, row in found]
    gains = [_gain(row) for _, row in found]
    return {
        "model": line.title,
        "paper: PSNR": f"{line.paper[0]:.2f}" if line.paper else NONE,
        "paper: SSIM": f"{line.paper[1]:.2f}" if line.paper else NONE,
        "ours: PSNR": over_seeds([mean["psnr"] for mean in means], 2),
        "SSIM 7×7": over_seeds([mean["ssim"] for mean in means], 4),
        "Y-PSNR": over_seeds([mean["psnr_luma"] for mean in means], 2),
        "SSIM Gaussian": over_seeds([mean["ssim_gaussian"] for mean in means], 4),
        "PSNR over bicubic": over_seeds(gains, 2) if line.row != "bicubic" else "",
        "pictures": ", ".join(sorted({str(row["mean"]["pictures"]) for _, row in found})) or NONE,
        **training_cells([model for model, _ in found]),
    }


def _gain(row: dict[str, Any]) -> float | None:
    ours, plain = row["mean"]["model"]["psnr"], row["mean"]["bicubic"]["psnr"]
    return None if ours is None or plain is None else ours - plain


def notes(missing: list[tuple[str, str]]) -> str:
    """Why rows are empty."""
    return "\n".join(f"- {title}: {reason}" for title, reason in missing) or "No row is empty."


def strays(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Results that fill no row, so that none goes unseen."""
    known = {line.row for line in TABLE_1} | {line.row for line in TABLE_2}
    names = sorted(each["model"]["name"] for row, some in rows.items() if row not in known for each in some)
    return f"In no row (name one with `--row`): {', '.join(names)}." if names else ""


def hardware(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The machines the rows were trained on, as their journals name them."""
    named = sorted(
        {str(each["model"]["hardware"]) for row in rows.values() for each in row if "hardware" in each["model"]}
    )
    return f"Trained on: {'; '.join(named)}." if named else "No row names the machine it was trained on."


def body(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Both tables with their words."""
    classes = [class_row(line, rows.get(line.row, [])) for line in TABLE_1]
    pictures = [picture_row(line, rows.get(line.row, [])) for line in TABLE_2]
    no_class = [
        (line.title, line.missing) for line in TABLE_1 if not of_set(rows.get(line.row, []), "classification", PLACE)
    ]
    no_picture = [(line.title, line.missing) for line in TABLE_2 if not of_set(rows.get(line.row, []), "sr", ATLAS)]
    return "\n\n".join([
        WORDS,
        hardware(rows),
        "## Table 1: classes",
        "Ours: patches of 224 px at ×20 in the far quarter of the slides trained on (195 patches, all six classes), "
        "and of one whole slide not trained on (duodenum-tubular-adenoma, 125 patches, only background and glands). "
        "Calibration error: 15 bins, of the 195 patches.",
        table(classes),
        notes(no_class),
        "## Table 2: super-resolution",
        "The paper's definition (PSNR on uint8 RGB without border cut, SSIM with a 7×7 uniform window), Y-PSNR and "
        "SSIM with an 11×11 Gaussian window as BasicSR has them. Ours: BS12, lung-squamous-cell-carcinoma and "
        "ectopic-pancreas, never trained on; ×20 by the store's kernel and JPEG. Paper: 400 patches, 100 each of AT, "
        "LP, MM and TUM.",
        table(pictures),
        notes(no_picture),
        strays(rows),
    ]).rstrip()  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", help="folder of results folders")
    args = parser.parse_args()
    text = body(read_results(args.results))
    write_result("joint_tables", "The paper's tables and ours", "python -m benchmarks.joint_tables", text)


if __name__ == "__main__":
    main()
