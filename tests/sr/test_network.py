"""Every architecture that enlarges ×2 runs under one contract: any size, exact borders, fp32, bf16, fp16 files."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.sr.networks import SMALL, lively_network, picture_of, tissue, write_model
from wsi_ml.errors import ModelOutputError, ModelUnavailableError
from wsi_ml.models import build
from wsi_ml.models.rrdb import start_as_bilinear
from wsi_ml.sr.halo import joined
from wsi_ml.sr.network import NetworkUpscaler, prepare_rgb, upscale_rgb
from wsi_ml.sr.upscaler import open_upscaler

RGB_NETWORKS = [name for name in SMALL if name != "sr-fast"]


@pytest.fixture(params=RGB_NETWORKS)
def architecture(request):
    return request.param


def opened(folder, card, dtype=torch.float32):
    return NetworkUpscaler(card, folder / card.weights, "cpu", dtype)


def test_the_picture_is_the_networks_rounded_and_clamped(tmp_path, architecture):
    made = opened(tmp_path, write_model(tmp_path, "net", architecture))(tissue(24, 32))
    with torch.inference_mode():
        pixels = torch.from_numpy(tissue(24, 32)).permute(2, 0, 1)[None].float() / 255
        picture = picture_of(lively_network(architecture, SMALL[architecture]), pixels)[0].permute(1, 2, 0)
        wanted = (picture * 255).round().clamp(0, 255).numpy().astype(np.uint8)
    assert made.std() > 20
    # Channels last sums in another order: a value may fall on the other side of a half.
    difference = np.abs(made.astype(int) - wanted)
    assert difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 2), (17, 31)])
def test_any_size_doubles(tmp_path, architecture, size):
    made = opened(tmp_path, write_model(tmp_path, "net", architecture))(tissue(*size))
    assert made.shape == (2 * size[0], 2 * size[1], 3) and made.dtype == np.uint8


@pytest.mark.parametrize("architecture", ["sr-joint", "esrgan", "rrdb-plain"])
def test_an_odd_side_is_padded_by_its_border(tmp_path, architecture):
    upscaler = opened(tmp_path, write_model(tmp_path, "net", architecture))
    odd = tissue(15, 23)
    padded = np.pad(odd, ((0, 1), (0, 1), (0, 0)), mode="edge")
    assert np.array_equal(upscaler(odd), upscaler(padded)[:30, :46])


def test_bf16_stays_within_one_grey_level_of_fp32(tmp_path, architecture):
    card = write_model(tmp_path, "net", architecture)
    stored = tissue(72, 64)
    difference = np.abs(opened(tmp_path, card, torch.bfloat16)(stored).astype(int) - opened(tmp_path, card)(stored))
    assert difference.max() <= 1 and difference.mean() < 0.1


def test_bf16_costs_a_network_that_carries_the_picture_next_to_nothing():
    """Enlarging begins as bilinear, pixels in the features: an error of 0.1 grey levels² is 0.03 dB at 36 dB."""
    torch.manual_seed(0)
    model = build("sr-joint", channels=16, growth=8, blocks=2, pixel_shuffle=True).eval()
    start_as_bilinear(model)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.add_(torch.randn_like(layer.weight) * 0.1 * layer.weight.std())
    rgb = torch.from_numpy(tissue(64, 64))[None]
    exact = upscale_rgb(model, rgb).numpy().astype(int)
    made = upscale_rgb(prepare_rgb(model, torch.device("cpu"), torch.bfloat16), rgb).numpy()
    assert exact.std() > 20 and np.square(made - exact).mean() < 0.1 and np.abs(made - exact).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joined_tiles_equal_one_pass_within_one_grey_level(tmp_path, architecture, dtype):
    upscaler = opened(tmp_path, write_model(tmp_path, "net", architecture), dtype)
    stored = tissue(101, 135)
    difference = np.abs(joined(upscaler, stored, 64, 32).astype(int) - upscaler(stored))
    assert difference.max() <= 1


def test_half_precision_files_run_as_fp32(tmp_path, architecture):
    whole = opened(tmp_path / "32", write_model(tmp_path / "32", "net", architecture))
    half = opened(tmp_path / "16", write_model(tmp_path / "16", "net", architecture, half=True))
    assert (tmp_path / "16" / "net.safetensors").stat().st_size < 0.6 * (
        tmp_path / "32" / "net.safetensors"
    ).stat().st_size
    assert {tensor.dtype for tensor in half.model.parameters()} == {torch.float32}
    difference = np.abs(half(tissue(40, 40)).astype(int) - whole(tissue(40, 40)))
    assert difference.max() <= 2 and difference.mean() < 0.3


def test_a_batch_equals_single_calls(tmp_path):
    upscaler = open_upscaler(tmp_path / f"{write_model(tmp_path, 'net').name}.json", "cpu")
    tiles = [tissue(20, 24, 1), tissue(9, 33, 2), tissue(20, 24, 3)]
    for tile, made in zip(tiles, upscaler.batch(tiles), strict=True):
        assert np.array_equal(made, upscaler(tile))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_numbers_are_never_returned(tmp_path, value):
    upscaler = opened(tmp_path, write_model(tmp_path, "net"))
    with torch.no_grad():
        upscaler.model.conv_last.bias[1] = value
    with pytest.raises(ModelOutputError, match="NaN or infinite"):
        upscaler(tissue(16, 16))


def test_a_network_that_does_not_enlarge_twice_is_refused_by_name(tmp_path):
    for architecture, config in (
        ("msrresnet", {"channels": 8, "blocks": 1, "scale": 4}),
        ("esrgan", {"channels": 8, "growth": 4, "blocks": 1, "scale": 4}),
    ):
        card = write_model(tmp_path, "four", architecture, config)
        with pytest.raises(ModelUnavailableError, match="four cannot be run as an upscaler"):
            opened(tmp_path, card)
