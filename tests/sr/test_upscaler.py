"""The network upscaler keeps the contract: any size, no seams, nothing damaged is used, nothing false is returned."""

import json
import shutil

import numpy as np
import pytest
import torch

from wsi_ml.data.pairs import slide_pairs
from wsi_ml.errors import ModelOutputError, ModelUnavailableError
from wsi_ml.geometry import Region, Size, grow
from wsi_ml.sr import available_upscalers, open_upscaler
from wsi_ml.sr.network import NetworkUpscaler, fastest_type
from wsi_ml.sr.scores import lanczos, score
from wsi_ml.sr.upscaler import WEIGHTS_FOLDER, card_from_json, read_card

ONE_GREY_LEVEL = 1


@pytest.fixture(scope="module")
def sr_fast():
    return open_upscaler("sr-fast")


@pytest.fixture(scope="module")
def sr_fast_fp32():
    card = read_card(WEIGHTS_FOLDER / "sr-fast.json")
    return NetworkUpscaler(card, WEIGHTS_FOLDER / card.weights, torch.device("cpu"), torch.float32)


@pytest.fixture
def copied(tmp_path):
    for name in ("sr-fast.json", "sr-fast.safetensors"):
        shutil.copyfile(WEIGHTS_FOLDER / name, tmp_path / name)
    return tmp_path


def tissue(height, width, seed=0):
    """Blobs and fine grain in H&E-like colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 3.1 + rng.random()) * np.cos(y / 2.7 + rng.random()) + np.sin((x + 2 * y) / 9.0)
    base = np.stack([190 + 25 * waves, 140 + 35 * waves, 190 + 15 * waves], axis=-1)
    return np.clip(base + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8)


def joined(upscaler, stored, side):
    """Every tile by itself, grown by the halo and clipped at the edge as the tile maker does, put together."""
    size = Size(stored.shape[1], stored.shape[0])
    whole = np.zeros((2 * size.height, 2 * size.width, 3), np.uint8)
    for y in range(0, size.height, side):
        for x in range(0, size.width, side):
            core = Region(x, y, min(side, size.width - x), min(side, size.height - y))
            grown = grow(core, upscaler.card.halo, size)
            made = upscaler(np.ascontiguousarray(stored[grown.y : grown.y_end, grown.x : grown.x_end]))
            top, left = 2 * (core.y - grown.y), 2 * (core.x - grown.x)
            tile = made[top : top + 2 * core.height, left : left + 2 * core.width]
            whole[2 * core.y : 2 * core.y_end, 2 * core.x : 2 * core.x_end] = tile
    return whole


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 2), (17, 31), (64, 48)])
def test_any_size_doubles(sr_fast, size):
    made = sr_fast(tissue(*size))
    assert made.shape == (2 * size[0], 2 * size[1], 3) and made.dtype == np.uint8


@pytest.mark.parametrize(("height", "width", "side"), [(96, 80, 32), (101, 67, 32), (40, 129, 64)])
def test_joined_tiles_equal_one_pass_within_one_grey_level(sr_fast, height, width, side):
    stored = tissue(height, width)
    difference = np.abs(joined(sr_fast, stored, side).astype(int) - sr_fast(stored))
    assert difference.max() <= ONE_GREY_LEVEL


def test_a_halo_one_pixel_short_is_seen(sr_fast_fp32):
    """The declared halo is no wider than needed: the outermost pixel of it can change the tile."""
    halo, side = sr_fast_fp32.card.halo, 9
    stored = tissue(side + 2 * halo, side + 2 * halo)
    changed = stored.copy()
    changed[0] = 255 - changed[0]
    core = slice(halo, halo + side)
    pictures = [
        sr_fast_fp32.model.phases(torch.from_numpy(rgb)[None].permute(0, 3, 1, 2).float())[0, core, core]
        for rgb in (stored, changed)
    ]
    difference = (pictures[0] - pictures[1]).abs().amax(dim=(1, 2))
    assert difference[0] > 0 and torch.all(difference[1:] == 0)


def test_the_fast_number_format_agrees_with_fp32(sr_fast, sr_fast_fp32):
    stored = tissue(90, 70)
    difference = np.abs(sr_fast(stored).astype(int) - sr_fast_fp32(stored))
    assert difference.max() <= 3 and difference.mean() < 0.3


def test_a_batch_of_mixed_sizes_equals_single_calls(sr_fast):
    tiles = [tissue(20, 24, 1), tissue(9, 33, 2), tissue(20, 24, 3)]
    for tile, made in zip(tiles, sr_fast.batch(tiles), strict=True):
        assert np.abs(made.astype(int) - sr_fast(tile)).max() <= ONE_GREY_LEVEL


def test_a_read_only_or_strided_picture_is_taken_as_it_is(sr_fast):
    stored = tissue(24, 24)
    wanted = sr_fast(stored)
    stored.setflags(write=False)
    assert np.array_equal(sr_fast(stored), wanted)
    assert np.array_equal(sr_fast(np.asfortranarray(stored)), wanted)
    assert np.array_equal(sr_fast(np.flip(np.flip(stored, 0).copy(), 0)), wanted)


def test_glass_stays_glass(sr_fast):
    made = sr_fast(np.full((40, 40, 3), 243, np.uint8))
    assert np.abs(made.astype(int) - 243).max() <= 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_numbers_are_never_returned(value):
    upscaler = open_upscaler("sr-fast")
    with torch.no_grad():
        upscaler.model.last.bias[3] = value
    with pytest.raises(ModelOutputError, match="NaN or infinite"):
        upscaler(tissue(16, 16))


def test_a_constant_picture_of_tissue_is_never_returned():
    upscaler = open_upscaler("sr-fast")
    with torch.no_grad():
        upscaler.model.last.bias.fill_(1000.0)
    with pytest.raises(ModelOutputError, match="one colour"):
        upscaler(tissue(16, 16))


def test_damaged_weights_are_refused_by_name(copied):
    file = copied / "sr-fast.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)
    with pytest.raises(ModelUnavailableError, match=r"sr-fast\.safetensors are damaged"):
        open_upscaler(copied / "sr-fast.json")


def test_truncated_and_missing_weights_are_refused_by_name(copied):
    file = copied / "sr-fast.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelUnavailableError, match=r"sr-fast\.safetensors"):
        open_upscaler(copied / "sr-fast.json")
    file.unlink()
    with pytest.raises(ModelUnavailableError, match=r"sr-fast\.safetensors cannot be read"):
        open_upscaler(copied / "sr-fast.json")
    assert [card.name for card in available_upscalers(shipped=copied)] == ["bicubic"]


def test_a_card_that_is_no_card_is_refused_by_name(copied):
    (copied / "sr-fast.json").write_text("[]")
    with pytest.raises(ModelUnavailableError, match=r"sr-fast\.json"):
        open_upscaler(copied / "sr-fast.json")


def test_weights_may_be_named_in_place_of_the_card(copied):
    assert open_upscaler(copied / "sr-fast.safetensors").card == open_upscaler("sr-fast").card


@pytest.mark.parametrize("name", ["sr-slow", "../weights/sr-fast", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(ModelUnavailableError, match="there are bicubic, sr-fast"):
        open_upscaler(name)


def test_the_shipped_card_says_what_a_caller_must_know():
    card = read_card(WEIGHTS_FOLDER / "sr-fast.json")
    assert (card.kind, card.scale, card.halo, card.multiple) == ("sr", 2, 10, 1)
    assert card.mpp_range[0] < 0.5 < card.mpp_range[1]
    assert 100_000 <= card.parameters <= 300_000
    assert "kernel" in card.degradation and {"jpeg", "jpeg_quality"} & set(card.degradation)
    assert all({"set", "licence", "credit", "slides"} <= set(facts) for facts in card.data)
    assert {"commit", "steps", "stages"} <= set(card.training)
    assert card_from_json(json.loads(json.dumps(card.to_json()))) == card
    text = (WEIGHTS_FOLDER / "sr-fast.json").read_text()
    assert "/work" not in text and "/home" not in text and "../" not in text


def test_the_shipped_weights_beat_bicubic_and_lanczos_on_every_held_out_slide():
    card = read_card(WEIGHTS_FOLDER / "sr-fast.json")
    trained = {slide for facts in card.data for slide in facts["slides"]}
    assert len(card.scores) >= 2
    for row in card.scores:
        assert row["slide"] not in trained
        for other in ("bicubic", "lanczos"):
            assert row["sr-fast"]["psnr"] > row[other]["psnr"] and row["sr-fast"]["ssim"] > row[other]["ssim"]


def test_scores_in_the_card_are_those_of_the_weights(sr_fast, shared_data):
    """Two tiles of a held-out slide: the gain over bicubic and Lanczos is there."""
    pairs = slide_pairs(shared_data, sr_fast.card.scores[0]["slide"], 2)
    made, plain, other = score(sr_fast, pairs), score(open_upscaler("bicubic"), pairs), score(lanczos, pairs)
    assert made.psnr > max(plain.psnr, other.psnr) + 0.5
    assert made.ssim > max(plain.ssim, other.ssim) + 0.003


def test_the_number_format_follows_the_machine():
    assert fastest_type(torch.device("cpu")) in (torch.bfloat16, torch.float32)
