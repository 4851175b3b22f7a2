"""Average precision and trapezoid area worked out by hand."""

import numpy as np
import pytest

from wsi_ml.errors import BadRequestError
from wsi_ml.metrics.precision_recall import accuracy_at, average_precision, precision_recall, trapezoid_area

SCORES = np.array([0.9, 0.8, 0.7, 0.6])
TRUTH = np.array([True, False, True, False])


def test_points_from_the_highest_threshold_down():
    curve = precision_recall(SCORES, TRUTH)
    assert curve.precision == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.recall == pytest.approx([1 / 2, 1 / 2, 1, 1])
    assert curve.threshold.tolist() == SCORES.tolist()


def test_areas_by_hand():
    assert average_precision(SCORES, TRUTH) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    # From (0, 1) to (½, 1), then down to ½ at the same recall, then up to (1, ⅔).
    assert trapezoid_area(SCORES, TRUTH) == pytest.approx(1 / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2)


def test_a_perfect_order_gives_one_and_equal_scores_the_share_of_positives():
    assert average_precision(SCORES, SCORES > 0.75) == trapezoid_area(SCORES, SCORES > 0.75) == 1
    assert average_precision(np.full(4, 0.3), TRUTH) == pytest.approx(0.5)
    assert len(precision_recall(np.full(4, 0.3), TRUTH).recall) == 1


def test_the_order_of_the_samples_does_not_matter():
    rng = np.random.default_rng(3)
    scores, truth = rng.integers(0, 5, 60) / 5, rng.random(60) < 0.3
    turned = rng.permutation(60)
    assert average_precision(scores, truth) == pytest.approx(
        average_precision(scores[turned], truth[turned]), abs=1e-15
    )


def test_accuracy_tells_tumour_above_one_half():
    assert accuracy_at(np.array([0.5, 0.51, 0.2]), np.array([False, True, True])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("scores", "truth", "word"),
    [([0.5], [False], "positive"), ([np.nan], [True], "finite"), ([0.5, 0.1], [True], "scores for")],
)
def test_what_cannot_be_scored_is_refused(scores, truth, word):
    with pytest.raises(BadRequestError, match=word):
        average_precision(np.array(scores), np.array(truth))
    with pytest.raises(BadRequestError, match="no labelled"):
        accuracy_at(np.empty(0), np.empty(0, bool))
