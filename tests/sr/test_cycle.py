"""Cycle error: exact on small pictures, cut cells count the pixels they have, every size fits or is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.sr.cycle import CELL, cycle_cells, cycle_difference, cycle_error


def test_repeated_pixels_have_no_cycle_error():
    stored = np.random.default_rng(1).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    repeated = stored.repeat(2, axis=0).repeat(2, axis=1)
    assert cycle_error(stored, repeated) == 0
    assert not cycle_difference(stored, repeated).any()


def test_one_wrong_pixel_counts_a_quarter_of_its_error_in_its_own_cell():
    stored = np.full((64, 96, 3), 100, np.uint8)
    made = stored.repeat(2, axis=0).repeat(2, axis=1)
    made[70, 5, 1] = 180  # 80 grey levels in one of four pixels: 20 in one colour of stored pixel (35, 2)
    cells = cycle_cells(stored, made)
    assert cells.mean.shape == cells.most.shape == (2, 3)
    assert cells.most.tolist() == [[0, 0, 0], [20, 0, 0]]
    assert cells.mean[1, 0] == pytest.approx(20 / (32 * 32 * 3))
    assert cells.mean.sum() == pytest.approx(cells.mean[1, 0])
    assert cells.mean.dtype == np.float32 and cells.most.dtype == np.uint8


@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 9))
def test_cells_at_the_edge_are_means_of_the_pixels_they_have(height, width, seed):
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    made = rng.integers(0, 256, (2 * height, 2 * width, 3), dtype=np.uint8)
    cells = cycle_cells(stored, made)
    difference = np.abs(halve_pixels(made).astype(int) - stored)
    for row in range(cells.mean.shape[0]):
        for column in range(cells.mean.shape[1]):
            part = difference[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            assert cells.mean[row, column] == pytest.approx(part.mean(), rel=1e-5)
            assert cells.most[row, column] == part.max()


def test_a_picture_that_is_not_twice_the_stored_one_is_refused():
    with pytest.raises(ValueError, match="not twice"):
        cycle_error(np.zeros((4, 4, 3), np.uint8), np.zeros((8, 7, 3), np.uint8))
