"""Agreement of outlined objects, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ml.metrics.segmentation import (
    Detection,
    Pairs,
    aggregated_jaccard,
    average_precision,
    dice,
    jaccard,
    match,
    matches_by_threshold,
)


def pairs_of(*rows: tuple[int, int, float, float]) -> Pairs:
    """(truth, prediction, intersection, union) a row."""
    columns = [np.array(column) for column in zip(*rows, strict=True)] if rows else [np.zeros(0)] * 4
    return Pairs.sorted(columns[0].astype(int), columns[1].astype(int), *(each.astype(float) for each in columns[2:]))


def test_pairs_are_sorted_by_iou_then_numbers():
    pairs = pairs_of((3, 1, 5, 10), (2, 9, 5, 10), (2, 4, 5, 10), (7, 7, 9, 10))
    assert pairs.truth.tolist() == [7, 2, 2, 3]
    assert pairs.prediction.tolist() == [7, 4, 9, 1]


def test_iou_of_exactly_one_half_is_no_match():
    assert match(pairs_of((0, 0, 5, 10))).tolist() == []
    assert match(pairs_of((0, 0, 5.1, 10))).tolist() == [0]


def test_contested_objects_go_to_the_best_iou():
    pairs = pairs_of((0, 0, 6, 10), (0, 1, 8, 10), (1, 1, 9, 10), (2, 5, 7, 10))
    assert [(pairs.truth[at], pairs.prediction[at]) for at in match(pairs)] == [(1, 1), (2, 5), (0, 0)]


def test_panoptic_quality_of_a_toy_case():
    found = Detection(tp=2, fp=1, fn=3, iou_sum=1.4)
    assert (found.precision, found.recall) == (2 / 3, 2 / 5)
    assert found.dq == pytest.approx(2 / (2 + 0.5 + 1.5))
    assert found.sq == pytest.approx(0.7)
    assert found.pq == pytest.approx(0.7 * 0.5)


def test_no_object_at_all_gives_no_numbers():
    nothing = Detection(0, 0, 0, 0.0)
    assert [nothing.precision, nothing.recall, nothing.dq, nothing.sq, nothing.pq] == [None] * 5
    assert aggregated_jaccard(pairs_of(), np.zeros(0), np.zeros(0)) is None
    assert dice(0, 0, 0) is None
    assert jaccard(0, 0, 0) is None


def test_nothing_found_is_zero_not_nothing():
    missed = Detection(0, 0, 4, 0.0)
    assert (missed.precision, missed.recall, missed.dq, missed.pq) == (None, 0, 0, 0)


def test_aji_counts_unmatched_on_both_sides():
    # Truths of 10, 10, 4; predictions of 8 (in truth 0), 12 (6 in truth 1), 5 (nowhere).
    pairs = pairs_of((0, 0, 8, 10), (1, 1, 6, 16))
    areas = np.array([10.0, 10.0, 4.0]), np.array([8.0, 12.0, 5.0])
    assert aggregated_jaccard(pairs, *areas) == pytest.approx((8 + 6) / (10 + 16 + 4 + 5))


def test_aji_of_the_identity_is_one():
    area = np.array([3.0, 4.0])
    assert aggregated_jaccard(pairs_of((0, 0, 3, 3), (1, 1, 4, 4)), area, area) == 1


def test_overlap_of_areas():
    assert dice(6, 10, 8) == pytest.approx(12 / 18)
    assert jaccard(6, 10, 8) == pytest.approx(0.5)


def test_average_precision_of_three_points():
    # Thresholds rising: everything, two thirds, the best one.
    assert average_precision([0.5, 1.0, 1.0], [1.0, 0.8, 0.4]) == pytest.approx(0.4 + 0.4 + 0.2 * 0.5)
    assert average_precision([None], [None]) is None
    assert average_precision([None, None], [0.0, 0.0]) == 0


small = st.integers(0, 6)


@given(st.lists(st.tuples(small, small, st.integers(1, 20), st.integers(0, 100)), max_size=25))
def test_matching_equals_the_plain_walk_at_every_threshold(rows):
    unique = {(truth, prediction): (shared, step) for truth, prediction, shared, step in rows}
    step_of = {prediction: step for (_, prediction), (_, step) in unique.items()}
    pairs = pairs_of(*((t, p, shared, 20) for (t, p), (shared, _) in unique.items()))
    steps = np.array([step_of[p] for p in pairs.prediction.tolist()], int)
    counts = matches_by_threshold(pairs, steps, iou=0.25)
    for threshold in range(0, 101, 10):
        kept = pairs.where(steps >= threshold)
        truths, predictions, expected = set(), set(), []
        for place in range(len(kept)):
            truth, prediction = int(kept.truth[place]), int(kept.prediction[place])
            if kept.iou[place] > 0.25 and truth not in truths and prediction not in predictions:
                truths.add(truth)
                predictions.add(prediction)
                expected.append(place)
        assert match(kept, iou=0.25).tolist() == expected
        assert counts[threshold] == len(expected)
