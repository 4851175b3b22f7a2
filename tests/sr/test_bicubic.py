"""Bicubic: OpenCV's pixels, its declared halo, and no torch anywhere on the way."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from wsi_ml.sr import open_upscaler
from wsi_ml.sr.bicubic import DEFINITION, definition_sha256

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of torch now fails
import numpy as np
from wsi_ml.sr import available_upscalers, open_upscaler
made = open_upscaler("bicubic")(np.full((3, 5, 3), 77, np.uint8))
assert made.shape == (6, 10, 3) and (made == 77).all()
print([card.name for card in available_upscalers()])
"""


def picture(height=40, width=31, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pixels_are_those_of_opencv():
    rgb = picture()
    made = open_upscaler("bicubic")(rgb)
    assert np.array_equal(made, cv2.resize(rgb, (62, 80), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 1), (2, 3)])
def test_any_size_doubles(size):
    made = open_upscaler("bicubic")(picture(*size))
    assert made.shape == (2 * size[0], 2 * size[1], 3) and made.dtype == np.uint8


def test_a_region_grown_by_the_halo_and_cropped_equals_one_pass():
    rgb, upscaler = picture(), open_upscaler("bicubic")
    halo, (top, left, side) = upscaler.card.halo, (11, 9, 12)
    grown = rgb[top - halo : top + side + halo, left - halo : left + side + halo]
    cropped = upscaler(grown)[2 * halo : 2 * (halo + side), 2 * halo : 2 * (halo + side)]
    whole = upscaler(rgb)[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
    assert np.abs(cropped.astype(int) - whole).max() <= 1


def test_a_batch_is_each_picture_by_itself():
    tiles = [picture(4, 6, 1), picture(5, 3, 2)]
    upscaler = open_upscaler("bicubic")
    for tile, made in zip(tiles, upscaler.batch(tiles), strict=True):
        assert np.array_equal(made, upscaler(tile))


def test_the_card_names_the_definition_and_its_hash():
    card = open_upscaler("bicubic").card
    assert (card.kind, card.scale, card.parameters, card.notes) == ("bicubic", 2, 0, DEFINITION)
    assert card.sha256 == definition_sha256() and len(card.sha256) == 64


def test_bicubic_and_the_cards_need_no_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['bicubic', 'sr-fast', 'sr-joint']"
