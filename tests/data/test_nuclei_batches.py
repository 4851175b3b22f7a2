"""Batches of nuclei: repeatable, scaled as asked, dye measured and laid over other tissue."""

import numpy as np
import pytest

from wsi_ml.data import nuclei_stain
from wsi_ml.data.nuclei import NucleiPicture
from wsi_ml.data.nuclei_batches import NucleiBatchConfig, NucleiSampler, cut_scaled

GROUND, NUCLEUS = (180, 160, 205), (110, 60, 190)


def disc_picture(name="disc", side=96, radius=10):
    """Violet discs on a violet ground, 32 px apart."""
    rows, columns = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for number, (y, x) in enumerate(
        ((16 + 32 * i, 16 + 32 * j) for i in range(side // 32) for j in range(side // 32)), start=1
    ):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    rgb = np.where((labels > 0)[..., None], np.uint8(NUCLEUS), np.uint8(GROUND))
    return NucleiPicture(name, rgb, labels)


def test_dye_is_zero_on_the_ground_and_one_in_nuclei():
    picture = disc_picture()
    dye = nuclei_stain.measure_dye(picture.rgb, picture.labels > 0).amount(picture.rgb)
    assert dye[picture.labels > 0] == pytest.approx(1.0, abs=1e-5)
    assert dye[picture.labels == 0] == pytest.approx(0.0, abs=1e-5)


def test_density_and_pixels_are_each_other_s_inverse():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    assert np.abs(nuclei_stain.to_pixels(nuclei_stain.to_density(grey)).astype(int) - grey).max() <= 1


def test_a_varied_stain_keeps_its_sum():
    varied = nuclei_stain.vary(np.random.default_rng(1), nuclei_stain.EOSIN)
    assert varied.sum() == pytest.approx(nuclei_stain.EOSIN.sum(), rel=1e-5)
    assert not np.allclose(varied, nuclei_stain.EOSIN)


def test_stained_nuclei_are_darker_than_the_ground_they_lie_on():
    picture, rng = disc_picture(), np.random.default_rng(2)
    dye = nuclei_stain.measure_dye(picture.rgb, picture.labels > 0).amount(picture.rgb)
    density = nuclei_stain.stain(dye, np.zeros((*dye.shape, 3), np.float32), rng)
    assert density[picture.labels > 0].min() > 0.1 and density[picture.labels == 0].max() < 1e-4


@pytest.mark.parametrize("draw", [nuclei_stain.add_red_cells, nuclei_stain.add_dirt])
def test_clutter_spares_nuclei(draw):
    free = np.ones((64, 64), np.float32)
    free[20:40, 20:40] = 0
    touched = False
    for seed in range(12):
        density = np.full((64, 64, 3), 0.2, np.float32)
        draw(density, free, np.random.default_rng(seed))
        assert (density[20:40, 20:40] == np.float32(0.2)).all()
        touched |= bool(np.abs(density - 0.2).max() > 0.2)
    assert touched


def test_drawn_grounds_are_finite_and_never_lighter_than_glass():
    rng = np.random.default_rng(4)
    for keratin in (0.0, 1.0) * 6:
        ground = nuclei_stain.draw_ground(rng, (48, 40), keratin)
        assert ground.shape == (48, 40, 3) and np.isfinite(ground).all() and ground.min() > -0.5


def test_scaling_scales_nuclei():
    picture = disc_picture(side=160, radius=10)
    for factor in (0.5, 1.0, 2.0):
        _, labels = cut_scaled(picture, factor, 48, np.random.default_rng(3))
        areas = np.bincount(labels.ravel())[1:]
        whole = areas.max()
        assert whole <= 1.1 * np.pi * (10 * factor) ** 2
        assert labels.shape == (48, 48)


def test_a_batch_is_a_function_of_seed_and_number():
    config = NucleiBatchConfig(batch=3, side=64)
    pictures = [disc_picture("a"), disc_picture("b", radius=6)]
    first, again = (NucleiSampler(pictures, [], config, seed=8) for _ in range(2))
    one, two = first.batch(5), again.batch(5)
    assert (one.rgb == two.rgb).all() and (one.maps == two.maps).all() and (one.touching == two.touching).all()
    assert not (first.batch(6).rgb == one.rgb).all()
    assert one.rgb.shape == (3, 64, 64, 3) and one.rgb.dtype == np.uint8
    assert one.maps.shape == (3, 2, 64, 64) and one.maps.max() == 1 and one.touching.shape == (3, 64, 64)


def test_pictures_without_nuclei_are_left_out():
    empty = NucleiPicture("empty", np.full((64, 64, 3), 220, np.uint8), np.zeros((64, 64), np.int32))
    sampler = NucleiSampler([disc_picture(), empty], [], NucleiBatchConfig(batch=1, side=32), seed=1)
    assert [picture.name for picture in sampler.hand] == ["disc"]
