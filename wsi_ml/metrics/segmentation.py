"""Agreement of two sets of outlined objects: matching, detection scores, panoptic quality, AJI, overlap of areas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLDS = 101
"""Score thresholds of a curve: 0.00, 0.01, … 1.00."""


@dataclass(frozen=True)
class Pairs:
    """Overlapping pairs of a truth and a prediction, sorted by IoU falling, then truth, then prediction number."""

    truth: np.ndarray
    """int64, number of the truth object."""
    prediction: np.ndarray
    """int64, number of the predicted object."""
    intersection: np.ndarray
    """float64, shared area, > 0."""
    iou: np.ndarray
    """float32 as it is handed to every reader, so that all of them decide alike."""

    @classmethod
    def sorted(cls, truth: np.ndarray, prediction: np.ndarray, intersection: np.ndarray, union: np.ndarray) -> Pairs:
        """Pairs in their order; `union` is the area that either of the two covers."""
        iou = (intersection / union).astype(np.float32)
        order = np.lexsort((prediction, truth, -iou))
        return cls(truth[order], prediction[order], intersection[order], iou[order])

    def __len__(self) -> int:
        return len(self.iou)

    def where(self, kept: np.ndarray) -> Pairs:
        """Those pairs that a mask keeps, in the same order."""
        return Pairs(self.truth[kept], self.prediction[kept], self.intersection[kept], self.iou[kept])


@dataclass(frozen=True)
class Detection:
    """Counts of a matching and what follows from them; a value without a denominator is None.

    PQ = SQ · DQ with DQ = TP / (TP + FP/2 + FN/2) and SQ the mean IoU of matches (Kirillov et al. 2019, eq. 1).
    """

    tp: int
    fp: int
    fn: int
    iou_sum: float

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def dq(self) -> float | None:
        """Detection quality, which is F1."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def sq(self) -> float | None:
        """Mean IoU of the matches."""
        return _ratio(self.iou_sum, self.tp)

    @property
    def pq(self) -> float | None:
        """Panoptic quality."""
        return _ratio(2 * self.iou_sum, 2 * self.tp + self.fp + self.fn)

    def __add__(self, other: Detection) -> Detection:
        return Detection(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou_sum + other.iou_sum)


def match(pairs: Pairs, iou: float = 0.5) -> np.ndarray:
    """Places (ascending) of the matched pairs: taken in order, a pair matches when both its objects are still free.

    Only pairs whose IoU is greater than `iou` count. Above 0.5 the result depends on no order where the objects of one
    set do not overlap each other (Kirillov et al. 2019, section 4.1); where they do, the best IoU goes first.
    """
    candidates = np.flatnonzero(pairs.iou.astype(np.float64) > iou)
    free, contested = _split_contested(pairs, candidates)
    won = _first_come(pairs, contested)
    return np.sort(np.concatenate([free, won]))


def aggregated_jaccard(pairs: Pairs, truth_area: np.ndarray, prediction_area: np.ndarray) -> float | None:
    """AJI of Kumar et al. 2017 (algorithm 1); None when there is neither truth nor prediction.

    Every truth takes the prediction of its best IoU, which several may share; intersections over unions are summed, and
    predictions that none took are added to the unions. The areas are those of all objects, by the numbers in `pairs`.
    """
    if len(truth_area) + len(prediction_area) == 0:
        return None
    # Pairs come with the best IoU first: the first of each truth is its choice.
    _, first = np.unique(pairs.truth, return_index=True)
    chosen = pairs.prediction[first]
    shared = float(pairs.intersection[first].sum())
    union = float(truth_area.sum()) + float(prediction_area[chosen].sum()) - shared
    unused = np.ones(len(prediction_area), bool)
    unused[chosen] = False
    return _ratio(shared, union + float(prediction_area[unused].sum()))


def dice(shared: float, truth_area: float, prediction_area: float) -> float | None:
    """2·|T ∩ P| / (|T| + |P|) of two areas."""
    return _ratio(2 * shared, truth_area + prediction_area)


def jaccard(shared: float, truth_area: float, prediction_area: float) -> float | None:
    """|T ∩ P| / |T ∪ P| of two areas (IoU)."""
    return _ratio(shared, truth_area + prediction_area - shared)


def matches_by_threshold(pairs: Pairs, score_steps: np.ndarray, iou: float = 0.5) -> np.ndarray:
    """Matched pairs at each of the THRESHOLDS, as a count.

    `score_steps` is, for each pair, the highest threshold (0 to 100, in hundredths) that its prediction passes.
    """
    candidates = np.flatnonzero(pairs.iou.astype(np.float64) > iou)
    free, contested = _split_contested(pairs, candidates)
    matched = np.bincount(score_steps[free], minlength=THRESHOLDS)[::-1].cumsum()[::-1]
    if len(contested):
        matched = matched + [
            len(_first_come(pairs, contested[score_steps[contested] >= step])) for step in range(THRESHOLDS)
        ]
    return matched


def average_precision(precision: list[float | None], recall: list[float | None]) -> float | None:
    """Area under precision over recall, in steps from the highest threshold down; None without truth.

    The points are those of rising thresholds. Σ (Rₙ − Rₙ₋₁)·Pₙ, no interpolation.
    """
    if not recall or recall[0] is None:
        return None
    area = before = 0.0
    for p, r in zip(reversed(precision), reversed(recall), strict=True):
        if p is not None and r is not None and r > before:
            area += (r - before) * p
            before = r
    return area


def _split_contested(pairs: Pairs, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates of which neither object is in another candidate, and the rest."""
    contested = _repeated(pairs.truth[candidates]) | _repeated(pairs.prediction[candidates])
    return candidates[~contested], candidates[contested]


def _repeated(numbers: np.ndarray) -> np.ndarray:
    """Mask of the numbers that occur more than once."""
    _, place, count = np.unique(numbers, return_inverse=True, return_counts=True)
    return count[place] > 1


def _first_come(pairs: Pairs, places: np.ndarray) -> np.ndarray:
    """Places of the pairs, walked in order, whose objects were both free."""
    truths: set[int] = set()
    predictions: set[int] = set()
    won = []
    for place, truth, prediction in zip(
        places.tolist(), pairs.truth[places].tolist(), pairs.prediction[places].tolist(), strict=True
    ):
        if truth not in truths and prediction not in predictions:
            truths.add(truth)
            predictions.add(prediction)
            won.append(place)
    return np.array(won, np.int64)


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
