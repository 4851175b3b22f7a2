"""Figures of merit of a classifier: confusion, recalls, F1, and how far its probabilities can be believed; numpy only.

A confusion matrix has a row for each true class and a column for each told one. A class without patches has no recall
(None) and counts in no mean over recalls; a class neither there nor told has no F1 either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RELIABILITY_BINS = 15
"""Even bins of confidence, as Guo et al. 2017 use them."""
LEAST_PROBABILITY = 1e-12
"""Probabilities are taken to be at least this in the log loss, so that one sure mistake does not make it infinite."""


def confusion_matrix(labels: np.ndarray, told: np.ndarray, classes: int) -> np.ndarray:
    """int64 classes×classes counts of class indices `labels` (true) and `told`; ValueError outside 0…classes − 1."""
    for name, values in (("true", labels), ("told", told)):
        if len(values) and (int(values.min()) < 0 or int(values.max()) >= classes):
            raise ValueError(f"a {name} class is outside 0…{classes - 1}")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, told), 1)
    return counts


def accuracy(counts: np.ndarray) -> float | None:
    """Share of all patches told rightly."""
    return _ratio(int(np.trace(counts)), int(counts.sum()))


def recalls(counts: np.ndarray) -> list[float | None]:
    """Share of each true class's patches that were told rightly."""
    return [_ratio(int(counts[place, place]), int(counts[place].sum())) for place in range(len(counts))]


def balanced_accuracy(counts: np.ndarray) -> float | None:
    """Mean recall over the classes that occur."""
    return _mean(recalls(counts))


def f1_scores(counts: np.ndarray) -> list[float | None]:
    """2·TP / (2·TP + FP + FN) of each class."""
    hits = np.diagonal(counts)
    sums = counts.sum(axis=0) + counts.sum(axis=1)
    return [_ratio(2 * int(hit), int(total)) for hit, total in zip(hits, sums, strict=True)]


def macro_f1(counts: np.ndarray) -> float | None:
    """Mean F1 over the classes that occur in truth or in what was told."""
    return _mean(f1_scores(counts))


@dataclass(frozen=True)
class Bin:
    """Patches whose confidence (the probability of the class told) lies in one bin, the upper end left out."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean confidence of its patches; None in an empty bin."""
    accuracy: float | None
    """Share of its patches told rightly."""


def reliability(shares: np.ndarray, labels: np.ndarray, bins: int = RELIABILITY_BINS) -> list[Bin]:
    """Even bins of confidence of probabilities N×classes; 1 is in the last bin, and ties go to the first class."""
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    made = []
    for number in range(bins):
        inside = place == number
        count = int(inside.sum())
        means = (float(confidence[inside].mean()), float(right[inside].mean())) if count else (None, None)
        made.append(Bin(number / bins, (number + 1) / bins, count, *means))
    return made


def calibration_error(shares: np.ndarray, labels: np.ndarray, bins: int = RELIABILITY_BINS) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): mean gap of confidence and accuracy, by patches of a bin."""
    gaps = [
        abs(each.confidence - each.accuracy) * each.count
        for each in reliability(shares, labels, bins)
        if each.confidence is not None and each.accuracy is not None
    ]
    return float(np.sum(gaps) / len(labels))


def brier(shares: np.ndarray, labels: np.ndarray) -> float:
    """Squared distance of the probabilities to the truth, summed over classes, mean over patches (Brier 1950): 0…2."""
    wanted = np.eye(shares.shape[1])[labels]
    return float(np.mean(np.sum((shares.astype(np.float64) - wanted) ** 2, axis=1)))


def log_loss(shares: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative natural logarithm of the true class's probability; see LEAST_PROBABILITY."""
    right = shares[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(right, LEAST_PROBABILITY)).mean())


def classification_report(shares: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Every figure of this module as plain JSON values, of probabilities N×classes and class indices N, N ≥ 1.

    Raises ValueError when the shapes do not agree or a label is no class.
    """
    if shares.shape != (len(labels), len(classes)) or not len(labels):
        raise ValueError(f"probabilities of shape {shares.shape} do not fit {len(labels)} labels of {len(classes)}")
    counts = confusion_matrix(labels, shares.argmax(axis=1), len(classes))
    return {
        "patches": len(labels),
        "accuracy": accuracy(counts),
        "balanced_accuracy": balanced_accuracy(counts),
        "macro_f1": macro_f1(counts),
        "recall": dict(zip(classes, recalls(counts), strict=True)),
        "f1": dict(zip(classes, f1_scores(counts), strict=True)),
        "calibration_error": calibration_error(shares, labels),
        "brier": brier(shares, labels),
        "log_loss": log_loss(shares, labels),
        "reliability": [vars(each) for each in reliability(shares, labels)],
        "confusion": {"classes": list(classes), "rows": counts.tolist()},
    }


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
