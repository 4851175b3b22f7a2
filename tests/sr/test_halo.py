"""Halos: what the layers allow is exact, what pictures need is found, and tiles of that network show no seam."""

import cv2
import numpy as np
import pytest

from tests.sr.networks import tissue, write_model
from wsi_ml.errors import BadRequestError
from wsi_ml.sr.halo import HaloReport, joined, measure_halo, random_pictures, receptive_radius
from wsi_ml.sr.upscaler import open_upscaler


@pytest.mark.parametrize(
    ("architecture", "config", "radius"),
    [
        # sr-fast: one px a 3×3 convolution. msrresnet: 1 + 2 a block + 1 at ×20, two at ×40.
        ("sr-fast", {}, 10),
        ("sr-fast", {"layers": 3, "channels": 8}, 5),
        ("msrresnet", {}, 35),
        ("msrresnet", {"blocks": 2}, 7),
        # RRDB at ×2: two px a convolution of the folded picture, 15 in a block, and five for ends and decoder.
        ("sr-joint", {"blocks": 1}, 38),
        ("sr-joint", {"blocks": 4}, 128),
        ("sr-joint", {}, 458),
        ("rrdb-plain", {}, 68),
    ],
)
def test_the_receptive_radius_follows_from_the_layers(architecture, config, radius):
    assert receptive_radius(architecture, config) == radius


def test_an_unknown_architecture_is_refused():
    with pytest.raises(BadRequestError, match="no architecture 'sr-slow'"):
        receptive_radius("sr-slow", {})


def blur(reach):
    """Doubles after a box blur over `reach` px on each side: needs exactly that halo. Sums of integers are exact."""
    side = 2 * reach + 1

    def upscale(rgb):
        sums = cv2.boxFilter(rgb.astype(np.float64), -1, (side, side), normalize=False, borderType=cv2.BORDER_REPLICATE)
        return (sums // side**2).astype(np.uint8).repeat(2, 0).repeat(2, 1)

    return upscale


@pytest.mark.parametrize(("reach", "halo"), [(3, 8), (8, 8), (9, 16), (17, 24)])
def test_the_smallest_multiple_of_eight_that_is_enough_is_found(reach, halo):
    pictures = random_pictures(2, 72)
    report = measure_halo(blur(reach), pictures, 64, side=32, most=32, tolerance=0)
    assert (report.halo, report.theory, report.pictures) == (halo, 64, 2)
    found = dict(report.differences)
    assert found[halo] == 0 and all(difference > 0 for tried, difference in found.items() if tried < halo)


def test_a_halo_that_would_be_too_large_and_pictures_without_a_seam_are_refused():
    with pytest.raises(BadRequestError, match="A halo of 8 px is not enough"):
        measure_halo(blur(15), random_pictures(1, 64), 64, side=32, most=8)
    with pytest.raises(BadRequestError, match="larger than a tile of 256 px"):
        measure_halo(blur(1), random_pictures(1, 256), 8)


def test_the_recommended_halo_is_a_quarter_wider_and_never_beyond_the_theory():
    assert [HaloReport(halo, 458, (), 1).recommended for halo in (8, 16, 32, 48, 64)] == [16, 24, 40, 64, 80]
    assert HaloReport(8, 8, (), 1).recommended == 8
    assert HaloReport(40, 38, (), 1).recommended == 40
    assert HaloReport(16, 128, ((8, 2), (16, 1)), 3).to_json()["differences"] == [[8, 2], [16, 1]]


def test_a_random_joint_network_needs_far_less_than_its_layers_allow(tmp_path):
    card = write_model(tmp_path, "net", "sr-joint", {"channels": 16, "growth": 8, "blocks": 3})
    upscaler = open_upscaler(tmp_path / "net.json", "cpu")
    pictures = [tissue(104, 104), *random_pictures(1, 104)]
    report = measure_halo(upscaler, pictures, receptive_radius("sr-joint", card.config), side=56)
    assert report.theory == 98 and report.halo <= 48
    assert np.abs(joined(upscaler, pictures[1], 56, report.halo).astype(int) - upscaler(pictures[1])).max() <= 1


def test_random_pictures_are_the_same_every_time_and_of_several_grains():
    pictures = random_pictures(3, 50, seed=4)
    assert all(np.array_equal(one, other) for one, other in zip(pictures, random_pictures(3, 50, seed=4), strict=True))
    assert [len(np.unique(each[:16, 0, 0])) for each in pictures][1:] == [4, 1]
    assert {each.shape for each in pictures} == {(50, 50, 3)}
