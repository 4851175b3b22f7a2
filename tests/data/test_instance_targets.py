"""Targets of instance tasks on squares whose erosion, contour and weights are known."""

import cv2
import numpy as np
import pytest

from wsi_ml.data.instance_targets import (
    CONTOUR,
    INTERIOR,
    boxes,
    contour_target,
    disc,
    eroded,
    interior_target,
    relabelled,
    weight_map,
)
from wsi_ml.errors import BadRequestError


def square(size=20, side=7, top=5, left=5, number=1):
    labels = np.zeros((size, size), np.int32)
    labels[top : top + side, left : left + side] = number
    return labels


@pytest.mark.parametrize(
    ("side", "rows"),
    [
        (1, [1]), (2, [1, 2]), (3, [1, 3, 1]), (10, [1, 7, 9, 10, 10, 10, 10, 10, 9, 7]),
        (11, [1, 7, 9, 11, 11, 11, 11, 11, 9, 7, 1]),
    ],
)  # fmt: skip
def test_discs_are_opencvs(side, rows):
    assert disc(side).sum(axis=1).tolist() == rows


def test_boxes_in_order_of_number():
    labels = square(number=7) + square(top=14, left=1, side=3, number=2)
    assert list(boxes(labels)) == [(2, (slice(14, 17), slice(1, 4))), (7, (slice(5, 12), slice(5, 12)))]


def test_a_square_eroded_by_a_cross_loses_one_pixel_a_side():
    assert np.array_equal(eroded(square(number=4), 3), square(side=5, top=6, left=6, number=4))
    assert interior_target(square(), 3).sum() == 25
    assert eroded(square(side=2), 3).sum() == 0


def test_the_contour_of_a_square_is_the_dilated_less_the_eroded_one():
    target = contour_target(square(), 3)
    dilated = cv2.dilate(square().astype(np.uint8), disc(3))
    assert (target == INTERIOR).sum() == 25
    assert (target == CONTOUR).sum() == dilated.sum() - 25 == 49 + 4 * 7 - 25
    assert target[4, 4] == 0 and target[4, 5] == CONTOUR  # a cross does not reach the corner


def test_touching_squares_are_parted_by_contour():
    labels = square(side=6) + square(side=6, left=11, number=2)
    target = contour_target(labels, 3)
    assert (target[8, 10:12] == CONTOUR).all()
    assert target[8, 8] == INTERIOR and target[8, 13] == INTERIOR


def test_an_instance_at_the_edge_is_eroded_there_too():
    assert eroded(square(top=0, left=0), 3).astype(bool).sum() == 25
    assert contour_target(square(top=0, left=0), 3).shape == (20, 20)


def test_instances_that_mirroring_split_are_told_apart():
    labels = square(side=3, top=1, left=1) + square(side=3, top=10, left=10)
    parts = relabelled(labels)
    assert sorted(np.unique(parts)) == [0, 1, 2]
    assert parts[2, 2] != parts[11, 11]
    assert np.array_equal(parts > 0, labels > 0)


def test_weights_between_two_squares_by_hand():
    labels = square(size=30, side=5, top=10, left=5) + square(size=30, side=5, top=10, left=13, number=2)
    weights = weight_map(labels, 3)
    # Eroded: columns 6…8 and 14…16. Column 11 of row 12 is 3 from both.
    assert weights[12, 11] == pytest.approx(1 + 10 * np.exp(-((6 / 3) ** 2) / 2), rel=1e-5)
    assert weights[12, 7] == 1 and weights[12, 15] == 1
    assert weights[12, 10] == pytest.approx(1 + 10 * np.exp(-(((2 + 4) / 3) ** 2) / 2), rel=1e-5)


def test_one_instance_alone_weighs_one_everywhere():
    assert (weight_map(square(), 3) == 1).all()


def test_distances_count_only_near_an_instances_box():
    labels = square(size=60, side=5, top=10, left=5) + square(size=60, side=5, top=10, left=45, number=2)
    assert np.allclose(weight_map(labels, 11), 1)


@pytest.mark.parametrize("labels", [np.zeros((4, 4)), np.zeros((4, 4, 3), int), np.array([[-1, 0]])])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(BadRequestError, match="label map"):
        eroded(labels, 3)
