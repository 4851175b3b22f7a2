"""The network: shape, size, start and border behaviour."""

import cv2
import numpy as np
import pytest
import torch

from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count
from wsi_ml.models.sr_fast import SrFastConfig, bicubic_phases, interleave


def random_grey(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_input(rgb):
    return torch.from_numpy(rgb)[None].permute(0, 3, 1, 2).float()


def test_a_fresh_network_is_bicubic_interpolation():
    rgb = random_grey(17, 23)
    with torch.inference_mode():
        made = build("sr-fast").eval()(as_input(rgb))[0].permute(1, 2, 0).round().clamp(0, 255).numpy()
    wanted = cv2.resize(rgb, (46, 34), interpolation=cv2.INTER_CUBIC)
    assert np.abs(made - wanted).max() <= 1


def test_the_shipped_configuration_has_a_known_size_and_halo():
    config = SrFastConfig()
    assert (config.channels, config.layers, config.halo) == (48, 8, 10)
    inner = 8 * (48 * 48 * 9 + 48)
    assert parameter_count(build("sr-fast")) == (3 * 48 * 9 + 48) + inner + (48 * 12 * 9 + 12) + 12 * 3 * 25


def test_the_receptive_field_is_the_declared_halo():
    torch.manual_seed(1)
    model = build("sr-fast", channels=16, layers=2)
    torch.nn.init.normal_(model.last.weight, std=0.1)
    rgb = torch.full((1, 3, 21, 21), 150.0, requires_grad=True)
    model(rgb)[0, :, 20:22, 20:22].sum().backward()
    rows = rgb.grad[0].abs().sum(dim=(0, 2)).nonzero()
    assert (int(rows.min()), int(rows.max())) == (10 - 4, 10 + 4)


def test_interleave_puts_each_sub_pixel_in_its_place():
    phases = torch.arange(2 * 12).reshape(1, 1, 2, 12)
    picture = interleave(phases)
    assert picture.shape == (1, 2, 4, 3)
    assert picture[0, 0, 0].tolist() == [0, 1, 2]
    assert picture[0, 0, 1].tolist() == [3, 4, 5]
    assert picture[0, 1, 0].tolist() == [6, 7, 8]
    assert picture[0, 1, 3].tolist() == [21, 22, 23]


def test_bicubic_weights_of_every_sub_pixel_sum_to_one_per_colour():
    sums = bicubic_phases().sum(dim=(2, 3))
    assert torch.allclose(sums, torch.eye(3).repeat(4, 1), atol=1e-6)


def test_unknown_names_and_fields_are_refused_by_name():
    with pytest.raises(BadRequestError, match="'sr-slow'"):
        build("sr-slow")
    with pytest.raises(BadRequestError, match="depth"):
        build("sr-fast", depth=3)
