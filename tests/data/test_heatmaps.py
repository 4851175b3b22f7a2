"""Heatmaps on disk, and the 21 numbers of known regions."""

import numpy as np
import pytest

from wsi_ml.data.heatmaps import (
    FEATURE_NAMES,
    Heatmap,
    axes_of,
    heatmap_bytes,
    heatmap_features,
    likely_cells,
    read_heatmap,
)
from wsi_ml.errors import BadRequestError, ModelUnavailableError


def block(row, column, rows, columns):
    return np.array([[row + y, column + x] for y in range(rows) for x in range(columns)])


def test_axes_of_a_line_a_square_and_a_single_cell():
    # Of n cells in a line the variance is (n² − 1)/12, with the cells' own 1/12: n²/12, a full axis of 4·n/√12.
    major, minor = axes_of(block(5, 2, 1, 6))
    assert major == pytest.approx(4 * 6 / np.sqrt(12)) and minor == pytest.approx(4 / np.sqrt(12))
    assert axes_of(block(0, 0, 3, 3)) == pytest.approx((4 * 3 / np.sqrt(12),) * 2)
    assert axes_of(block(0, 0, 1, 1)) == pytest.approx((2 / np.sqrt(3),) * 2)


def test_the_three_largest_regions_make_the_features():
    parts = [block(0, 0, 2, 2), block(0, 10, 1, 6), block(10, 0, 1, 3), block(20, 20, 1, 2), block(30, 30, 1, 1)]
    cells = np.concatenate(parts)
    cluster = np.repeat([0, 1, 2, 3, -1], [len(part) for part in parts])
    told = np.repeat([0.6, 0.7, 0.9, 0.95, 1.0], [len(part) for part in parts])
    told[4] = 0.8
    values = dict(zip(FEATURE_NAMES, heatmap_features(cells, told, cluster), strict=True))
    assert len(values) == 21 and [values[f"area_{number}"] for number in (1, 2, 3)] == [6, 4, 3]
    assert values["inverse_area_1"] == pytest.approx(1 / 6) and values["maximum_1"] == 0.8
    assert values["minimum_1"] == 0.7 and values["mean_1"] == pytest.approx((5 * 0.7 + 0.8) / 6)
    assert values["mean_3"] == pytest.approx(0.9) and values["major_axis_1"] == pytest.approx(4 * 6 / np.sqrt(12))


def test_regions_that_are_not_there_are_zero():
    assert not heatmap_features(np.empty((0, 2)), np.empty(0), np.empty(0, int)).any()
    one = heatmap_features(block(0, 0, 1, 2), np.array([0.7, 0.9]), np.zeros(2, int))
    assert one[0] == 2 and not one[7:].any()
    with pytest.raises(BadRequestError, match="2 patches have 1"):
        heatmap_features(block(0, 0, 1, 2), np.array([0.7]), np.zeros(2, int))


def test_only_patches_above_the_threshold_are_likely(tmp_path):
    told = np.array([0.58, 0.59, np.nan, 0.9], np.float32)
    heat = Heatmap("patient_000_node_0", block(0, 0, 1, 4), told, 0.128)
    assert likely_cells(Heatmap("s", heat.cells, np.array([0.5, 0.6, np.nan, 0.9]), 1.0)).tolist() == [1, 3]
    path = tmp_path / "x.heat.safetensors"
    path.write_bytes(heatmap_bytes(heat))
    read = read_heatmap(path)
    assert (read.name, read.cell_mm) == (heat.name, 0.128) and np.array_equal(read.cells, heat.cells)
    assert np.array_equal(read.probability, told, equal_nan=True)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelUnavailableError, match="evaluate_multistage"):
        read_heatmap(path)
