"""Paper C's comparisons (Graham et al. 2022) beside ours; printed by `benchmarks.segmentation_tables cerberus`.

The paper's figures are those at hand; other cells of its tables are left out rather than guessed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    spent,
    spread,
)

TITLE = "Nuclei, glands, lumina and patches from one encoder (Cerberus)"
RUNS = "cerberus_*"
STUDY = "cerberus_tasks"
HAND, RESEARCH, DRAWN = "dsb2018 test", "MoNuSeg 2018", "drawn scene"
SCORES = ("pq", "dq", "sq", "aji", "dice")
KEPT_ROW = ("task", "set", "truth", "rows", "objects", *SCORES, "mpq", "mpq_plus", "precision", "recall", "f1", "map",
            "balanced_accuracy", "macro_f1")  # fmt: skip
STL, FIXED, MIXED, PATCH = "STL", "MTL, fixed batches", "MTL, mixed batches", "MTL, mixed + patch task"
ROWS = {FIXED: "all-fixed", MIXED: "all-mixed", PATCH: "all-patch"}
TASKS = ("gland", "lumen", "nuclei")
PAPER_EXTERNAL: dict[str, tuple[float, float] | None] = {
    STL: (0.566, 0.313), FIXED: None, MIXED: (0.617, 0.492), PATCH: (0.640, 0.525),
}  # fmt: skip
"""PQ of glands and lumina on the paper's external slides; its last row starts from ImageNet too."""
PAPER_MODELS = (
    ("U-Net", ".622 ± .030", ".459 ± .024", ".501 ± .008", ".240 ± .109"),
    ("MILD-Net", ".647 ± .046", ".526 ± .027", ".522 ± .034", ".353 ± .088"),
    ("Rota-Net", ".662 ± .048", ".573 ± .034", ".569 ± .042", ".436 ± .054"),
    ("Cerberus", ".677 ± .028", ".640 ± .012", ".589 ± .006", ".525 ± .027"),
    ("Cerberus+", ".674 ± .021", ".650 ± .004", ".590 ± .018", ".530 ± .005"),
)
"""PQ of glands and lumina, cross-validated and external."""
PAPER_NUCLEI = {"bPQ": ".568 ± .009", "mPQ": ".332 ± .011", "mPQ+": ".388 ± .003"}
"""Cerberus+, external."""
WORDS = (
    "**The paper's figures and ours are not comparable**: its are of colorectal tissue outlined by pathologists "
    "(external: TCGA), ours of what is here. Nuclei: DSB 2018 (CC0), outlined *by hand*, whole clusters of look-alike "
    "pictures held out, scaled by the truth; MoNuSeg (CC BY-NC-SA, 13 pictures, never trained on), *by hand*; a drawn "
    "scene, *exact*. Glands and lumina: a drawn scene of another seed, *exact*, which says nothing of real glands. "
    "Patches: *weak* labels. Networks have a fifth of the paper's width and saw some thousandth of its pictures, from "
    "a random start: what can be compared is the order of the rows."
)
SQRT_2 = 2**0.5
SHOWN = (
    ("all-mixed-80", "nuclei-dsb2018-test-crowded-on-violet"), ("all-mixed-80", "nuclei-dsb2018-test-pale-on-white"),
    ("all-mixed-80", "nuclei-drawn-scene"), ("all-mixed-80", "gland-drawn-scene"),
    ("all-mixed-80", "lumen-drawn-scene"), ("all-patch-80", "gland-drawn-scene"),
)  # fmt: skip
"""Run and picture that are shown below the tables: drawn ones and CC0 alone."""


def shrink(results: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run's results.json."""
    facts = {name: value for name, value in results.items() if name != "rows"}
    rows = [
        {name: value for name, value in row.items() if name in KEPT_ROW or name.startswith("f1/")}
        for row in results["rows"]
    ]  # fmt: skip
    return {**facts, "rows": rows}


def score(run: RunResult, task: str, name: str, of: str) -> float | None:
    """A score of a task over the sets whose names begin so, pictures counting alike; None where it was not measured."""
    rows = [row for row in run.results["rows"] if row["task"] == task and row["set"].startswith(name)]
    known = [(row[of], row["rows"]) for row in rows if row.get(of) is not None]
    return sum(value * count for value, count in known) / sum(count for _, count in known) if known else None


def runs_of(title: str, task: str, rows: dict[str, list[RunResult]]) -> list[RunResult]:
    """The runs of all seeds that a line of the tables has of a task: with STL the task's own."""
    return rows.get(task if title == STL else ROWS[title], [])


def scores(title: str, task: str, name: str, of: str, rows: dict[str, list[RunResult]]) -> list[float | None]:
    """A score by seed."""
    return [score(run, task, name, of) for run in runs_of(title, task, rows)]


def compared(rows: dict[str, list[RunResult]]) -> str:
    """PQ of the four ways to train, the paper's beside ours."""
    lines: list[dict[str, object]] = []
    for title, paper in PAPER_EXTERNAL.items():
        gland, lumen = paper or (None, None)
        own = [run for task in (*TASKS, "patch") for run in runs_of(title, task, rows)]
        lines.append({
            "training": title, "paper: gland": figure(gland), "paper: lumen": figure(lumen),
            "ours: gland (drawn)": over_seeds(scores(title, "gland", DRAWN, "pq", rows)),
            "ours: lumen (drawn)": over_seeds(scores(title, "lumen", DRAWN, "pq", rows)),
            "ours: nuclei (hand)": over_seeds(scores(title, "nuclei", HAND, "pq", rows)),
            "ours: nuclei (MoNuSeg)": over_seeds(scores(title, "nuclei", RESEARCH, "pq", rows)),
            "ours: nuclei (drawn)": over_seeds(scores(title, "nuclei", DRAWN, "pq", rows)),
            **cost({run.name: run for run in own}),
        })  # fmt: skip
    return table(lines)


def cost(runs: dict[str, RunResult]) -> dict[str, object]:
    """Steps, seeds and minutes of one seed of all runs that a line is made of."""
    seeds = {str(run.facts.get("seed")) for run in runs.values()}
    minutes = sum(run.facts.get("minutes") or 0.0 for run in runs.values())
    return {**spent(list(runs.values())), "minutes a run": f"{minutes / len(runs):.1f} × {len(runs)}" if runs else NONE,
            "seeds": ", ".join(sorted(seeds)) or NONE}  # fmt: skip


def all_scores(rows: dict[str, list[RunResult]]) -> str:
    """Every score of every set."""
    lines: list[dict[str, object]] = []
    sets = (("gland", DRAWN, "exact"), ("lumen", DRAWN, "exact"), ("nuclei", HAND, "by hand"),
            ("nuclei", RESEARCH, "by hand"), ("nuclei", DRAWN, "exact"))  # fmt: skip
    for task, name, truth in sets:
        for title in PAPER_EXTERNAL:
            if runs_of(title, task, rows):
                values = {of.upper(): over_seeds(scores(title, task, name, of, rows)) for of in SCORES}
                lines.append({"task": task, "set": name, "truth": truth, "training": title, **values})
    return table(lines) if lines else "No run was measured."


def nuclei(rows: dict[str, list[RunResult]]) -> str:
    """Nuclei beside the published figures for external slides."""
    found = rows.get("types", [])
    pq = {name: over_seeds(scores(PATCH, "nuclei", name, "pq", rows)) for name in (HAND, RESEARCH, DRAWN)}
    typed = {of: over_seeds([score(run, "nuclei_type", DRAWN, of) for run in found]) for of in ("mpq", "mpq_plus")}
    lines: list[dict[str, object]] = [
        {"": "paper: Cerberus+, external, six types", **PAPER_NUCLEI},
        {"": f"ours, {PATCH}: {HAND}, by hand", "bPQ": pq[HAND], "mPQ": NONE, "mPQ+": NONE},
        {"": "ours: MoNuSeg, by hand", "bPQ": pq[RESEARCH], "mPQ": NONE, "mPQ+": NONE},
        {"": "ours: drawn scene, exact, three types", "bPQ": pq[DRAWN], "mPQ": typed["mpq"], "mPQ+": typed["mpq_plus"]},
    ]
    return table(lines)


def heads(rows: dict[str, list[RunResult]]) -> str:
    """Heads put on the frozen encoder."""
    lines: list[dict[str, object]] = []
    for row in ("types", "points"):
        for run in rows.get(row, [])[:1]:
            for each in run.results["rows"]:
                if each["task"] in run.results["tasks"]:
                    names = [
                        of for of in each if of in ("mpq", "mpq_plus", "precision", "recall") or of.startswith("f1")
                    ]
                    own = {of: [score(one, each["task"], each["set"], of) for one in rows[row]] for of in names}
                    text = ", ".join(f"{of.replace('f1/', 'F1 ')} {over_seeds(own[of])}" for of in names)
                    lines.append({"head": each["task"], "set": each["set"], "truth": each["truth"],
                                  "objects": each["objects"], "scores": text, **spent(rows[row])})  # fmt: skip
    return table(lines) if lines else "No head was trained."


def patches(rows: dict[str, list[RunResult]]) -> str:
    """Classes of patches, alone and beside the other tasks."""
    lines: list[dict[str, object]] = []
    for title, row in ((STL, "patch"), (PATCH, "all-patch")):
        for name in ("tissue-weak by place", "tissue-weak by slide"):
            own = [{of: score(run, "patch", name, of) for of in ("map", "balanced_accuracy", "macro_f1")}
                   for run in rows.get(row, [])]  # fmt: skip
            values = {of: over_seeds([each[of] for each in own]) for of in ("map", "balanced_accuracy", "macro_f1")}
            lines.append({"training": title, "set": name, "mAP": values["map"],
                          "balanced accuracy": values["balanced_accuracy"],
                          "macro F1": values["macro_f1"]})  # fmt: skip
    return table(lines)


def taught(rows: dict[str, list[RunResult]]) -> str:
    """Glands and lumina of real tissue, learnt from and compared with a teacher's labels."""
    lines: list[dict[str, object]] = []
    for title, row in (("gland alone", "teacher-gland"), (MIXED, "teacher-all")):
        for task in TASKS[:2]:
            own = rows.get(row, [])
            values = {of.upper(): over_seeds([score(run, task, "folder", of) for run in own]) for of in SCORES}
            if any(value != NONE for value in values.values()):
                lines.append({"training": title, "task": task, **values, **spent(own)})
    return table(lines) if lines else "No run was measured."


def found_directions(rows: dict[str, list[RunResult]]) -> list[Direction]:
    """What the paper says of which training is better, and what ours says."""
    found = []
    noise = {task: spread([scores(title, task, DRAWN, "pq", rows) for title in PAPER_EXTERNAL]) for task in TASKS}
    for one, two, said in ((STL, MIXED, ""), (MIXED, PATCH, " (with ImageNet's weights)"), (FIXED, MIXED, "")):
        for place, task in enumerate(TASKS[:2]):
            printed = [PAPER_EXTERNAL[each] for each in (one, two)]
            paper = " → ".join(figure(each[place]) for each in printed if each is not None)
            paper = f"{paper}{said}" if None not in printed else "said without a figure"
            found.append(_direction(f"{task}: {two} beats {one}", paper, one, two, task, rows, noise[task]))
    gains = [_gain(task, rows) for task in TASKS[:2]]
    if None not in gains:
        words = "multi-task learning helps lumina more than glands"
        ours = " against ".join(figure(each) for each in (gains[1], gains[0]))
        found.append(Direction(words, ".179 against .051", ours, bool(gains[1] > gains[0])))  # type: ignore[operator]
    else:
        found.append(Direction("multi-task learning helps lumina more than glands", ".179 against .051", NONE, None))
    return found


def _direction(
    words: str, paper: str, one: str, two: str, task: str, rows: dict[str, list[RunResult]], noise: float | None
) -> Direction:  # fmt: skip
    values = [mean(scores(title, task, DRAWN, "pq", rows)) for title in (one, two)]
    if values[0] is None or values[1] is None:
        return Direction(words, paper, NONE, None)
    gain = values[1] - values[0]
    ours = " → ".join(figure(value) for value in values)
    # Two runs of one seed each differ by the square root of two times the spread of one.
    return Direction(words, paper, ours, gain > 0, noise is not None and abs(gain) < SQRT_2 * noise)


def _gain(task: str, rows: dict[str, list[RunResult]]) -> float | None:
    values = [mean(scores(title, task, DRAWN, "pq", rows)) for title in (STL, MIXED)]
    return None if values[0] is None or values[1] is None else values[1] - values[0]


def pictures(folder: Path, runs: Path = ROOT / "runs" / STUDY) -> str:
    """The pictures of held-out fields: copied from the runs where those are, else those that the folder has."""
    lines = []
    for run, name in SHOWN:
        source, target = runs / run / "pictures" / f"{name}.jpg", folder / f"{run}-{name}.jpg"
        if source.is_file():
            shutil.copyfile(source, target)
        if target.is_file():
            words = name.replace("-", " ")
            lines.append(f"{words} ({run}): truth, told.\n\n![{words}, {run}]({target.name})")
    return "\n\n".join(lines)


def settings(runs: Sequence[RunResult]) -> str:
    """What the runs have in common."""
    found = next((run.results for run in runs if len(run.results["tasks"]) > 2), None)
    if found is None:
        return ""
    return (
        f"All runs: width {found['width']} (paper: 64), blocks {', '.join(map(str, found['blocks']))} (3, 4, 6, 3), "
        f"target `{found['target']}`, {found['batch']} pictures of {found['side']} px or patches of "
        f"{found['patch_side']} px a step (27; 448, 144), {found['scenes']} drawn scenes of {found['scene_parts']} "
        "parts. Steps are such that every task sees about as many pictures of its own as it does alone. Measured "
        f"in windows of {found['window'][0]} px whose middle {found['window'][1]} px are kept, after the store's JPEG."
    )


def body(runs: Sequence[RunResult], folder: Path) -> str:
    """Words, tables, pictures."""
    rows = by_row(run for run in runs if run.study == STUDY)
    models = [dict(zip(("model", "gland PQ, CV", "gland PQ, external", "lumen PQ, CV", "lumen PQ, external"), each,
                       strict=True)) for each in PAPER_MODELS]  # fmt: skip
    return "\n\n".join(part for part in (
        WORDS, settings([run for run in runs if run.study == STUDY]),
        "## One task, several, patches beside them", compared(rows),
        "Paper: external PQ of its ResNet-34; the last row starts from ImageNet's weights, ours from random ones. "
        "Where a network tells glands, lumina count inside these: who loses glands loses lumina too. STL: one run for "
        "each task. Minutes are of a machine that did other work as well; compare steps.",
        "## Directions",
        "How much a seed changes is known from rows with two seeds, which are those of single tasks; others have one, "
        "so that a single verdict proves little.",
        directions(found_directions(rows)),
        "## All scores", "Means over pictures; matched above IoU ½. Hand-outlined nuclei are scaled by their truth.",
        all_scores(rows),
        "## Nuclei", nuclei(rows),
        "## New heads on the frozen encoder",
        "Everything else is bit-identical to the run below (a test compares every tensor). Objects of types are those "
        "of the frozen nuclei head; points are matched one to one within 6 px at ×20.",
        heads(rows),
        "## Real tissue, a teacher's labels",
        "Held-out slides; glands and lumina as a model for epithelium tells them: **agreement with a model, not "
        "accuracy**.",
        taught(rows),
        "## Patches", "Weak labels; `map` is the mean of the classes' average precisions.", patches(rows),
        "## The paper's methods", "PQ as published; not trained here.", table(models),
        "## Held-out fields", pictures(folder),
    ) if part)  # fmt: skip
