"""Pooled overlap by hand, against the paper's own relation, and bad input."""

import numpy as np
import pytest

from wsi_ml.metrics.pooled import PooledPixels


def test_counts_of_all_pictures_are_added_before_anything_is_divided():
    pooled = PooledPixels(("Other", "Target"))
    pooled.add(np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 0]]))  # TP 1, FN 1: DSC 2/3 alone
    pooled.add(np.array([[1, 1], [1, 0]]), np.array([[1, 1], [1, 1]]))  # TP 3, FP 1: DSC 6/7 alone
    assert pooled.counts.tolist() == [[2, 1], [1, 4]]
    assert pooled.dsc(1) == pytest.approx(8 / 10) and pooled.iou(1) == pytest.approx(4 / 6)
    assert pooled.dsc(1) != pytest.approx((2 / 3 + 6 / 7) / 2)
    assert pooled.dsc(0) == pytest.approx(4 / 6) and pooled.iou(0) == pytest.approx(2 / 4)
    for place in (0, 1):
        assert pooled.iou(place) == pytest.approx(pooled.dsc(place) / (2 - pooled.dsc(place)))
    report = pooled.report()
    assert report["dsc"] == pytest.approx(0.8) and report["iou"] == pytest.approx(2 / 3)
    assert report["pixels"] == 8 and report["pixel_accuracy"] == pytest.approx(6 / 8)
    assert report["dsc_of"]["Target"] == report["dsc"] and report["confusion"]["rows"] == [[2, 1], [1, 4]]


def test_pixels_without_a_label_take_no_part_and_classes_that_do_not_occur_no_mean():
    pooled = PooledPixels(("Other", "One", "Two"))
    pooled.add(np.array([-1, 0, 1, 1]), np.array([1, 0, 1, 0]))
    assert pooled.counts.sum() == 3 and pooled.dsc(2) is None
    assert pooled.report()["dsc"] == pytest.approx(2 / 3) and pooled.report()["dsc_of"]["Two"] is None
    empty = PooledPixels(("Other", "One")).report()
    assert empty["dsc"] is None and empty["pixel_accuracy"] is None


def test_the_paper_s_table_one_obeys_the_relation_of_pooled_values():
    """β = 3: DSC .8479, IOU .7360, and so do the others of that row."""
    for dsc, iou in ((0.8431, 0.7288), (0.8437, 0.7296), (0.8479, 0.7360), (0.8450, 0.7316), (0.8419, 0.7269)):
        assert dsc / (2 - dsc) == pytest.approx(iou, abs=1e-3)


@pytest.mark.parametrize(
    ("truth", "told", "word"), [([0, 2], [0, 0], "true"), ([0, 1], [0, 5], "told"), ([0], [0, 1], "shape")]
)
def test_what_does_not_fit_is_refused(truth, told, word):
    with pytest.raises(ValueError, match=word):
        PooledPixels(("Other", "One")).add(np.array(truth), np.array(told))
