"""Scores of label maps by hand: PQ of toy cases, types pooled and not, the assignment against all permutations."""

from itertools import permutations

import numpy as np
import pytest

from wsi_ml.errors import BadRequestError
from wsi_ml.metrics.label_maps import (
    assignment,
    centres,
    detection,
    label_pairs,
    mean_panoptic,
    mean_scores,
    overlap_dice,
    pooled_panoptic,
    type_scores,
    typed_detections,
)
from wsi_ml.metrics.segmentation import Detection


def bar(*runs, length=20):
    """A label map of one row: (start, end, number)."""
    labels = np.zeros((1, length), np.int32)
    for start, end, number in runs:
        labels[0, start:end] = number
    return labels


def test_panoptic_quality_of_a_toy_case():
    truth, told = bar((0, 4, 1), (6, 10, 2), (12, 16, 5)), bar((0, 3, 1), (6, 8, 2), (17, 19, 9))
    found = detection(truth, told)
    # 3/4 matches; 2/4 is not above one half; the third is false.
    assert (found.tp, found.fp, found.fn) == (1, 2, 2)
    assert found.iou_sum == pytest.approx(0.75)
    assert found.dq == pytest.approx(1 / 3) and found.sq == pytest.approx(0.75) and found.pq == pytest.approx(0.25)
    assert overlap_dice(truth, told) == pytest.approx(2 * 5 / (12 + 7))
    assert overlap_dice(truth * 0, told * 0) is None and detection(truth * 0, told * 0).pq is None


def test_types_are_scored_apart_and_pooled():
    truth, told = bar((0, 4, 1), (6, 10, 2)), bar((0, 4, 1), (6, 10, 2))
    kinds, others = np.array([0, 1, 2]), np.array([0, 1, 1])
    one = typed_detections(truth, kinds, told, kinds, 3)
    two = typed_detections(truth, kinds, told, others, 3)
    assert one == [Detection(1, 0, 0, 1.0), Detection(1, 0, 0, 1.0), Detection(0, 0, 0, 0.0)]
    assert two == [Detection(1, 1, 0, 1.0), Detection(0, 0, 1, 0.0), Detection(0, 0, 0, 0.0)]
    # Type 1: (1 + 2/3) / 2; type 2: (1 + 0) / 2; type 3 occurs nowhere.
    assert mean_panoptic([one, two]) == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert pooled_panoptic([one, two]) == pytest.approx((2 / 2.5 + 1 / 1.5) / 2)
    assert mean_panoptic([[Detection(0, 0, 0, 0.0)]]) is None


def test_means_leave_out_what_is_not_known():
    assert mean_scores([{"pq": 0.5, "sq": None}, {"pq": 1.0, "sq": None}]) == {"pq": 0.75}
    assert mean_scores([]) == {}


def test_centres_of_the_numbers_in_use():
    assert centres(bar((0, 3, 2), (10, 12, 7))).tolist() == [[0, 1], [0, 10.5]]
    assert centres(bar()).shape == (0, 2)


def test_type_scores_by_hand():
    truth_at, truth_types = np.array([[0, 0], [0, 10], [0, 20], [0, 40]], float), np.array([1, 1, 2, 2])
    told_at, told_types = np.array([[0, 1], [0, 12], [0, 20], [0, 60]], float), np.array([1, 2, 2, 1])
    scores = type_scores([(truth_at, truth_types, told_at, told_types)], 3)
    assert scores.detection == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    # Matched: (1,1) (1,2) (2,2). Type 1: TP 1, TN 1, FN 1, one false object of type 1.
    assert scores.types[0] == pytest.approx(4 / (4 + 2 + 1))
    # Type 2: TP 1, TN 1, FP 1, one missed object of type 2.
    assert scores.types[1] == pytest.approx(4 / (4 + 2 + 1))
    assert scores.types[2] is None


def test_a_centre_exactly_at_the_reach_counts_and_none_beyond():
    one, kinds = np.zeros((1, 2)), np.array([1])
    assert type_scores([(one, kinds, np.array([[6.0, 0]]), kinds)], 1).detection == 1.0
    assert type_scores([(one, kinds, np.array([[6.01, 0]]), kinds)], 1).detection == 0.0
    assert type_scores([(np.zeros((0, 2)), kinds[:0], one, kinds)], 1).detection == 0.0


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (1, 6)])
def test_the_assignment_is_the_best_of_all(shape):
    rng = np.random.default_rng(3)
    for _ in range(20):
        cost = rng.random(shape)
        pairs = assignment(cost)
        wide = cost if shape[0] <= shape[1] else cost.T
        least = min(wide[range(len(wide)), order].sum() for order in permutations(range(wide.shape[1]), len(wide)))
        assert cost[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(least)
        assert len(pairs) == min(shape) and all(len(set(side.tolist())) == len(pairs) for side in pairs.T)


def test_maps_of_unlike_size_are_refused():
    with pytest.raises(BadRequestError, match="cannot be compared"):
        label_pairs(bar(), bar(length=5))
