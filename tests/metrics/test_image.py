"""PSNR and SSIM against their definitions, written out slowly."""

import numpy as np
import pytest

from wsi_ml.metrics.image import C1, C2, luma, psnr, psnr_luma, ssim, ssim_gaussian, ssim_luma


def pictures(seed=0, side=20):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
    noisy = np.clip(truth.astype(int) + rng.integers(-20, 21, truth.shape), 0, 255).astype(np.uint8)
    return noisy, truth


def slow_ssim(picture, truth, weights, correction):
    side = len(weights)
    values = []
    for colour in range(3):
        for y in range(picture.shape[0] - side + 1):
            for x in range(picture.shape[1] - side + 1):
                a = picture[y : y + side, x : x + side, colour].astype(float)
                b = truth[y : y + side, x : x + side, colour].astype(float)
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a = correction * (weights * (a - mean_a) ** 2).sum()
                var_b = correction * (weights * (b - mean_b) ** 2).sum()
                cov = correction * (weights * (a - mean_a) * (b - mean_b)).sum()
                top = (2 * mean_a * mean_b + C1) * (2 * cov + C2)
                values.append(top / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2)))
    return float(np.mean(values))


def test_psnr_of_a_difference_of_one_everywhere_is_48_13_db():
    truth = np.full((4, 5, 3), 100, np.uint8)
    assert psnr(truth + np.uint8(1), truth) == pytest.approx(20 * np.log10(255))


def test_psnr_counts_one_wrong_colour_of_three():
    truth = np.zeros((2, 2, 3), np.uint8)
    picture = truth.copy()
    picture[..., 0] = 255
    assert psnr(picture, truth) == pytest.approx(10 * np.log10(3))


def test_psnr_of_equal_pictures_is_infinite_and_shapes_must_agree():
    picture, _ = pictures()
    assert psnr(picture, picture) == float("inf")
    with pytest.raises(ValueError, match=r"\(20, 23, 3\)"):
        psnr(picture, picture[:3])


def test_psnr_luma_weighs_green_most():
    truth = np.zeros((2, 2, 3), np.uint8)
    errors = []
    for colour in range(3):
        picture = truth.copy()
        picture[..., colour] = 10
        errors.append(psnr_luma(picture, truth))
    assert errors[1] < errors[0] < errors[2]


def test_ssim_is_the_mean_over_7x7_windows_with_sample_variance():
    picture, truth = pictures()
    assert ssim(picture, truth) == pytest.approx(slow_ssim(picture, truth, np.full((7, 7), 1 / 49), 49 / 48), abs=1e-9)


def test_ssim_gaussian_is_the_mean_over_11x11_windows_of_sigma_1_5():
    picture, truth = pictures(1)
    line = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    window = np.outer(line, line) / np.outer(line, line).sum()
    assert ssim_gaussian(picture, truth) == pytest.approx(slow_ssim(picture, truth, window, 1.0), abs=1e-9)


def test_ssim_of_equal_pictures_is_one_and_small_pictures_are_refused():
    picture, truth = pictures()
    assert ssim(truth, truth) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 7 px"):
        ssim(picture[:6], truth[:6])


def test_ssim_luma_is_the_gaussian_ssim_of_the_luma():
    picture, truth = pictures(2)
    assert luma(np.full((1, 1, 3), 255, np.uint8))[0, 0] == pytest.approx(235)
    grey = ssim_gaussian(np.repeat(luma(picture)[..., None], 3, 2), np.repeat(luma(truth)[..., None], 3, 2))
    assert ssim_luma(picture, truth) == pytest.approx(grey)
    assert ssim_luma(truth, truth) == pytest.approx(1.0)
