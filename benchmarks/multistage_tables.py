"""Table 1 of paper D (Takahama et al. 2019) beside ours, and its tables 2 and 3 as published.

Called by `benchmarks.segmentation_tables`; the runs are those of train/configs/studies/multistage*.toml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.common import ROOT, table
from benchmarks.segmentation_tables import (
    NONE,
    Direction,
    RunResult,
    by_row,
    directions,
    figure,
    mean,
    over_seeds,
    read,
    spent,
    spread,
)

TITLE = "Classes told from the whole slide"
RUNS = "multistage*"
KEPT_SCORES = ("patches", "tumour", "not_told", "accuracy", "average_precision", "pr_trapezoid")
DRAWN, REAL = "multistage", "multistage_teacher"
"""Names of the plans."""
ACCURACY, AREA = "accuracy", "average_precision"
LITTLE = 0.1
"""End-to-end learning changes little where it changes less than this share of what separate learning gains; in the
paper it is 0.01 of the area and 0.03 of the accuracy."""
MANY = 4
"""Slides of which only the first and last are named."""
PICTURE, STAGES_FILE = "heatmaps.png", "stages.json"
STAGES_RUNS = "patients"
"""Folder below runs/ of what train.pn_stage found."""
STAGES_WORDS = (
    "**A demonstration that the chain works, no result about patients.** Five drawn nodes a patient, the five stages "
    "in turn (`train.draw_patients`); heatmaps of an end-to-end run of the table above; `train.pn_stage` by its rule "
    "(length of the largest region) and by its forest, in folds of patients."
)
FOLD = "-on-"
"""In the name of a run, between its row and the slides it is judged on, where a study has several such parts."""
PIECE, GAP = 256, 8
"""Width of a map in the picture, and white between maps, in pixels."""


class PaperRow(NamedTuple):
    """A row of table 1: accuracy and PR-AUC in %, mean and standard deviation of three runs."""

    title: str
    accuracy: tuple[float, float]
    area: tuple[float, float]


TABLE_1 = {
    "extractor": PaperRow("classifier only", (95.92, 0.11), (96.08, 0.10)),
    "picture": PaperRow("segmentation only", (92.24, 0.14), (87.21, 1.85)),
    "trunk": PaperRow("ImageNet feature (ours: a random trunk’s)", (89.35, 0.59), (78.99, 1.59)),
    "separate": PaperRow("separate", (98.53, 0.03), (99.30, 0.02)),
    "end-to-end": PaperRow("end-to-end", (98.45, 0.01), (99.34, 0.00)),
}
"""By the names of our runs."""
TABLE_2 = (
    {"CAMELYON16": "classifier only", "accuracy": "96.23 ± .21", "PR-AUC": "96.39 ± .67"},
    {"CAMELYON16": "proposed", "accuracy": "98.14 ± .05", "PR-AUC": "99.24 ± .03"},
)
TABLE_3 = ({"CAMELYON17": "classifier only", "kappa × 100": "71.9"}, {"CAMELYON17": "proposed", "kappa × 100": "76.4"})
WORDS = {
    DRAWN: "**Drawn slides, exact truth.** Not tissue: squares of a patch's size with many small or few large nuclei, "
    "of one colour and area, and a fifth of the squares look like the other class (`wsi_ml/data/lesion_slide.py`). So "
    "a patch alone cannot be told right more often than four times in five, but from its surroundings it can. At ⅛ of "
    "the resolution nuclei melt into one colour, so “segmentation only” has little to see. That is the paper's claim "
    "in its purest form; it says nothing of how much there is to gain on real slides.",
    REAL: "**Real slides, a teacher's labels: agreement with a model, not accuracy.** A published epithelium model "
    "told the layer “{layer}”; “tumour” stands for {tumour}, and there is no tumour. Two slides are all there are: one "
    "teaches, the other is judged, both ways, one seed. So “separate” has a single map to learn from, and nothing has "
    "seen the other slide's stain: a demonstration that the stages run on real slides, not a test of the paper.",
}
PAPER_WORDS = (
    "The paper's figures are of 1,019 private slides of stomach with outlined tumours (table 1), weights of ImageNet "
    "to start from, patches of 256 px and networks of full width. Compare ours with ours; beside the paper's stand "
    "directions only."
)
Rows = Mapping[str, Sequence[RunResult]]


def shrink(results: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run's results.json."""
    rows = [{"slide": each["slide"], **{name: each[name] for name in KEPT_SCORES}} for each in results["slides"]]
    told = {name: results["run"].get(name) for name in ("row", "stage", "preset", "source", "labels", "start")}
    return {"run": told, "part": results["part"], "pooled": results["pooled"], "slides": rows}


def values(runs: Sequence[RunResult], measure: str) -> list[float | None]:
    """A pooled score of each seed, in %."""
    found = [run.results["pooled"][measure] for run in runs]
    return [None if value is None else 100 * value for value in found]


def table_1(rows: Rows) -> str:
    """The table of one study."""
    lines = []
    for name, paper in TABLE_1.items():
        runs = rows.get(name, [])
        lines.append({
            "row": paper.title,
            "paper: accuracy": f"{paper.accuracy[0]:.2f} ± {paper.accuracy[1]:.2f}",
            "paper: PR-AUC": f"{paper.area[0]:.2f} ± {paper.area[1]:.2f}",
            "accuracy": over_seeds(values(runs, ACCURACY), 2) if runs else NONE,
            "AP": over_seeds(values(runs, AREA), 2) if runs else NONE,
            "trapezoid": over_seeds(values(runs, "pr_trapezoid"), 2) if runs else NONE,
            **spent(runs),
        })  # fmt: skip
    return table(lines)


def compared(rows: Rows, better: str, worse: str, measure: str) -> Direction:
    """Whether one row is above another, as in the paper."""
    place = 1 if measure == ACCURACY else 2
    titles = [TABLE_1[name].title.split(" (")[0] for name in (better, worse)]
    paper = [TABLE_1[name][place][0] for name in (better, worse)]
    found = [mean(values(rows.get(name, []), measure)) for name in (better, worse)]
    words = f"{titles[0]} is better than {titles[1]} ({'accuracy' if measure == ACCURACY else 'area'})"
    told = f"{paper[0]:.2f} > {paper[1]:.2f}"
    if found[0] is None or found[1] is None:
        return Direction(words, told, NONE, None)
    noise = spread([values(rows[name], measure) for name in (better, worse)])
    holds = found[0] > found[1]
    close = noise is not None and abs(found[0] - found[1]) < noise
    return Direction(words, told, f"{found[0]:.2f} {'>' if holds else '≤'} {found[1]:.2f}", holds, close)


def polished(rows: Rows, measure: str) -> Direction:
    """Whether end-to-end learning changes little on top of separate learning."""
    names, place = ("extractor", "separate", "end-to-end"), 1 if measure == ACCURACY else 2
    paper = [TABLE_1[name][place][0] for name in names]
    found = [mean(values(rows.get(name, []), measure)) for name in names]
    words = f"end-to-end changes little after separate ({'accuracy' if measure == ACCURACY else 'area'})"
    told = f"{paper[2] - paper[1]:+.2f}, of {paper[1] - paper[0]:+.2f} that separate gains"
    alone, separate, whole = found
    if alone is None or separate is None or whole is None:
        return Direction(words, told, NONE, None)
    gain, change = separate - alone, whole - separate
    return Direction(words, told, f"{change:+.2f}, of {gain:+.2f}", abs(change) < LITTLE * abs(gain))


def study_directions(rows: Rows) -> list[Direction]:
    """What the paper says of table 1, and what one study's figures say."""
    pairs = [("separate", "extractor"), ("separate", "picture"), ("separate", "trunk"), ("extractor", "picture"),
             ("extractor", "trunk"), ("picture", "trunk")]  # fmt: skip
    found = [compared(rows, better, worse, measure) for better, worse in pairs for measure in (ACCURACY, AREA)]
    return found + [polished(rows, measure) for measure in (ACCURACY, AREA)]


def data_words(runs: Sequence[RunResult]) -> str:
    """Slides and patches of a study, from its runs."""
    first = runs[0]
    slides, pooled = [each["slide"] for each in first.results["slides"]], first.results["pooled"]
    keys, share = first.facts["keys"], pooled["tumour"] / max(1, pooled["patches"])
    seeds = len({run.facts.get("seed") for run in runs})
    told = ", ".join(slides) if len(slides) < MANY else f"{slides[0]} to {slides[-1]}"
    return (
        f"Judged: {pooled['patches'] + pooled['not_told']:,} patches of {keys.get('patch_side', '256')} px at ×20 on "
        f"{'one slide' if len(slides) == 1 else f'{len(slides)} slides'} ({told}), {share:.1%} of them tumour: the "
        f"area by chance is {100 * share:.1f}, and the accuracy of one answer for all "
        f"{100 * max(share, 1 - share):.1f}. Labels: {first.results['run']['labels']}. The split is by slide"
        + (" and the same for all seeds." if seeds > 1 else ". One seed: what another would change is not known.")
    )


def heat_maps(folder: Path, study: Path) -> bool:
    """Write truth, classifier only and separate of the first judged slide side by side; false without these runs."""
    told = [sorted(study.glob(f"{name}-*/slide-0.png")) for name in ("extractor", "separate")]
    if not all(told):
        return False
    pictures = [np.asarray(Image.open(files[0]).convert("RGB")) for files in told]
    # Each is the truth, one white column of a cell, and what was told.
    width = (pictures[0].shape[1] - 8) // 2
    pieces = [pictures[0][:, :width], *(picture[:, -width:] for picture in pictures)]
    height = round(PIECE * pieces[0].shape[0] / width)
    sheet = Image.new("RGB", (3 * PIECE + 2 * GAP, height), "white")
    for place, piece in enumerate(pieces):
        small = Image.fromarray(np.ascontiguousarray(piece)).resize((PIECE, height), Image.Resampling.NEAREST)
        sheet.paste(small, (place * (PIECE + GAP), 0))
    sheet.quantize(64).save(folder / PICTURE, optimize=True)
    return True


def stages_words(folder: Path, runs: Path) -> str:
    """What `train.pn_stage` found of drawn patients; kept in the folder from `runs`/<method>/results.json."""
    kept, names = folder / STAGES_FILE, ("slides_judged", "slide_accuracy", "patients_judged", "kappa", "folds")
    found = {file.parent.name: read(file) for file in sorted(runs.glob("*/results.json"))}
    small = {name: {each: value[each] for each in names} for name, value in found.items() if "kappa" in value}
    if small:
        kept.write_text(json.dumps(small, indent=1) + "\n", encoding="utf-8")
    if not kept.is_file():
        return "Stages of patients: not measured."
    rows: list[dict[str, object]] = []
    for method, told in read(kept).items():
        kappa = None if told["kappa"] is None else 100 * told["kappa"]
        rows.append({
            "drawn patients": method, "patients": told["patients_judged"], "slides": told["slides_judged"],
            "class of slides": f"{told['slide_accuracy']:.0%}", "kappa × 100": figure(kappa, 1),
        })  # fmt: skip
    return f"{STAGES_WORDS}\n\n{table(rows)}"


def study_words(name: str, runs: Sequence[RunResult]) -> list[str]:
    """What is said of a study, its table and its directions; of each part where it has several."""
    keys = runs[0].facts["keys"]
    parts = [WORDS[name].format(layer=keys.get("layer", NONE), tumour=keys.get("tumour", NONE))]
    for fold in sorted({run.row.partition(FOLD)[2] for run in runs}):
        mine = [run for run in runs if run.row.partition(FOLD)[2] == fold]
        rows = {row.partition(FOLD)[0]: found for row, found in by_row(mine).items()}
        parts += [data_words(mine), table_1(rows), directions(study_directions(rows))]
    return parts


def body(runs: list[RunResult], folder: Path) -> str:
    """The report; writes the picture of the heatmaps where the runs are at hand."""
    parts = [PAPER_WORDS]
    titles = {DRAWN: "Table 1 on drawn slides", REAL: "Table 1 on real slides, as far as it goes"}
    for study, title in titles.items():
        mine = [run for run in runs if run.study == study]
        parts.append(f"## {title}")
        parts += study_words(study, mine) if mine else ["Not measured."]
        if study == DRAWN and (heat_maps(folder, ROOT / "runs" / study) or (folder / PICTURE).is_file()):
            words = "truth, classifier only, separate; red is tumour, blue normal, grey without label"
            parts.append(f"![{words}]({PICTURE})\n\nOne judged slide: {words}.")
    note = "Not measured here: CAMELYON's slides are not at hand. `train.pn_stage` makes the stages of CAMELYON17."
    parts += ["## Tables 2 and 3, as published", note, table(list(TABLE_2)), table(list(TABLE_3))]
    parts += ["## Stages of drawn patients", stages_words(folder, ROOT / "runs" / STAGES_RUNS)]
    return "\n\n".join(parts)
