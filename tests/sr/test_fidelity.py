"""Fidelity is SSIM as metrics.image defines it, on the tile as it is served."""

from __future__ import annotations

import numpy as np
import pytest

from tests.slides.make_slides import picture
from wsi_ml.metrics.image import ssim
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg
from wsi_ml.sr.fidelity import fidelity, served_fidelity


def noisy(rgb: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(7, 7), (8, 300), (129, 64), (512, 512)])
@pytest.mark.parametrize("sigma", [1, 30])
def test_it_is_the_ssim_of_the_metrics(width, height, sigma):
    scan = picture(width, height, seed=3)
    assert fidelity(noisy(scan, sigma), scan) == pytest.approx(ssim(noisy(scan, sigma), scan), abs=1e-9)


def test_equal_pictures_are_1_and_the_order_does_not_matter():
    scan = picture(40, 30)
    other = noisy(scan, 20)
    assert fidelity(scan, scan) == pytest.approx(1.0, abs=1e-12)
    assert fidelity(other, scan) == pytest.approx(fidelity(scan, other), abs=1e-12)
    assert fidelity(np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)) < 0.001


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 200), (200, 6)])
def test_a_strip_narrower_than_the_window_is_repeated_at_its_edge(width, height):
    scan = picture(200, 200, seed=2)[:height, :width]
    shown = noisy(scan, 15)
    missing = ((0, max(0, 7 - height)), (0, max(0, 7 - width)), (0, 0))
    expected = ssim(np.pad(shown, missing, "edge"), np.pad(scan, missing, "edge"))
    assert fidelity(shown, scan) == pytest.approx(expected, abs=1e-9)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        fidelity(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8))


def test_what_is_compared_is_what_is_served():
    scan = picture(96, 80)
    data = encode_jpeg(noisy(scan, 4))
    assert served_fidelity(data, scan) == fidelity(decode_jpeg(data), scan) < fidelity(noisy(scan, 4), scan) + 0.2
