"""Post-processing of paper C: perfect maps give their objects back, thresholds, floods and votes by hand."""

import numpy as np
import pytest

from wsi_ml.data.instance_targets import contour_target, interior_target
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.cerberus_objects import (
    GrowthRules,
    find_objects_of,
    flood,
    grown_objects,
    lumina_within,
    majority_types,
    nuclei_objects,
)


def circles(size, places):
    """Label map of discs (row, column, radius), numbered from 1."""
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for number, (row, column, radius) in enumerate(places, start=1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return labels


def perfect(labels, side, target):
    if target == "base":
        return interior_target(labels, side)[None].astype(np.float32)
    told = contour_target(labels, side)
    return np.stack([told == 1, told == 2]).astype(np.float32)


def ious(truth, told):
    """IoU of each truth object with the told one that covers most of it."""
    found = []
    for number in range(1, truth.max() + 1):
        mask = truth == number
        best = np.bincount(told[mask]).argmax()
        assert best > 0
        found.append((mask & (told == best)).sum() / (mask | (told == best)).sum())
    return found


NUCLEI = [(20, 20, 6), (20, 33, 6), (60, 20, 8), (60, 60, 5), (90, 90, 9)]
GLANDS = [(60, 60, 40), (60, 150, 45), (180, 100, 35)]


@pytest.mark.parametrize("target", ["base", "plus"])
@pytest.mark.parametrize(
    ("task", "side", "places", "least"),
    [("nuclei", 3, NUCLEI, 0.85), ("lumen", 3, GLANDS, 0.97), ("gland", 11, GLANDS, 0.95)],
)
def test_perfect_maps_give_their_objects_back(task, side, places, least, target):
    truth = circles(230, places)
    told = find_objects_of(task, perfect(truth, side, target))
    assert len(np.unique(told)) == len(places) + 1
    assert min(ious(truth, told)) > least


def test_touching_nuclei_are_told_apart_by_contour():
    truth = circles(40, [(20, 14, 6), (20, 26, 6)])
    told = find_objects_of("nuclei", perfect(truth, 3, "plus"))
    assert told.max() == 2 and told[20, 14] != told[20, 26]


def test_least_sizes_of_nuclei_are_kept_at_the_boundary():
    interior = np.zeros((20, 20), np.float32)
    interior[4:6, 4:6] = 1.0
    contour = np.zeros_like(interior)
    contour[2:8, 2:8] = 1.0
    contour -= interior
    assert (nuclei_objects(interior, contour) > 0).sum() == 16  # 6×6 eroded by a cross; a seed of 4 px stays
    interior[5, 5] = 0.0
    contour[5, 5] = 1.0
    assert nuclei_objects(interior, contour).max() == 0  # a seed of 3 px


def test_a_gland_needs_a_thousand_pixels_and_more_than_the_threshold():
    interior = np.zeros((80, 80), np.float32)
    interior[10:35, 10:50] = 0.56
    told = find_objects_of("gland", np.stack([interior, np.zeros_like(interior)]))
    assert told.max() == 1 and told[9, 30] == 1 and told[22, 22] == 1
    interior[34, 49] = 0.0
    assert find_objects_of("gland", np.stack([interior, np.zeros_like(interior)])).max() == 0
    interior[34, 49] = 0.56
    assert find_objects_of("gland", np.stack([np.minimum(interior, 0.55), np.zeros_like(interior)])).max() == 0
    # At half the scale a quarter of the pixels is enough.
    assert find_objects_of("gland", np.stack([interior, np.zeros_like(interior)])[:, ::2, ::2], 0.5).max() == 1


def test_holes_are_filled_and_contour_cuts():
    interior = np.ones((60, 60), np.float32)
    interior[:, 29:31] = 0.9
    contour = np.zeros_like(interior)
    contour[:, 29:31] = 0.6
    interior[10, 10] = 0.0
    told = find_objects_of("lumen", np.stack([interior, contour]))
    assert told.max() == 2 and told[10, 10] == told[12, 12] and told[5, 5] != told[5, 55]


def test_where_objects_grow_together_the_later_number_stays():
    interior = np.zeros((20, 20), np.float32)
    interior[5:10, 2:8] = interior[5:10, 9:15] = 1.0
    told = grown_objects(interior, GrowthRules(0.5, 1, 3), 1.0)
    assert (told[7, 8] == 2 and told[7, 7] == 1) or told[7, 7] == 2
    assert told[7, 3] == 1 and told[4, 4] == 1 and told[4, 12] == 2


def test_a_flood_meets_on_the_ridge():
    heights = np.array([[0, 1, 2, 9, 2, 1, 0]], np.float32)
    seeds = np.array([[1, 0, 0, 0, 0, 0, 2]])
    told = flood(heights, seeds, np.ones((1, 7), bool))
    assert told.tolist() == [[1, 1, 1, 1, 2, 2, 2]]  # of equals the first come
    assert flood(heights, seeds, heights < 9).tolist() == [[1, 1, 1, 0, 2, 2, 2]]


def test_a_type_is_the_majority_and_background_only_alone():
    labels = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 0]])
    types = np.array([[0, 0, 0, 2], [1, 3, 3, 0], [0, 0, 0, 1]], np.uint8)
    assert majority_types(labels, types) == {1: (2, 0.25), 2: (3, 0.5), 3: (0, 1.0)}


def test_a_lumen_ends_where_its_gland_does():
    assert lumina_within(np.array([[1, 1, 2]]), np.array([[0, 5, 5]])).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("task", "maps", "words"),
    [
        ("cells", np.zeros((2, 4, 4), np.float32), "no rules"), ("nuclei", np.zeros((3, 4, 4), np.float32), "interior"),
        ("nuclei", np.zeros((2, 4, 4), np.uint8), "probabilities"),
    ],
)  # fmt: skip
def test_other_maps_are_refused(task, maps, words):
    with pytest.raises(BadRequestError, match=words):
        find_objects_of(task, maps)


def test_empty_maps_hold_nothing():
    for task in ("gland", "lumen", "nuclei"):
        for channels in (1, 2):
            assert find_objects_of(task, np.zeros((channels, 16, 16), np.float32)).max() == 0
