"""Bands of a trust map: limits by value, tiles to cells, only what can occur, colours and words that differ."""

import numpy as np
import pytest

from wsi_ml.geometry import Region, Size
from wsi_ml.slides.kept import FidelityGrid
from wsi_ml.sr import trust
from wsi_ml.sr.cycle import CycleCells

MATCH, SMALL, DIFFERS, KEPT = range(4)


def grid_of(values, kept=None, floor=0.9) -> FidelityGrid:
    values = np.array(values, np.float16)
    kept = np.zeros(values.shape, bool) if kept is None else np.array(kept, bool)
    base_size = Size(512 * values.shape[1], 512 * values.shape[0])
    return FidelityGrid(values, kept, base_size, 512, "sr-fake", "ab" * 32, floor)


def test_cycle_error_is_banded_by_its_mean_and_its_largest_pixel():
    mean = np.array([[0.0, 1.5, 1.6, 3.0, 3.1, 0.5, 0.5, 99.0]], np.float32)
    most = np.array([[0, 12, 12, 24, 24, 13, 25, 255]], np.uint8)
    band, score = trust.cycle_bands(CycleCells(mean, most))
    assert band.tolist() == [[0, 0, 1, 1, 2, 1, 2, 2]]
    assert score.tolist() == [[255, 240, 239, 225, 224, 250, 250, 1]]


def test_an_estimate_is_banded_by_its_limits_and_a_contradiction_is_a_fault_whatever_it_says():
    estimated = np.array([[0.5, 2.5, 2.6, 3.5, 3.6, 0.5, 9.0]], np.float32)
    mean = np.array([[0.0, 3.0, 0.0, 0.0, 0.0, 3.1, 1.0]], np.float32)
    most = np.array([[0, 24, 0, 0, 0, 9, 25]], np.uint8)
    band, score = trust.estimated_bands(estimated, CycleCells(mean, most))
    assert band.tolist() == [[0, 0, 1, 1, 2, trust.CONTRADICTS_BAND, trust.CONTRADICTS_BAND]]
    assert score.tolist() == [[250, 230, 229, 220, 219, 224, 245]]


def test_fidelity_is_banded_by_ssim_and_by_what_is_kept():
    band, score = trust.fidelity_bands(grid_of([[1, 0.95, 0.949, 0.9, 0.89, -0.2]], [[0, 0, 0, 0, 1, 0]]))
    assert band.tolist() == [[MATCH, MATCH, SMALL, SMALL, KEPT, DIFFERS]]
    assert score.tolist() == [[255, 242, 242, 229, 227, 1]]


def test_a_tile_that_nobody_compared_has_no_score():
    _, score = trust.fidelity_bands(grid_of([[np.nan, 0.5]]))
    assert score.tolist() == [[0, 128]]


def test_a_tile_covers_eight_cells_a_side_and_there_is_nothing_beyond_the_tiles():
    tiles = np.array([[1, 2], [3, 4]], np.uint8)
    cells = trust.cells_of_tiles(tiles, 512, Region(0, 0, 512, 512))
    assert cells.shape == (16, 16)
    assert (cells == tiles.repeat(8, 0).repeat(8, 1)).all()
    beyond = trust.cells_of_tiles(tiles, 512, Region(224, 480, 96, 96))
    assert beyond.tolist() == [[3, 4, 4], [0, 0, 0], [0, 0, 0]]


def test_one_hot_puts_each_score_into_its_band():
    channels = trust.one_hot(np.array([[0, 2]]), np.array([[7, 9]], np.uint8), 3)
    assert channels.tolist() == [[[7, 0]], [[0, 0]], [[0, 9]]]


@pytest.mark.parametrize(
    ("grid", "calibrated", "compared", "count"),
    [
        (None, False, "stored", 3),
        (None, True, "estimated", 4),
        (grid_of([[0.9, 0.99]]), True, "scan", 3),
        (grid_of([[0.8, 0.99]], [[1, 0]]), False, "scan", 4),
        (grid_of([[np.nan, 0.99]]), False, "both", 6),
        (grid_of([[np.nan, 0.8]], [[0, 1]]), True, "both-estimated", 8),
    ],
)
def test_a_map_has_only_the_bands_that_can_occur(grid, calibrated, compared, count):
    bands = trust.bands_for(grid, calibrated)
    assert (trust.compared_with(grid, calibrated), len(bands)) == (compared, count)
    assert len({band.name for band in bands}) == len({band.color for band in bands}) == count
    assert all(band.words.endswith(".") and band.limits for band in bands)
