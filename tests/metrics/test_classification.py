"""Figures of a classifier against the paper's table and numbers worked out by hand."""

import math

import numpy as np
import pytest

from wsi_ml.metrics import classification as metrics

TABLE_3 = np.array([
    [4631, 110, 10, 91, 48],
    [7, 38571, 0, 1, 2],
    [0, 0, 1210, 1, 175],
    [91, 0, 6, 2763, 173],
    [320, 6, 342, 102, 4334],
])  # fmt: skip
"""Sun, Khvostikov et al. 2024, table 3: AT, BG, LP, MM, TUM; rows are the truth."""


def patches_of(counts):
    labels, told = np.nonzero(counts)
    return np.repeat(labels, counts[labels, told]), np.repeat(told, counts[labels, told])


def test_table_3_of_the_paper_gives_its_figures():
    labels, told = patches_of(TABLE_3)
    counts = metrics.confusion_matrix(labels, told, 5)
    assert (counts == TABLE_3).all() and counts.sum() == 52_994
    assert metrics.recalls(counts) == pytest.approx([0.9470, 0.9997, 0.8730, 0.9110, 0.8491], abs=5e-5)
    assert metrics.accuracy(counts) == pytest.approx(0.97198, abs=5e-6)
    assert metrics.balanced_accuracy(counts) == pytest.approx(0.91598, abs=5e-6)
    assert metrics.macro_f1(counts) == pytest.approx(0.9106, abs=5e-5)


def test_a_class_without_patches_has_no_recall_and_counts_in_no_mean():
    counts = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert metrics.recalls(counts) == [0.75, 1.0, None]
    assert metrics.balanced_accuracy(counts) == 0.875
    assert metrics.f1_scores(counts) == [6 / 7, 4 / 5, None]
    assert metrics.macro_f1(counts) == pytest.approx((6 / 7 + 4 / 5) / 2)
    empty = np.zeros((2, 2), int)
    assert metrics.accuracy(empty) is None and metrics.balanced_accuracy(empty) is None


def test_a_class_that_is_told_but_not_there_lowers_macro_f1():
    counts = np.array([[3, 1], [0, 0]])
    assert metrics.f1_scores(counts) == [6 / 7, 0.0]
    assert metrics.macro_f1(counts) == pytest.approx(3 / 7)


@pytest.mark.parametrize(("labels", "told", "word"), [([0, 2], [0, 0], "true"), ([0, 1], [0, -1], "told")])
def test_a_class_outside_is_refused(labels, told, word):
    with pytest.raises(ValueError, match=f"a {word} class is outside 0…1"):
        metrics.confusion_matrix(np.array(labels), np.array(told), 2)


SHARES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.35, 0.65]])
LABELS = np.array([0, 1, 1, 1])


def test_reliability_bins_hold_mean_confidence_and_accuracy():
    bins = metrics.reliability(SHARES, LABELS, 5)
    assert [each.count for each in bins] == [0, 0, 0, 2, 2]
    assert bins[0].confidence is None and bins[0].accuracy is None
    assert (bins[3].low, bins[3].high) == (0.6, 0.8)
    assert bins[3].confidence == pytest.approx(0.675) and bins[3].accuracy == 1.0
    assert bins[4].confidence == pytest.approx(0.85) and bins[4].accuracy == 0.5


def test_full_confidence_is_in_the_last_of_fifteen_bins():
    bins = metrics.reliability(np.array([[1.0, 0.0]]), np.array([0]))
    assert len(bins) == 15 and bins[-1].count == 1 and bins[-1].accuracy == 1.0


def test_calibration_error_weighs_gaps_by_patches():
    assert metrics.calibration_error(SHARES, LABELS, 5) == pytest.approx((0.325 * 2 + 0.35 * 2) / 4)
    sure = np.eye(3)[[0, 1, 2, 2]]
    assert metrics.calibration_error(sure, np.array([0, 1, 2, 2])) == 0.0
    assert metrics.calibration_error(sure, np.array([1, 2, 0, 0])) == 1.0


def test_brier_and_log_loss_by_hand():
    by_hand = [2 * 0.1**2, 2 * 0.8**2, 2 * 0.3**2, 2 * 0.35**2]
    assert metrics.brier(SHARES, LABELS) == pytest.approx(np.mean(by_hand))
    assert metrics.log_loss(SHARES, LABELS) == pytest.approx(-np.mean(np.log([0.9, 0.2, 0.7, 0.65])))
    wrong = np.array([[1.0, 0.0]])
    assert metrics.brier(wrong, np.array([1])) == 2.0
    assert metrics.log_loss(wrong, np.array([1])) == pytest.approx(-math.log(1e-12))


def test_the_report_holds_plain_values_and_refuses_what_does_not_fit():
    report = metrics.classification_report(SHARES, LABELS, ("gland", "fat"))
    assert report["recall"] == {"gland": 1.0, "fat": pytest.approx(2 / 3)}
    assert report["confusion"] == {"classes": ["gland", "fat"], "rows": [[1, 0], [1, 2]]}
    assert len(report["reliability"]) == 15 and report["patches"] == 4
    with pytest.raises(ValueError, match="do not fit 4 labels of 3"):
        metrics.classification_report(SHARES, LABELS, ("a", "b", "c"))
