"""GMSD: a hand-computed picture, an independent way of computing it, order of damage."""

import cv2
import numpy as np
import pytest

from wsi_ml.metrics.gradient import STABILITY, gmsd


def grey(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, -1)


def test_equal_pictures_and_a_shift_of_brightness_give_zero():
    rng = np.random.default_rng(0)
    truth = rng.integers(40, 200, (24, 30, 3), dtype=np.uint8)
    assert gmsd(truth, truth) == 0.0
    assert gmsd(truth + 20, truth) == pytest.approx(0.0, abs=1e-9)


def test_a_step_that_vanished_is_as_computed_by_hand():
    """16 × 8 px, a step of 60 after column 8: halved to 8 × 4, gradients (2 rows of 6) are 60 in 2 of 6 columns."""
    truth = grey(np.where(np.arange(16) < 8, 100, 160)[None].repeat(8, 0))
    flat = grey(np.full((8, 16), 100))
    lost = STABILITY / (60.0**2 + STABILITY)
    expected = np.std([1, 1, lost, lost, 1, 1] * 2, ddof=1)
    assert gmsd(flat, truth) == pytest.approx(expected)


def test_it_equals_the_paper_s_steps_done_by_filters():
    rng = np.random.default_rng(1)
    truth = cv2.GaussianBlur(rng.integers(0, 256, (40, 52, 3), dtype=np.uint8), (0, 0), 1)
    picture = cv2.GaussianBlur(truth, (0, 0), 1)
    weights = np.array([0.299, 0.587, 0.114])
    maps = []
    for rgb in (picture, truth):
        half = cv2.resize(rgb @ weights, (26, 20), interpolation=cv2.INTER_AREA)
        mask = np.array([[1, 0, -1]] * 3) / 3
        across, down = cv2.filter2D(half, -1, mask), cv2.filter2D(half, -1, mask.T)
        maps.append(np.hypot(across, down)[1:-1, 1:-1])
    similarity = (2 * maps[0] * maps[1] + 170) / (maps[0] ** 2 + maps[1] ** 2 + 170)
    assert gmsd(picture, truth) == pytest.approx(similarity.std(ddof=1))
    assert gmsd(picture, truth) < gmsd(cv2.GaussianBlur(truth, (0, 0), 3), truth)


def test_shapes_that_differ_and_small_pictures_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        gmsd(grey(np.zeros((16, 16))), grey(np.zeros((16, 17))))
    with pytest.raises(ValueError, match="at least 8 px"):
        gmsd(grey(np.zeros((7, 16))), grey(np.zeros((7, 16))))
