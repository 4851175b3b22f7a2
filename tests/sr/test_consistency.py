"""The data-consistency step: exact without a bound, never more than the bound, nothing at bound 0."""

import numpy as np
import pytest

from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.sr.consistency import pulled


@pytest.fixture
def pictures():
    rng = np.random.default_rng(2)
    stored = rng.integers(60, 196, (20, 33, 3), dtype=np.uint8)
    made = (stored.repeat(2, 0).repeat(2, 1).astype(int) + rng.integers(-20, 21, (40, 66, 3))).astype(np.uint8)
    return stored, made


def test_without_a_bound_halving_gives_the_stored_pixels(pictures):
    stored, made = pictures
    assert (halve_pixels(made) != stored).any()
    assert (halve_pixels(pulled(stored, made, 255)) == stored).all()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_pixel_moves_by_more_than_the_bound(pictures, most, smooth):
    stored, made = pictures
    moved = pulled(stored, made, most, smooth=smooth).astype(int) - made
    assert np.abs(moved).max() == most
    before = np.abs(halve_pixels(made).astype(int) - stored).mean()
    assert np.abs(halve_pixels(pulled(stored, made, most, smooth=smooth)).astype(int) - stored).mean() < before


def test_values_by_hand():
    stored = np.full((1, 1, 3), 100, np.uint8)
    made = np.array([[90, 94], [98, 90]], np.uint8)[..., None].repeat(3, axis=2)  # mean 93, so 7 is missing
    assert pulled(stored, made, 255)[..., 0].tolist() == [[97, 101], [105, 97]]
    assert pulled(stored, made, 2)[..., 0].tolist() == [[92, 96], [100, 92]]


def test_what_leaves_the_grey_levels_is_cut():
    stored = np.full((1, 1, 3), 255, np.uint8)
    made = np.array([[255, 255], [255, 215]], np.uint8)[..., None].repeat(3, axis=2)
    assert pulled(stored, made, 255)[..., 0].tolist() == [[255, 255], [255, 225]]


def test_bound_zero_changes_nothing(pictures):
    stored, made = pictures
    assert pulled(stored, made, 0) is made


def test_a_picture_that_is_not_twice_the_stored_one_is_refused():
    with pytest.raises(ValueError, match="not twice"):
        pulled(np.zeros((4, 4, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), 2)
