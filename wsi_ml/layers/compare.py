"""Truth against prediction: two layers of one slide version, matched and measured at any score threshold.

A `Comparison` holds what does not depend on the threshold (overlapping pairs, own areas), as numbers only; every figure
follows from it in milliseconds. It is kept in LIBRARY/comparisons, since layers never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_ml.layers.columns import NO_SCORE, SCORE_STEPS
from wsi_ml.layers.layer import BaseBox
from wsi_ml.metrics.segmentation import (
    THRESHOLDS,
    Detection,
    Pairs,
    aggregated_jaccard,
    average_precision,
    dice,
    jaccard,
    match,
    matches_by_threshold,
)

MODES = ("match", "any")
"""`match`: objects match within their class; `any`: classes do not matter."""
STEP = SCORE_STEPS // (THRESHOLDS - 1)


@dataclass(frozen=True)
class Side:
    """One layer of a comparison as columns by feature number."""

    classes: np.ndarray
    """uint16, index into `Comparison.classes`."""
    scores: np.ndarray
    """uint16 in 1/10000; 65535 for none, which passes every threshold."""
    areas: np.ndarray
    """float64, base-plane px²."""
    own_areas: np.ndarray
    """float64: what no earlier feature of its layer (and class) covers; see `overlaps`."""
    boxes: np.ndarray
    """float64, N × 4, base-plane pixels."""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def steps(self) -> np.ndarray:
        """The highest threshold that each feature passes, in hundredths; 100 for one without a score."""
        return np.where(self.scores == NO_SCORE, THRESHOLDS - 1, self.scores // STEP).astype(np.int64)

    def passing(self, min_score: float) -> np.ndarray:
        """Mask of the features with at least this score, or none."""
        return self.scores >= round(min_score * SCORE_STEPS)

    def centred_in(self, box: BaseBox | None) -> np.ndarray:
        """Mask of the features whose centre of bounds lies in a box, its left and top edge included.

        So boxes that tile the slide share the features out, each to one.
        """
        if box is None:
            return np.ones(len(self), bool)
        base_x, base_y = (self.boxes[:, 0] + self.boxes[:, 2]) / 2, (self.boxes[:, 1] + self.boxes[:, 3]) / 2
        return (base_x >= box.x0) & (base_x < box.x1) & (base_y >= box.y0) & (base_y < box.y1)


@dataclass(frozen=True)
class Selection:
    """What counts in one question: the threshold, the IoU that a match needs, the view."""

    min_score: float = 0.0
    iou: float = 0.5
    box: BaseBox | None = None


@dataclass(frozen=True)
class Comparison:
    """Truth and prediction, measured; `mode` is one of MODES."""

    mode: str
    classes: tuple[str, ...]
    """Names of both layers' classes, sorted."""
    truth: Side
    prediction: Side
    pairs: Pairs
    """All overlapping pairs, of whatever classes."""
    covered_areas: np.ndarray
    """float64 by prediction number: what the truths (of its class) cover of its own part."""

    def matchable(self) -> np.ndarray:
        """Mask of the pairs that may match: all, or those within a class."""
        if self.mode == "any":
            return np.ones(len(self.pairs), bool)
        return self.truth.classes[self.pairs.truth] == self.prediction.classes[self.pairs.prediction]

    def matches(self, selection: Selection) -> Pairs:
        """The pairs that match at a threshold, wherever on the slide they lie."""
        passing = self.prediction.passing(selection.min_score)
        candidates = self.pairs.where(self.matchable() & passing[self.pairs.prediction])
        return candidates.where(match(candidates, selection.iou))

    def scores(self, selection: Selection, areas: BoxAreas | None = None) -> dict[str, Any]:
        """Figures by class and overall, as plain JSON values; areas in base-plane px².

        In a view, objects count where their centre lies, so views that tile the slide add up to it; areas are cut at
        the view's edge, which needs `areas` of that view.
        """
        matched = self.matches(selection)
        shown_truth = self.truth.centred_in(selection.box)
        passing = self.prediction.passing(selection.min_score)
        shown_prediction = self.prediction.centred_in(selection.box) & passing
        counts = self._detections(matched, shown_truth, shown_prediction)
        measured = areas or BoxAreas(self.truth.own_areas, self.prediction.own_areas, self.covered_areas)
        sums = measured.by_class(self, passing)
        rows = {name: _row(counts[at], *sums[:, at].tolist()) for at, name in enumerate(self.classes)}
        if self.mode == "any":
            # What a class covers and what it is matched with belong to different classes: there is no such figure.
            for row in rows.values():
                row["dice"] = row["iou"] = None
        overall = _row(sum(counts, Detection(0, 0, 0, 0.0)), *sums.sum(axis=1).tolist())
        overall["aji"] = self._jaccard(selection, shown_truth, shown_prediction)
        return {"classes": rows, "overall": overall}

    def curve(self, iou: float = 0.5) -> dict[str, Any]:
        """Precision and recall at thresholds 0.00, 0.01, … 1.00, by class and overall, with average precision.

        Average precision is that of these points: matching is done at each threshold by IoU, not once by score.
        """
        candidates = self.pairs.where(self.matchable())
        steps = self.prediction.steps
        rows = {"overall": self._curve(candidates, np.ones(len(self.truth), bool), steps, iou)}
        if self.mode == "match":
            for at, name in enumerate(self.classes):
                of_class = candidates.where(self.truth.classes[candidates.truth] == at)
                mine = np.where(self.prediction.classes == at, steps, -1)
                rows[f"class {name}"] = self._curve(of_class, self.truth.classes == at, mine, iou)
        overall = rows.pop("overall")
        return {
            "thresholds": [step / (THRESHOLDS - 1) for step in range(THRESHOLDS)],
            "classes": {name.removeprefix("class "): row for name, row in rows.items()},
            "overall": overall,
        }

    def errors(self, selection: Selection, order: str = "size") -> list[tuple[str, int]]:
        """("fp" or "fn", feature number) of every unmatched object of the view.

        `order`: `size`, the largest first; `score`, the surest false positives first, then the missed, largest first.
        """
        matched = self.matches(selection)
        missed = self.truth.centred_in(selection.box)
        missed[matched.truth] = False
        false = self.prediction.centred_in(selection.box) & self.prediction.passing(selection.min_score)
        false[matched.prediction] = False
        found = [("fp", number) for number in np.flatnonzero(false).tolist()]
        found += [("fn", number) for number in np.flatnonzero(missed).tolist()]

        def key(each: tuple[str, int]) -> tuple[float, float]:
            kind, number = each
            area = float((self.prediction if kind == "fp" else self.truth).areas[number])
            if order == "size":
                return 0.0, -area
            return (-float(self.prediction.scores[number]) if kind == "fp" else 1.0), -area

        return sorted(found, key=key)

    def _detections(self, matched: Pairs, shown_truth: np.ndarray, shown_prediction: np.ndarray) -> list[Detection]:
        """Counts of each class; a match belongs to its truth's class and place."""
        size = len(self.classes)
        here = shown_truth[matched.truth]
        tp = np.bincount(self.truth.classes[matched.truth[here]], minlength=size)
        iou_sum = np.bincount(
            self.truth.classes[matched.truth[here]], weights=matched.iou[here].astype(np.float64), minlength=size
        )
        unmatched_truth, unmatched_prediction = shown_truth.copy(), shown_prediction.copy()
        unmatched_truth[matched.truth] = False
        unmatched_prediction[matched.prediction] = False
        fn = np.bincount(self.truth.classes[unmatched_truth], minlength=size)
        fp = np.bincount(self.prediction.classes[unmatched_prediction], minlength=size)
        return [Detection(int(tp[at]), int(fp[at]), int(fn[at]), float(iou_sum[at])) for at in range(size)]

    def _jaccard(self, selection: Selection, shown_truth: np.ndarray, shown_prediction: np.ndarray) -> float | None:
        """AJI of the objects of the view; classes count as in matching."""
        kept = self.matchable() & shown_truth[self.pairs.truth] & shown_prediction[self.pairs.prediction]
        pairs = self.pairs.where(kept)
        renumber_truth, renumber_prediction = np.cumsum(shown_truth) - 1, np.cumsum(shown_prediction) - 1
        here = Pairs(renumber_truth[pairs.truth], renumber_prediction[pairs.prediction], pairs.intersection, pairs.iou)
        return aggregated_jaccard(here, self.truth.areas[shown_truth], self.prediction.areas[shown_prediction])

    def _curve(self, candidates: Pairs, truths: np.ndarray, steps: np.ndarray, iou: float) -> dict[str, Any]:
        """Points of one class; `steps` is −1 for predictions that do not belong to it."""
        matched = matches_by_threshold(candidates, steps[candidates.prediction], iou)
        predicted = np.bincount(steps[steps >= 0], minlength=THRESHOLDS)[::-1].cumsum()[::-1]
        truth_count = int(truths.sum())
        precision = [m / p if p else None for m, p in zip(matched.tolist(), predicted.tolist(), strict=True)]
        recall = [m / truth_count if truth_count else None for m in matched.tolist()]
        return {
            "precision": precision,
            "recall": recall,
            "average_precision": average_precision(precision, recall),
        }


@dataclass(frozen=True)
class BoxAreas:
    """Own areas of truths and predictions and what is covered of the latter, as far as they lie in a view."""

    truth: np.ndarray
    prediction: np.ndarray
    covered: np.ndarray

    def by_class(self, comparison: Comparison, passing: np.ndarray) -> np.ndarray:
        """3 × classes: shared, truth's and prediction's area; classes count as in matching."""
        size = len(comparison.classes)
        kept = comparison.prediction.classes[passing]
        return np.stack(
            [
                np.bincount(kept, self.covered[passing], size),
                np.bincount(comparison.truth.classes, self.truth, size),
                np.bincount(kept, self.prediction[passing], size),
            ]
        )


def _row(counts: Detection, shared: float, truth_area: float, prediction_area: float) -> dict[str, Any]:
    return {
        "truth": counts.tp + counts.fn,
        "prediction": counts.tp + counts.fp,
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.dq,
        "dq": counts.dq,
        "sq": counts.sq,
        "pq": counts.pq,
        "dice": dice(shared, truth_area, prediction_area),
        "iou": jaccard(shared, truth_area, prediction_area),
        "truth_area": truth_area,
        "prediction_area": prediction_area,
    }
