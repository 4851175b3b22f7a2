"""Precision and recall over all thresholds, and the area below their curve; numpy only.

Takahama et al. 2019 report an area without saying how it is taken. Average precision is the sum of steps
Σ (R_n − R_{n−1}) P_n; the trapezoid rule joins the points by straight lines, which is too kind (Davis & Goadrich 2006).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsi_ml.errors import BadRequestError


class Curve(NamedTuple):
    """Points from the highest threshold to the lowest; equal scores fall together into one point."""

    precision: np.ndarray
    recall: np.ndarray
    threshold: np.ndarray
    """A sample is told positive from this score on."""


def precision_recall(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """The curve of N scores and N truths (bool); raises BadRequestError without a positive one or for NaN."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.shape != positive.shape or scores.ndim != 1:
        raise BadRequestError(f"There are {scores.shape} scores for {positive.shape} truths.")
    if not positive.any() or not np.isfinite(scores).all():
        raise BadRequestError("Precision and recall need finite scores and at least one positive sample.")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    hits = np.cumsum(positive[order])[last]
    return Curve(hits / (last + 1), hits / positive.sum(), ranked[last])


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Σ (R_n − R_{n−1}) P_n over the thresholds, 0…1; see `precision_recall` for errors."""
    curve = precision_recall(scores, positive)
    return float((np.diff(curve.recall, prepend=0.0) * curve.precision).sum())


def trapezoid_area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area below the straight lines between the points, from (recall 0, precision 1); see `precision_recall`."""
    curve = precision_recall(scores, positive)
    recall, precision = np.append(0.0, curve.recall), np.append(1.0, curve.precision)
    return float((np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum())


def accuracy_at(scores: np.ndarray, positive: np.ndarray, threshold: float = 0.5) -> float:
    """Share told rightly where scores above `threshold` are told positive; raises BadRequestError without samples."""
    if not len(scores):
        raise BadRequestError("There are no labelled patches to be scored.")
    return float(((np.asarray(scores) > threshold) == np.asarray(positive, bool)).mean())
