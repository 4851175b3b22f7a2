"""Shares at their limits, labels, and patches on the map of a slide."""

from itertools import pairwise

import numpy as np
import pytest

from wsi_ml.data.label_fraction import labelled_part
from wsi_ml.data.patch_grid import (
    NOLABEL,
    NORMAL,
    TUMOUR,
    cell_shares,
    centred,
    kept_cells,
    label_map,
    patch_labels,
)
from wsi_ml.errors import BadRequestError


def test_shares_of_whole_cells():
    mask = np.zeros((5, 9), bool)
    mask[:2, :2] = True
    mask[0, 4] = True
    assert np.array_equal(cell_shares(mask, 4), [[0.25, 1 / 16]])


def test_tissue_must_be_more_than_four_fifths():
    assert kept_cells(np.array([[0.8, 0.81], [1.0, 0.2]])).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(BadRequestError, match="80%"):
        kept_cells(np.full((3, 3), 0.8))


def test_labels_at_the_thresholds():
    tumour = np.array([0.2, 0.21, 0.0, 0.0, 0.21])
    normal = np.array([0.0, 0.0, 0.8, 0.81, 0.79])
    assert patch_labels(tumour, normal).tolist() == [NOLABEL, TUMOUR, NOLABEL, NORMAL, TUMOUR]


def test_tumour_is_looked_at_first():
    assert patch_labels(np.array([0.5]), np.array([0.9])).tolist() == [TUMOUR]


def test_a_slide_lies_in_the_middle_of_its_map():
    cells = np.array([[10, 20], [10, 23], [12, 21]])
    placement = centred(cells, 8)
    assert placement.kept.tolist() == [0, 1, 2]
    assert placement.rows.tolist() == [2, 2, 4] and placement.columns.tolist() == [2, 5, 3]


def test_what_sticks_out_is_cut_off_on_both_sides():
    cells = np.stack([np.zeros(10, int), np.arange(10)], axis=1)
    placement = centred(cells, 4)
    assert placement.kept.tolist() == [3, 4, 5, 6]
    assert placement.columns.tolist() == [0, 1, 2, 3]
    with pytest.raises(BadRequestError, match="no patches"):
        centred(np.empty((0, 2), int), 4)


def test_labels_lie_where_their_patches_do():
    cells = np.array([[0, 0], [0, 1], [1, 1]])
    placed = label_map(np.array([TUMOUR, NORMAL, NOLABEL]), centred(cells, 4), 4)
    assert placed[1, 1] == TUMOUR and placed[1, 2] == NORMAL
    assert (placed == NOLABEL).sum() == 14


@pytest.mark.parametrize(("share", "count"), [(0, 1), (0.01, 1), (0.05, 2), (0.29, 14), (0.58, 29), (1, 50)])
def test_shares_of_labelled_pictures(share, count):
    kept, others = labelled_part(range(50), share, seed=3)
    assert len(kept) == count and sorted(kept + others) == list(range(50))


def test_shares_are_nested_and_depend_on_the_seed():
    parts = [set(labelled_part(range(40), share, seed=1)[0]) for share in (0, 0.1, 0.5, 1)]
    assert all(small <= large for small, large in pairwise(parts))
    assert parts[1] != set(labelled_part(range(40), 0.1, seed=2)[0])


@pytest.mark.parametrize(("items", "share"), [([], 0.5), ([1], -0.1), ([1], 1.1)])
def test_shares_without_sense_are_refused(items, share):
    with pytest.raises(BadRequestError, match="share from 0 to 1"):
        labelled_part(items, share, 0)
