"""Tables 1 to 7 and the groups of figure 6 of paper B (Zeng, Tang et al. 2023) beside ours.

Called by `benchmarks.segmentation_tables`; the runs are those of train/configs/studies/semi_*.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.charts import Line, Panel, draw_chart
from benchmarks.common import table
from benchmarks.segmentation_tables import NONE, RunResult, by_row, figure, mean, over_seeds, spent
from benchmarks.semi_directions import found_directions
from benchmarks.semi_paper import (
    ALPHAS,
    BETAS,
    FIGURE_6,
    LOSSES,
    METHODS,
    SHARES,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLES_4_5,
    TABLES_6_7,
)

TITLE = "Segmentation from few pixel labels"
RUNS = "semi_*"
KEPT = (
    "part", "source", "tasks", "method", "architecture", "pixel_share", "picture_share", "alpha", "beta", "losses",
    "pictures", "learnt_from", "dsc", "iou", "accuracy", "balanced_accuracy", "confusion", "picture_confusion",
)  # fmt: skip
WORDS = (
    "The paper's figures are of CAMELYON slides with outlined metastases, at a full-size network; ours are of other "
    "tissue and far smaller. So compare ours with ours; beside the paper's stand directions only. DSC and IOU are "
    "pooled over all pixels of the held-out pictures."
)
LABELS = {
    "nuclei": "Ours: real tissue, **nuclei outlined by hand** (DSB 2018, CC0), clusters of look-alike pictures held "
    "out whole. A picture's class is whether nuclei cover more than {present} % of it: it follows from hand labels "
    "too, but no pathologist gave it.",
    "folder": "Ours: real tissue, **labels of a teacher**: the pixels' classes were told by a published model. Figures "
    "are agreement with a model, not accuracy.",
    "drawn": "Ours: **drawn** mucosa, exact to the pixel; not real tissue.",
}
"""What our labels are, by source."""
TRIED = (
    "**Not on the teacher's labels.** This study was first tried on real slides with the labels of the epithelium "
    "teacher (`train.teach`; duodenum and pancreas to train on, another slide for the test). With all pixel labels and "
    "300 steps the network reached a DSC of .27 on its own training pictures, .00 on the validation slide and .69 on "
    "the test slide, where calling all of it epithelium gives .60: what the teacher calls epithelium differs more from "
    "slide to slide than between shares of labels. So the study is of nuclei, whose labels are made by hand."
)
SMALL = (
    "Ours are small on purpose, to fit two processor cores: `esp-psp` of widths {widths}, {steps} steps of "
    "{batch} pictures of {side} px at ×{magnification}, the same for every run. "
    "None of it was chosen by these test pictures."
)


def shrink(results: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run's results.json: its one row, without pictures and texts."""
    (row,) = results["runs"]
    return {name: row.get(name) for name in KEPT}


def values(runs: Sequence[RunResult], name: str) -> list[float | None]:
    """A measure of each seed."""
    return [run.results.get(name) for run in runs]


def pair(figures: tuple[float, float] | None, places: int = 3) -> str:
    """DSC / IOU as published."""
    return NONE if figures is None else " / ".join(figure(each, places) for each in figures)


def ours(runs: Sequence[RunResult], places: int = 3) -> dict[str, object]:
    """Our cells of a row."""
    return {
        "ours: DSC": over_seeds(values(runs, "dsc"), places) if runs else NONE,
        "IOU": over_seeds(values(runs, "iou"), places) if runs else NONE,
        "picture classes": over_seeds(values(runs, "accuracy"), 3) if runs else NONE,
        **spent(runs),
    }


class Rows:
    """Runs of all studies by the rows that they fill."""

    def __init__(self, runs: Sequence[RunResult]):
        self.all = by_row(runs)

    def __call__(self, name: str) -> list[RunResult]:
        """Its runs, none where there are none."""
        return self.all.get(name, [])

    def dsc(self, name: str) -> float | None:
        """Mean DSC over the seeds of a row."""
        return mean(values(self(name), "dsc"))


def floor(runs: Sequence[RunResult]) -> list[dict[str, object]]:
    """What an answer that looks at nothing reaches on the same test pictures: the floor of all tables."""
    counts = next((run.results["confusion"]["rows"] for run in runs if run.results.get("confusion")), None)
    pictures = next((run.results["picture_confusion"] for run in runs if run.results.get("picture_confusion")), None)
    if counts is None:
        return []
    totals = [sum(row) for row in counts]
    share = totals[1] / sum(totals)
    name = next(run.results["confusion"]["classes"][1].lower() for run in runs if run.results.get("confusion"))
    told = [sum(row) for row in pictures] if pictures else []
    part = [figure(count / sum(told)) if told else NONE for count in told] or [NONE, NONE]
    return [
        {"answer": f"all {name}", "DSC": figure(2 * share / (1 + share)), "IOU": figure(share),
         "picture classes": part[1]},
        {"answer": f"no {name}", "DSC": figure(0.0), "IOU": figure(0.0), "picture classes": part[0]},
    ]  # fmt: skip


def labels_table(rows: Rows) -> str:
    """Tables 4 and 5: S against S+C."""
    lines = []
    for share in SHARES:
        for kind, name in (("S", f"s-{share}"), ("S+C", f"sc-{share}")):
            runs = rows(name)
            learnt = (runs[0].results.get("learnt_from") or {}) if runs else {}
            lines.append({
                "pixel labels": f"{share} %", "tasks": kind, "paper: DSC / IOU": pair(TABLES_4_5[share][kind == "S+C"]),
                **ours(runs), "pixel-labelled / with a class":
                    f"{learnt.get('segmentation', NONE)} / {learnt.get('classification', NONE)}",
            })  # fmt: skip
    return table(lines)


def methods_table(rows: Rows) -> str:
    """Tables 6 and 7: ours against the methods compared."""
    lines = []
    for title, prefix, paper in METHODS:
        for share in (share for share in SHARES if prefix == "sc" or rows(f"{prefix}-{share}")):
            published = TABLES_6_7[paper].get(share) if paper else None
            lines.append({"method": title, "pixel labels": f"{share} %", "paper: DSC / IOU": pair(published),
                          **ours(rows(f"{prefix}-{share}"))})  # fmt: skip
    return table(lines)


def settings_table(
    rows: Rows, head: str, names: Sequence[tuple[str, str]], paper: Sequence[tuple[float, float]]
) -> str:
    """Tables 1 to 3: one key's values."""
    return table([
        {head: title, "paper: DSC / IOU": pair(published, 4), **ours(rows(name), 4)}
        for (title, name), published in zip(names, paper, strict=True)
    ])  # fmt: skip


def groups_table(rows: Rows) -> str:
    """The groups of figure 6, of which the paper prints no figures."""
    return table([
        {"group": group, "pixel labels": f"{pixels} %", "classes of pictures": f"{classes} %", **ours(rows(name))}
        for group, pixels, classes, name in FIGURE_6
    ])  # fmt: skip


def draw(rows: Rows, folder: Path) -> None:
    """labels.png and settings.png."""
    shares = [str(share) for share in SHARES]
    lines = [Line("S, ours", [rows.dsc(f"s-{share}") for share in SHARES], colour=0),
             Line("S+C, ours", [rows.dsc(f"sc-{share}") for share in SHARES], colour=1),
             Line("S, paper (other data)", [TABLES_4_5[share][0][0] for share in SHARES], True, 0),
             Line("S+C, paper (other data)", [TABLES_4_5[share][1][0] for share in SHARES], True, 1)]  # fmt: skip
    compared = [
        Line(title.replace("`", ""), [rows.dsc(f"{prefix}-{share}") for share in SHARES], colour=colour)
        for colour, (title, prefix, _) in zip((1, 2, 3, 6, 5), METHODS, strict=True)
    ]
    draw_chart(folder / "labels.png", [
        Panel("DSC: segmentation alone and with classes", shares, "pixel labels, %", lines),
        Panel("DSC: methods compared, ours", shares, "pixel labels, %", compared),
    ])  # fmt: skip
    panels = []
    for title, names, paper in (("beta", BETAS, TABLE_1), ("alpha", ALPHAS, TABLE_2)):
        settings = [Line("ours", [rows.dsc(name) for _, name in names], colour=1),
                    Line("paper (other data)", [dsc for dsc, _ in paper], True, 6)]  # fmt: skip
        panels.append(Panel(f"DSC by {title}", [words for words, _ in names], title, settings))
    draw_chart(folder / "settings.png", panels)


def labels(runs: Sequence[RunResult]) -> str:
    """What our labels are, in words, for every source there is among the runs."""
    sources = sorted({run.results.get("source") for run in runs} & LABELS.keys())
    present = next((run.facts["keys"].get("present", "0") for run in runs), "0")
    return "\n\n".join(LABELS[source].format(present=f"{100 * float(present):g}") for source in sources)


def small(runs: Sequence[RunResult]) -> str:
    """The setting of all runs, as the first one has it."""
    keys = next((run.facts["keys"] for run in runs), {})
    scale = 20 / (1 << int(keys.get("halvings", 0)))
    return SMALL.format(
        widths=keys.get("widths", NONE).replace(",", "-"), steps=keys.get("steps", NONE), batch=keys.get("batch", 8),
        side=keys.get("side", NONE), magnification=f"{scale:g}",
    )  # fmt: skip


def body(runs: list[RunResult], folder: Path) -> str:
    """The report below its title."""
    rows = Rows(runs)
    if not runs:
        return f"{WORDS}\n\n{TRIED}"
    draw(rows, folder)
    bottom = floor(runs)
    parts = [
        labels(runs), WORDS, small(runs), TRIED,
        "Runs of several seeds are joined as mean ± standard deviation; the seed changes weights and order, never the "
        "labels in use. “Picture classes” is the accuracy of whole pictures' classes.",
        "## What reproduced", found_directions(rows, runs),
        "## The floor", "What answers that look at nothing reach on the same pictures.",
        table(bottom) if bottom else "Not known: no run was measured.",
        "## Tables 4 and 5: segmentation alone and with classes of pictures", labels_table(rows),
        "![DSC against the share of pixel labels](labels.png)",
        "## Tables 6 and 7: the methods compared",
        "Simple versions of what the paper names without describing (docs/training.md); none has ImageNet's weights.",
        methods_table(rows),
        "## Table 1: β",
        "At 10 % of the pixel labels; the paper does not say at which share it measured tables 1 to 3.",
        settings_table(rows, "β", BETAS, TABLE_1),
        "## Table 2: α", settings_table(rows, "α", ALPHAS, TABLE_2),
        "## Table 3: losses", "First the classification's, then the segmentation's; DWF is by certainty, FW by class.",
        settings_table(rows, "losses", LOSSES, TABLE_3),
        "![DSC by β and α](settings.png)",
        "## Figure 6: what pixel labels and classes are worth",
        "The paper draws these groups and prints no figures.", groups_table(rows),
    ]  # fmt: skip
    return "\n\n".join(parts)
