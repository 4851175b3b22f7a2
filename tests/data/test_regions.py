"""Weights, random and dense places, and the brightness gate, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from wsi_ml.data.entropy import brightness_entropy, passes_brightness_gate
from wsi_ml.data.regions import check_region, dense_places, inside, patches_in, random_places, region_weights
from wsi_ml.errors import BadRequestError, RegionTooSmallError
from wsi_ml.geometry import Size

SLIDE = Size(1000, 800)


@pytest.mark.parametrize(
    ("coefficient", "expected"),
    [
        # areas 1, 2, 5: by area 1/8, 2/8, 5/8; by inverse area 10/17, 5/17, 2/17
        (1.0, (0.125, 0.25, 0.625)),
        (0.0, (1 / 3, 1 / 3, 1 / 3)),
        (0.3, (0.7 / 3 + 0.0375, 0.7 / 3 + 0.075, 0.7 / 3 + 0.1875)),
        (-1.0, (10 / 17, 5 / 17, 2 / 17)),
        (-0.5, (0.5 / 3 + 5 / 17, 0.5 / 3 + 2.5 / 17, 0.5 / 3 + 1 / 17)),
    ],
)
def test_region_weights(coefficient, expected):
    assert region_weights([1, 2, 5], coefficient) == pytest.approx(expected)
    assert region_weights([7], coefficient) == pytest.approx([1])


@pytest.mark.parametrize(("areas", "coefficient"), [([], 0), ([1, 0], 0), ([1, np.inf], 0), ([1], 1.1), ([1], -1.1)])
def test_weights_that_cannot_be(areas, coefficient):
    with pytest.raises(BadRequestError):
        region_weights(areas, coefficient)


def test_acceptance_is_strict():
    region = shapely.box(0, 0, 100, 100)
    assert inside(region, 24.9, 0, 100, 0.75) and not inside(region, 25, 0, 100, 0.75)  # 7500 of 10000 is not more
    assert inside(region, 0, 0, 100, 0.99) and not inside(region, 0, 0, 100, 1.0)
    assert not inside(region, 100, 0, 100, 0.0)  # only an edge in common


def test_random_places_are_inside_and_reach_everywhere():
    region = shapely.Polygon([(100, 100), (500, 100), (500, 500), (300, 500), (300, 300), (100, 300)])
    places = random_places(region, SLIDE, 40, 400, np.random.default_rng(0), 0.75)
    shares = [region.intersection(shapely.box(x, y, x + 40, y + 40)).area / 1600 for x, y in places]
    assert min(shares) > 0.75 and min(shares) < 0.85
    assert min(x for x, _ in places) < 100 and max(x for x, _ in places) > 460  # they may hang out at either side
    assert places == random_places(region, SLIDE, 40, 400, np.random.default_rng(0), 0.75)


def test_random_places_stay_on_the_slide():
    region = shapely.box(-2, -2, 1002, 802)
    places = random_places(region, SLIDE, 300, 100, np.random.default_rng(1), 0.7)
    assert all(0 <= x <= 700 and 0 <= y <= 500 for x, y in places)


def test_regions_too_small():
    rng = np.random.default_rng(0)
    with pytest.raises(RegionTooSmallError, match=r"region of AT is too small: it covers 7400 px² and a patch of 100"):
        random_places(shapely.box(0, 0, 100, 74), SLIDE, 100, 1, rng, 0.75, "region of AT")
    check_region(shapely.box(0, 0, 100, 75), 100, 0.75, "region")  # just as large
    with pytest.raises(RegionTooSmallError, match=r"holds no patch of 100 px .* \(500 random places tried"):
        strip = shapely.Polygon([(0, 0), (20, 0), (800, 780), (800, 800), (780, 800), (0, 20)])
        random_places(strip, SLIDE, 100, 1, rng, 0.75)  # area enough, but nowhere wide enough
    with pytest.raises(RegionTooSmallError, match=r"\(0 random places tried"):
        random_places(shapely.box(0, 0, 900, 20), SLIDE, 100, 1, rng, 0.75)  # its box says so at once
    with pytest.raises(RegionTooSmallError):
        random_places(shapely.box(0, 0, 50, 50), Size(60, 60), 61, 1, rng, 0.5)  # the slide itself is too small


def test_dense_grid():
    region = shapely.box(10, 20, 130, 100)
    expected = [(x, y) for y in (20, 60) for x in (10, 50, 90)]
    assert dense_places(region, SLIDE, 40, 40, 0.95) == expected
    assert dense_places(region, SLIDE, 40, 20, 0.95) == [
        (x, y) for y in (20, 40, 60) for x in (10, 30, 50, 70, 90)
    ]  # fmt: skip
    assert dense_places(region, SLIDE, 60, 60, 0.75) == [(10, 20), (70, 20)]
    # the last place on the slide is left out: range(…, size − side)
    assert dense_places(shapely.box(0, 0, 80, 80), Size(80, 80), 40, 40, 0.75) == [(0, 0)]
    assert dense_places(shapely.box(0, 0, 30, 30), SLIDE, 40, 40) == []
    with pytest.raises(BadRequestError, match="stride is 0"):
        dense_places(region, SLIDE, 40, 0)


def test_length_of_a_data_set():
    # 224 stored px are 448 px of layer 1: Σ area / (patch · layer)².
    assert patches_in([shapely.box(0, 0, 2240, 448), shapely.box(0, 0, 224, 224)], 224) == 21.0


def flat(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_brightness_entropy_values():
    assert brightness_entropy(flat(0)) == 0.0
    assert brightness_entropy(flat(255)) == pytest.approx(-np.log2(1.001))
    p = 128 / 255
    assert brightness_entropy(flat(128)) == pytest.approx(-p * np.log2(p + 0.001))
    rgb = np.random.default_rng(0).integers(0, 256, (33, 17, 3), dtype=np.uint8)
    p = rgb.astype(float).mean(2) / 255
    assert brightness_entropy(rgb) == pytest.approx(-(p * np.log2(p + 0.001)).mean())
    # Where the pixels lie does not matter, and one grey may have more of it than all greys together.
    shuffled = np.random.default_rng(1).permutation(rgb.reshape(-1, 3)).reshape(rgb.shape)
    assert brightness_entropy(rgb) == pytest.approx(brightness_entropy(shuffled))
    assert brightness_entropy(flat(94)) > 0.52 > brightness_entropy(rgb)


def test_gate_on_flat_patches():
    kept = [value for value in range(256) if passes_brightness_gate(flat(value))]
    assert kept == list(range(12, 217))  # 0.0450 < p < 0.8482

    def by_p(p):
        return -p * np.log2(p + 0.001) > 0.2

    assert by_p(0.0451) and not by_p(0.0450) and by_p(0.8482) and not by_p(0.8483)
