"""The store's JPEG: equal steps, whole colour, the same pixels whatever the codes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.slides.make_slides import picture
from wsi_ml.slides.codec import STORE_STEPS, decode_jpeg, encode, encode_jpeg, encode_steps, steps_text


def test_a_stored_tile_is_baseline_jpeg_with_equal_steps_and_whole_colour():
    data = encode_steps(picture(128, 96))
    with Image.open(io.BytesIO(data)) as file:
        assert file.size == (128, 96)
        assert file.quantization == {0: [5] * 64, 1: [7] * 64}
        assert [layer[1:3] for layer in file.layer] == [(1, 1), (1, 1), (1, 1)]
        assert "progression" not in file.info
    assert data.startswith(b"\xff\xd8")
    assert data.endswith(b"\xff\xd9")
    assert STORE_STEPS == (5, 7)
    assert steps_text() == "JPEG steps 5/7 4:4:4"
    assert steps_text((8, 12), "420") == "JPEG steps 8/12 4:2:0"


def test_fitted_codes_change_the_bytes_and_not_the_pixels():
    rgb = picture(256, 256)
    plain, fitted = encode_steps(rgb), encode_steps(rgb, optimize=True)
    assert len(fitted) < len(plain)
    assert np.array_equal(decode_jpeg(plain), decode_jpeg(fitted))


def test_every_frequency_is_kept_alike():
    """The highest frequency of a block, three grey levels strong: 10 in steps of 5, nothing in steps of 30."""
    wave = np.cos((2 * np.arange(64) + 1) * 7 * np.pi / 16)
    rgb = np.repeat(np.round(128 + 3 * np.outer(wave, wave)).astype(np.uint8)[..., None], 3, -1)
    assert np.ptp(rgb) == 6
    assert np.abs(decode_jpeg(encode_steps(rgb)).astype(int) - rgb).max() <= 1
    assert np.ptp(decode_jpeg(encode_jpeg(rgb, 85))) <= 1


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_steps_and_subsampling_are_as_asked(subsampling):
    with Image.open(io.BytesIO(encode_steps(picture(64, 64), (3, 20), subsampling))) as file:
        assert file.quantization == {0: [3] * 64, 1: [20] * 64}
        assert file.layer[0][1:3] == {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[subsampling]


def test_what_is_made_for_an_answer_keeps_the_tables_of_annex_k():
    with Image.open(io.BytesIO(encode(picture(64, 64), "jpg"))) as file:
        assert file.layer[0][1:3] == (2, 2)
        assert file.quantization[0][:4] == [2, 1, 1, 2]
