"""Agreement of two label maps: overlaps, detection, panoptic quality by type, types of objects matched by their places.

Label maps are H×W of whole numbers, 0 outside, another number for each object. Types of objects are numbers from 1;
`types[n]` is the type of object n, `types[0]` is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from wsi_ml.errors import BadRequestError
from wsi_ml.metrics.segmentation import Detection, Pairs, dice, match

CENTRE_REACH = 6.0
"""Pixels at ×20 within which two objects' centres may belong together (12 at ×40; Graham et al. 2019)."""
NOTHING = Detection(0, 0, 0, 0.0)


class LabelPairs(NamedTuple):
    """Overlapping objects of two label maps; object n of a map is number n − 1 here."""

    pairs: Pairs
    truth_areas: np.ndarray
    """float64, pixels of each truth object; 0 for a number that is not used."""
    told_areas: np.ndarray


def label_pairs(truth: np.ndarray, told: np.ndarray) -> LabelPairs:
    """Which objects overlap and how far; raises BadRequestError where the maps differ in size."""
    if truth.shape != told.shape:
        raise BadRequestError(f"Label maps of {truth.shape} and {told.shape} pixels cannot be compared.")
    truth_areas, told_areas = (np.bincount(labels.ravel())[1:].astype(float) for labels in (truth, told))
    both = (truth > 0) & (told > 0)
    wide = len(told_areas) + 1
    codes, shared = np.unique(truth[both].astype(np.int64) * wide + told[both], return_counts=True)
    one, two = codes // wide - 1, codes % wide - 1
    union = truth_areas[one] + told_areas[two] - shared
    return LabelPairs(Pairs.sorted(one, two, shared.astype(float), union), truth_areas, told_areas)


def detection(truth: np.ndarray, told: np.ndarray) -> Detection:
    """Matches at IoU above one half, misses and false objects of two label maps."""
    found = label_pairs(truth, told)
    matched = match(found.pairs)
    truth_count, told_count = int((found.truth_areas > 0).sum()), int((found.told_areas > 0).sum())
    iou_sum = float(found.pairs.iou[matched].sum())
    return Detection(len(matched), told_count - len(matched), truth_count - len(matched), iou_sum)


def overlap_dice(truth: np.ndarray, told: np.ndarray) -> float | None:
    """Dice of all objects' pixels together; None where there are none."""
    shared = float(((truth > 0) & (told > 0)).sum())
    return dice(shared, float((truth > 0).sum()), float((told > 0).sum()))


def typed_detections(
    truth: np.ndarray, truth_types: np.ndarray, told: np.ndarray, told_types: np.ndarray, count: int
) -> list[Detection]:
    """Detection among the objects of each type 1 … `count`; an object of another type is not seen."""
    return [
        detection(np.where(truth_types[truth] == kind, truth, 0), np.where(told_types[told] == kind, told, 0))
        for kind in range(1, count + 1)
    ]


def mean_panoptic(pictures: Sequence[Sequence[Detection]]) -> float | None:
    """mPQ: each type's mean PQ over the pictures in which it occurs, then the mean of the types; None without any."""
    by_type = zip(*pictures, strict=True)
    return _mean(_mean(found.pq for found in own) for own in by_type)


def pooled_panoptic(pictures: Sequence[Sequence[Detection]]) -> float | None:
    """mPQ+ (CoNIC): each type's PQ of the counts summed over all pictures, then the mean of the types."""
    return _mean(sum(own, NOTHING).pq for own in zip(*pictures, strict=True))


def mean_scores(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Mean of each score over the pictures that have it, to four digits; a score that none has is left out."""
    means = {name: _mean(row[name] for row in rows) for name in (rows[0] if rows else ())}
    return {name: round(mean, 4) for name, mean in means.items() if mean is not None}


def centres(labels: np.ndarray) -> np.ndarray:
    """(row, column) of the centre of each object, n × 2, in the order of the numbers that are used."""
    rows, columns = np.nonzero(labels)
    numbers = labels[rows, columns]
    areas = np.bincount(numbers)
    sums = np.stack([np.bincount(numbers, rows), np.bincount(numbers, columns)], -1)
    used = areas > 0
    return sums[used] / areas[used][:, None]


class TypeScores(NamedTuple):
    """Objects matched by their centres, over any number of pictures."""

    detection: float | None
    """F1 of the centres alone."""
    types: tuple[float | None, ...]
    """F of each type (Graham et al. 2019, section IV.B): 2(TP+TN) / (2(TP+TN) + 2FP + 2FN + FPd + FNd).

    TP … FN are told among matched objects, FPd and FNd count unmatched objects of the type.
    """


def type_scores(
    pictures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], count: int, reach: float = CENTRE_REACH
) -> TypeScores:
    """Scores of pictures as (truth centres n×2, truth types n, told centres m×2, told types m).

    Centres are assigned one to one with the least sum of distances; pairs further apart than `reach` do not count.
    """
    matched, false, missed = [np.zeros((0, 2), int)], [np.zeros(0, int)], [np.zeros(0, int)]
    for truth_at, truth_types, told_at, told_types in pictures:
        pairs = matched_centres(truth_at, told_at, reach)
        matched.append(np.stack([truth_types[pairs[:, 0]], told_types[pairs[:, 1]]], -1))
        missed.append(np.delete(truth_types, pairs[:, 0]))
        false.append(np.delete(told_types, pairs[:, 1]))
    true, told = np.concatenate(matched).T
    one, two = np.concatenate(false), np.concatenate(missed)
    found = []
    for kind in range(1, count + 1):
        right = 2 * int(((true == kind) == (told == kind)).sum())
        wrong = 2 * int(((true == kind) != (told == kind)).sum()) + int((one == kind).sum() + (two == kind).sum())
        occurs = any((values == kind).any() for values in (true, told, one, two))
        found.append(right / (right + wrong) if occurs else None)
    whole = 2 * len(true) + len(one) + len(two)
    return TypeScores(2 * len(true) / whole if whole else None, tuple(found))


def matched_centres(truth_at: np.ndarray, told_at: np.ndarray, reach: float = CENTRE_REACH) -> np.ndarray:
    """Pairs (truth, told) of centres n×2 and m×2: one to one, least sum of distances, none further than `reach`."""
    away = np.linalg.norm(truth_at[:, None] - told_at[None], axis=-1)
    pairs = assignment(away)
    return pairs[away[pairs[:, 0], pairs[:, 1]] <= reach]


def centre_scores(
    pictures: Iterable[tuple[np.ndarray, np.ndarray]], reach: float = CENTRE_REACH
) -> dict[str, float | None]:
    """Precision, recall and F1 of pictures as (truth centres n×2, told centres m×2), counted over all of them."""
    whole = NOTHING
    for truth_at, told_at in pictures:
        matched = len(matched_centres(truth_at, told_at, reach))
        whole += Detection(matched, len(told_at) - matched, len(truth_at) - matched, 0.0)
    return {"precision": whole.precision, "recall": whole.recall, "f1": whole.dq}


def assignment(cost: np.ndarray) -> np.ndarray:
    """Pairs (row, column) of the assignment of least sum, k × 2 with k the shorter side, sorted by row.

    The Hungarian method with potentials, one shortest path a row (Jonker & Volgenant 1987).
    """
    if cost.shape[0] > cost.shape[1]:
        turned = assignment(cost.T)[:, ::-1]
        return turned[np.argsort(turned[:, 0])]
    rows, columns = cost.shape
    of_rows, of_columns = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)
    for row in range(rows):
        owner[columns] = row
        best, before = np.full(columns, np.inf), np.full(columns, columns)
        done, here = np.zeros(columns + 1, bool), columns
        while owner[here] >= 0:
            done[here] = True
            at, free = owner[here], ~done[:columns]
            reduced = cost[at] - of_rows[at] - of_columns[:columns]
            nearer = free & (reduced < best)
            best[nearer], before[nearer] = reduced[nearer], here
            following = int(np.where(free, best, np.inf).argmin())
            step = best[following]
            of_rows[owner[done]] += step
            of_columns[done] -= step
            best[free] -= step
            here = following
        while here != columns:
            owner[here] = owner[before[here]]
            here = before[here]
    taken = np.flatnonzero(owner[:columns] >= 0)
    pairs = np.stack([owner[taken], taken], -1)
    return pairs[np.argsort(pairs[:, 0])]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
