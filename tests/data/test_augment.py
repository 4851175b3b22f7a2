"""Augmentations keep what they must: poses are exact, no change is the identity, stains move as told."""

import numpy as np
import pytest

from wsi_ml.data.augment import AugmentConfig, augment, change_sharpness, change_stain, dihedral


def picture(side=8, seed=0):
    return np.random.default_rng(seed).integers(30, 250, (side, side, 3), dtype=np.uint8)


def test_the_eight_poses_differ_and_keep_every_pixel():
    rgb = picture()
    poses = {dihedral(rgb, pose).tobytes() for pose in range(8)}
    assert len(poses) == 8
    for pose in range(8):
        assert np.array_equal(np.sort(dihedral(rgb, pose).reshape(-1, 3), axis=0), np.sort(rgb.reshape(-1, 3), axis=0))


def test_stain_gains_of_one_and_no_shift_change_nothing():
    rgb = picture()
    same = change_stain(rgb, np.ones(3), np.zeros(3))
    assert np.abs(same.astype(int) - rgb).max() <= 1


def test_more_haematoxylin_darkens_a_nucleus_and_leaves_white_glass():
    nucleus, glass = np.full((1, 1, 3), (110, 90, 170), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    gains = np.array([1.3, 1.0, 1.0])
    assert np.all(change_stain(nucleus, gains, np.zeros(3)) < nucleus)
    assert np.array_equal(change_stain(glass, gains, np.zeros(3)), glass)


def test_density_shift_is_a_gain_of_light():
    rgb = np.full((1, 1, 3), 199, np.uint8)
    darker = change_stain(rgb, np.ones(3), np.full(3, np.log(2.0)))
    assert darker[0, 0].tolist() == [99, 99, 99]


def test_sharpness_moves_an_edge_both_ways():
    rgb = np.full((9, 9, 3), 100, np.uint8)
    rgb[:, 5:] = 150
    assert change_sharpness(rgb, 0.3)[4, 4, 0] < 100 < change_sharpness(rgb, -0.3)[4, 4, 0]


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_the_same_generator_state_gives_the_same_copy(chance):
    config = AugmentConfig(stain_chance=chance, colour_chance=chance, sharpness_chance=chance)
    first, again = (augment(picture(), config, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.flags.c_contiguous and first.dtype == np.uint8


def test_swapped_colours_are_the_same_three_planes():
    rgb = picture()
    config = AugmentConfig(stain_chance=0.0, colour_chance=1.0, sharpness_chance=0.0)
    seen = set()
    for seed in range(30):
        swapped = augment(rgb, config, np.random.default_rng(seed))
        assert sorted(plane.sum() for plane in np.moveaxis(swapped, 2, 0)) == sorted(
            plane.sum() for plane in np.moveaxis(rgb, 2, 0)
        )
        seen.add(tuple(int(plane.sum()) for plane in np.moveaxis(swapped, 2, 0)))
    assert len(seen) == 6
