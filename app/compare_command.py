"""`ocular compare`: the figures of two layers as a table or as JSON, the same numbers that the viewer shows."""

from __future__ import annotations

import argparse
from typing import Any

from app.commands import library_of, say, slide_id_of
from wsi_ml.errors import BadRequestError
from wsi_ml.layers.compare import Selection
from wsi_ml.layers.comparing import Comparisons, figures
from wsi_ml.layers.store import LayerStore

_COUNTS = ("truth", "prediction", "tp", "fp", "fn")
_FIGURES = ("precision", "recall", "f1", "pq", "dice", "iou")


def run_compare(options: argparse.Namespace) -> None:
    """`ocular compare`."""
    for name in ("min_score", "iou"):
        if not 0 <= getattr(options, name) <= 1:
            raise BadRequestError(f"--{name.replace('_', '-')} is a number from 0 to 1.")
    library = library_of(options)
    slide_id = slide_id_of(library, options.id)
    comparisons = Comparisons(LayerStore(library.root))
    truth, prediction, comparison = comparisons.between(slide_id, options.truth, options.prediction, options.classes)
    card = library.card(slide_id, truth.version)
    found = figures(truth, comparison, Selection(options.min_score, options.iou), card.base_mpp)
    facts = {"slide": slide_id, "truth": truth.id, "prediction": prediction.id}
    say(options, facts | found, table(found))


def table(facts: dict[str, Any]) -> str:
    """Figures for people: a line for each class and one for all."""
    what = "agreement with a model" if facts["agreement_with_a_model"] else "against the truth layer"
    classes = "within classes" if facts["mode"] == "match" else "whatever the class"
    lines = [f"{what}; score ≥ {facts['min_score']:.2f}, IoU > {facts['iou']:.2f}, matched {classes}"]
    names = [*facts["classes"], "all"]
    width = max(len("class"), *(len(name) for name in names))
    lines.append(f"{'class':<{width}}" + "".join(f"{name:>11}" for name in (*_COUNTS, *_FIGURES)))
    for name, row in zip(names, (*facts["classes"].values(), facts["overall"]), strict=True):
        counts = "".join(f"{row[each]:>11}" for each in _COUNTS)
        values = "".join(f"{'–' if row[each] is None else format(row[each], '.4f'):>11}" for each in _FIGURES)
        lines.append(f"{name:<{width}}{counts}{values}")
    aji = facts["overall"]["aji"]
    lines.append(f"AJI {'–' if aji is None else format(aji, '.4f')}")
    return "\n".join(lines)
