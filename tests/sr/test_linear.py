"""The best linear upsampler: it finds the filter that made the pictures, and beats bicubic."""

import cv2
import numpy as np
import pytest

from wsi_ml.errors import BadRequestError
from wsi_ml.metrics.image import psnr
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.linear import fit_linear


def base_picture(seed, side=120):
    rng = np.random.default_rng(seed)
    rough = rng.integers(40, 220, (side, side, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(rough, (0, 0), 1.4) * 3 - 250, 0, 255).astype(np.uint8)


def test_it_beats_bicubic_on_pictures_it_was_not_fitted_on():
    upsampler = fit_linear((halve_pixels(base), base) for base in map(base_picture, range(8)))
    base = base_picture(99)
    stored = halve_pixels(base)
    made = upsampler(stored)
    assert made.shape == base.shape and made.dtype == np.uint8
    assert psnr(made, base) > psnr(open_upscaler("bicubic")(stored), base) + 1.0


def test_it_finds_the_filter_that_made_the_pictures():
    rng = np.random.default_rng(3)
    pairs = []
    for _ in range(8):
        stored = rng.integers(20, 200, (80, 80, 3), dtype=np.uint8)
        # Every sub-pixel: its stored pixel and the one to its right, and a constant; red also gets a part of blue.
        right = np.roll(stored, -1, axis=1).astype(float)
        mixed = 0.75 * stored + 0.25 * right + 7.0
        mixed[..., 0] += 0.1 * stored[..., 2]
        pairs.append((stored, np.clip(np.rint(mixed), 0, 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)))
    upsampler = fit_linear(pairs)
    taps = upsampler.weights[1, 0, 0]
    assert taps[4, 4] == pytest.approx([0.75, 0, 0.1], abs=0.01)
    assert taps[4, 5] == pytest.approx([0.25, 0, 0], abs=0.01)
    assert upsampler.constants == pytest.approx(np.full((2, 2, 3), 7.0), abs=1.0)
    stored, base = pairs[0]
    assert np.abs(upsampler(stored)[20:140, 20:140].astype(int) - base[20:140, 20:140]).max() <= 1


def test_a_constant_picture_stays_itself_and_any_size_is_taken():
    upsampler = fit_linear((halve_pixels(base), base) for base in map(base_picture, range(4)))
    assert upsampler(np.full((1, 3, 3), 128, np.uint8)) == pytest.approx(np.full((2, 6, 3), 128), abs=2)


def test_pictures_smaller_than_the_window_are_refused():
    with pytest.raises(BadRequestError, match="at least 9 stored pixels"):
        fit_linear([(np.zeros((8, 20, 3), np.uint8), np.zeros((16, 40, 3), np.uint8))])
