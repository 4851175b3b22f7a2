"""Masks and label maps of what a teacher tells, on toy maps."""

import numpy as np
import pytest

from wsi_ml.inference.teacher import EPITHELIUM, LUMEN, REST
from wsi_ml.inference.teacher_labels import (
    EPITHELIAL,
    OTHER,
    UNSURE,
    classes_of,
    enlarged,
    epithelial_share,
    glands_and_lumina,
)


def test_epithelium_is_probable_and_leads_and_doubt_has_no_label():
    told = np.zeros((3, 1, 6), np.float32)
    told[EPITHELIUM, 0] = [0.29, 0.31, 0.49, 0.5, 0.6, 0.4]
    told[REST, 0] = [0.9, 0.9, 0.1, 0.2, 0.7, 0.1]
    told[LUMEN, 0] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.8]
    assert classes_of(told)[0].tolist() == [OTHER, UNSURE, UNSURE, EPITHELIAL, UNSURE, OTHER]


def test_the_share_counts_labelled_pixels_only():
    classes = np.array([[1, 1, 0, 0, 0, 0, 255, 255]], np.uint8)
    assert epithelial_share(classes) == pytest.approx(2 / 6)
    assert epithelial_share(np.full((2, 2), UNSURE, np.uint8)) == 0


def test_maps_are_enlarged_about_their_pixels_middles():
    told = np.zeros((3, 2, 2), np.float32)
    told[1, :, 1] = 1
    large = enlarged(told, 4)
    assert large.shape == (3, 8, 8) and large[1, 0].tolist() == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


def _ring(classes: np.ndarray, y: int, x: int, side: int, wall: int) -> tuple[slice, slice]:
    classes[y : y + side, x : x + side] = EPITHELIAL
    hole = (slice(y + wall, y + side - wall), slice(x + wall, x + side - wall))
    classes[hole] = OTHER
    return hole


def test_a_gland_is_a_ring_with_its_white_hole():
    classes, rgb = np.zeros((120, 240), np.uint8), np.full((120, 240, 3), (190, 120, 170), np.uint8)
    white = _ring(classes, 10, 10, 50, 15)
    stroma = _ring(classes, 10, 90, 50, 15)
    small = _ring(classes, 10, 170, 20, 5)
    tiny_hole = _ring(classes, 65, 10, 50, 20)
    for hole in (white, small, tiny_hole):
        rgb[hole] = 240
    glands, lumina = glands_and_lumina(classes, rgb)
    assert glands.dtype == lumina.dtype == np.int32
    assert sorted(np.bincount(glands.ravel())[1:].tolist()) == [2100, 2500, 2500]
    assert (glands[white] == glands[10, 10]).all() and glands[10, 10] > 0
    assert not glands[stroma].any() and glands[10, 90] > 0
    assert not glands[10:30, 170:190].any()
    assert glands[tiny_hole].all() and not lumina[tiny_hole].any()
    assert lumina[white].all() and (lumina > 0).sum() == 400 and lumina.max() == 1


def test_no_epithelium_gives_empty_maps():
    glands, lumina = glands_and_lumina(np.full((8, 8), UNSURE, np.uint8), np.full((8, 8, 3), 255, np.uint8))
    assert not glands.any() and not lumina.any()
