"""Stage of a patient from the lymph nodes (CAMELYON17's rules) and agreement of stages.

Rules: Bándi et al. 2019 (From detection of individual metastases …), after the TNM classification; the score is that of
the challenge: Cohen's kappa with quadratic weights over the five stages in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wsi_ml.errors import BadRequestError

NODES = ("negative", "itc", "micro", "macro")
"""Classes of a node: none, isolated tumour cells, micrometastasis, macrometastasis."""
STAGES = ("pN0", "pN0(i+)", "pN1mi", "pN1", "pN2")
"""Stages in order; higher ones (more than nine nodes) do not occur with five nodes a patient."""
ITC_MM, MICRO_MM = 0.2, 2.0
ITC_CELLS = 200
MOST_NODES = 9
FEW_NODES = 3
PATIENT_SUFFIX = ".zip"
"""Rows of the challenge's table whose name ends so are patients; the others are slides."""


def node_of(largest_mm: float, cells: int | None = None) -> str:
    """Class of a node by the largest extent of its largest metastasis in mm, or by its count of tumour cells.

    Isolated cells: up to 0.2 mm, or fewer than 200 cells; micro: up to 2 mm; macro: beyond. 0 mm is negative.
    """
    if largest_mm < 0 or not np.isfinite(largest_mm):
        raise BadRequestError(f"A metastasis cannot measure {largest_mm} mm.")
    if largest_mm == 0:
        return "negative"
    if largest_mm <= ITC_MM or (cells is not None and cells < ITC_CELLS):
        return "itc"
    return "micro" if largest_mm <= MICRO_MM else "macro"


def stage_of(nodes: Sequence[str]) -> str:
    """Stage of a patient from the classes of the nodes; nodes with isolated cells alone do not count as positive.

    Raises BadRequestError for no node, an unknown class, or more positive nodes than the five stages cover.
    """
    unknown = [node for node in nodes if node not in NODES]
    if not nodes or unknown:
        raise BadRequestError(
            f"A patient needs nodes of the classes {', '.join(NODES)}; given: {', '.join(unknown) or 'none'}."
        )
    positive = sum(node in ("micro", "macro") for node in nodes)
    if not positive:
        return "pN0(i+)" if "itc" in nodes else "pN0"
    if "macro" not in nodes:
        return "pN1mi"
    if positive > MOST_NODES:
        raise BadRequestError(f"{positive} positive nodes are beyond pN2, the last stage that is told here.")
    return "pN1" if positive <= FEW_NODES else "pN2"


def quadratic_kappa(truth: Sequence[str], told: Sequence[str], order: Sequence[str] = STAGES) -> float:
    """Cohen's kappa with quadratic weights over classes in the order given, case ignored; NaN for a single class.

    κ = 1 − Σ w O / Σ w E with w = (i − j)², O the counts and E those expected of independent raters (Cohen 1968).
    Raises BadRequestError for lists of different lengths, empty ones and unknown classes.
    """
    if len(truth) != len(told) or not truth:
        raise BadRequestError(f"Kappa needs as many told as true classes, at least one: {len(told)} and {len(truth)}.")
    numbers = {name.lower(): number for number, name in enumerate(order)}
    unknown = sorted({name for name in (*truth, *told) if name.lower() not in numbers})
    if unknown:
        raise BadRequestError(f"There is no class {unknown[0]!r}; there are {', '.join(order)}.")
    counts = np.zeros((len(order), len(order)))
    for true, said in zip(truth, told, strict=True):
        counts[numbers[true.lower()], numbers[said.lower()]] += 1
    weights = np.subtract.outer(np.arange(len(order)), np.arange(len(order))) ** 2.0
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    most = float((weights * expected).sum())
    return 1.0 - float((weights * counts).sum()) / most if most else float("nan")


def challenge_kappa(truth: Mapping[str, str], told: Mapping[str, str]) -> float:
    """The challenge's score of two tables name → stage: rows of patients alone, case ignored.

    Raises BadRequestError naming a patient that was not told.
    """
    stages = {name.lower(): stage for name, stage in told.items()}
    patients = sorted(name for name in truth if name.lower().endswith(PATIENT_SUFFIX))
    missing = [name for name in patients if name.lower() not in stages]
    if missing:
        raise BadRequestError(f"No stage is told for {missing[0]}.")
    return quadratic_kappa([truth[name] for name in patients], [stages[name.lower()] for name in patients])
