"""The nuclei network: size, shapes, how far it sees, and that a window's place changes nothing."""

import pytest
import torch

from wsi_ml.models import build, parameter_count
from wsi_ml.models.nuclei_unet import GRID, HALO, NucleiUnetConfig


def conv(into, out, side):
    return into * out * side * side + out


def noisy(model):
    """Biases too: zeros would hide what padding does."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(model.last.weight, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(5)
    return noisy(build("nuclei-unet", channels=16))


def test_the_shipped_configuration_has_a_known_size():
    residual = [2 * conv(channels, channels, 3) for channels in (32, 64, 96)]
    fine = conv(12, 32, 3) + conv(32, 32, 3) + conv(64, 32, 1) + residual[0] + conv(32, 8, 1)
    middle = conv(32, 64, 2) + conv(96, 64, 1) + 2 * residual[1]
    coarse = conv(64, 96, 2) + 2 * residual[2]
    assert parameter_count(build("nuclei-unet")) == fine + middle + coarse == 552_584
    assert NucleiUnetConfig().channels == 32 and NucleiUnetConfig().halo == HALO == 64 and HALO % GRID == 0


def test_a_window_gives_a_map_without_its_halo(model):
    with torch.inference_mode():
        assert model(torch.rand(2, 3, 160, 160)).shape == (2, 2, 32, 32)
        assert model(torch.rand(1, 3, 136, 152)).shape == (1, 2, 8, 24)
        assert model(torch.rand(1, 3, 64, 64), whole=True).shape == (1, 2, 64, 64)


def test_the_map_sees_no_further_than_stated_and_the_halo_covers_it(model):
    rgb = torch.rand(1, 3, 2 * HALO + GRID, 2 * HALO + GRID, requires_grad=True)
    model(rgb).sum().backward()
    seen = rgb.grad[0].abs().sum(dim=0).nonzero()
    assert model.reach == 60 <= HALO
    assert (int(seen.min()), int(seen.max())) == (HALO - 60, HALO + GRID - 1 + 60)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (8, 64), (96, 24)])
def test_a_window_equals_the_same_part_of_a_larger_one(model, top, left):
    large = torch.rand(1, 3, 288, 288, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = model(large)
        part = model(large[:, :, top : top + 192, left : left + 192].contiguous())
    assert torch.allclose(part, whole[:, :, top : top + 64, left : left + 64], atol=1e-5)


def test_rounded_maps_of_windows_beside_each_other_have_no_seam(model):
    large = torch.rand(1, 3, 256, 320, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole = (model(large).sigmoid() * 255).round()
        tiles = [(model(large[:, :, :, x : x + 192].contiguous()).sigmoid() * 255).round() for x in (0, 64, 128)]
    assert (torch.cat(tiles, dim=3) - whole).abs().max() <= 1


def test_the_same_picture_gives_the_same_numbers(model):
    rgb = torch.rand(1, 3, 136, 136)
    with torch.inference_mode():
        assert torch.equal(model(rgb), model(rgb))
