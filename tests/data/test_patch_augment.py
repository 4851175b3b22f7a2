"""Geometry shared by ×20 and ×40; blur only where it is asked for."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from train.presets import AUTHORS_CODE, PAPER, Augmentation
from wsi_ml.data.patch_augment import Blur, Pose, blur_pair, draw_blur, draw_pose
from wsi_ml.slides.kernel import halve_pixels

SETTINGS = Augmentation()


def smooth(seed: int = 0, side: int = 128) -> np.ndarray:
    small = np.random.default_rng(seed).integers(40, 216, (6, 6, 3)).astype(np.float32)
    return np.clip(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def test_poses_of_the_grid_are_exact():
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(Pose().apply(rgb), rgb)
    assert np.array_equal(Pose(mirror_x=True).apply(rgb), rgb[:, ::-1])
    assert np.array_equal(Pose(mirror_y=True).apply(rgb), rgb[::-1])
    assert np.array_equal(Pose(degrees=90.0).apply(rgb), np.rot90(rgb))
    assert np.array_equal(Pose(shift_x=0.25).apply(rgb)[:, 2:], rgb[:, :6])
    assert np.array_equal(Pose(shift_y=-0.125).apply(rgb)[:7], rgb[1:])


@pytest.mark.parametrize("seed", range(6))
def test_both_resolutions_move_together(seed):
    base = smooth(seed)
    rng = np.random.default_rng(seed)
    pose = draw_pose(dataclasses.replace(SETTINGS, rotate=1.0, shift=0.0625, zoom=0.1), rng)
    assert pose.degrees and pose.zoom != 1 and pose.shift_x
    one, other = halve_pixels(pose.apply(base)), pose.apply(halve_pixels(base))
    inner = np.abs(one.astype(int) - other)[16:-16, 16:-16]
    assert inner.mean() < 0.6 and inner.max() <= 4
    shifted = np.abs(one.astype(int) - np.roll(other, 1, axis=1))[16:-16, 16:-16]
    assert shifted.mean() > 3 * inner.mean()  # half a pixel off would be seen


def test_chances():
    def poses(settings, count=400):
        rng = np.random.default_rng(1)
        return [draw_pose(settings, rng) for _ in range(count)]

    drawn = poses(PAPER.stage_one.augmentation)
    for share in (
        np.mean([pose.mirror_x for pose in drawn]), np.mean([pose.mirror_y for pose in drawn]),
        np.mean([pose.degrees != 0 for pose in drawn]),
    ):  # fmt: skip
        assert 0.42 < share < 0.58
    assert 25 < max(pose.degrees for pose in drawn) <= 30 and -30 <= min(pose.degrees for pose in drawn) < -25
    assert all(pose.zoom == 1 and pose.shift_x == 0 for pose in drawn)
    assert not any(pose.mirror_y for pose in poses(AUTHORS_CODE.stage_one.augmentation))
    assert draw_pose(None, np.random.default_rng(0)) == Pose()


def test_blur_by_preset():
    base, stored = smooth(1), halve_pixels(smooth(1))

    def blurred(settings):
        small, large = blur_pair(stored, base, settings, np.random.default_rng(4))
        return not np.array_equal(small, stored), not np.array_equal(large, base)

    always = dataclasses.replace(SETTINGS, blur=1.0)
    assert blurred(always) == (True, False)
    assert blurred(dataclasses.replace(always, blur_truth=True)) == (True, True)
    assert blurred(dataclasses.replace(always, blur=0.0)) == (False, False)
    assert blurred(AUTHORS_CODE.stage_one.augmentation) == (False, False)
    assert blurred(None) == (False, False)
    small, none = blur_pair(stored, None, always, np.random.default_rng(4))
    assert none is None and not np.array_equal(small, stored)


def test_blur_kernels():
    rng = np.random.default_rng(0)
    sides = {draw_blur(dataclasses.replace(SETTINGS, blur=1.0), rng).side for _ in range(60)}
    assert sides == {3, 5, 7}
    spot = np.zeros((9, 9, 3), np.uint8)
    spot[4, 4] = 225
    assert np.array_equal(Blur("box", 3).apply(spot)[3:6, 3:6], np.full((3, 3, 3), 25))
    assert Blur("gaussian", 3).apply(spot)[4, 4, 0] == 56  # 225 / 4: the kernel 1 2 1
