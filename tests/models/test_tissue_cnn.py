"""The tissue network: size, shapes, its field, and that a window's place changes nothing."""

import pytest
import torch

from wsi_ml.models import build, parameter_count
from wsi_ml.models.tissue_cnn import HALO, STRIDE, TissueCnnConfig


def conv(into, out, side):
    return into * out * side * side + out


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(6)
    return build("tissue-cnn").eval()


def test_the_shipped_configuration_has_a_known_size(model):
    fine = conv(3, 32, 4) + conv(32, 32, 3)
    middle = conv(32, 64, 2) + conv(64, 64, 3)
    coarse = conv(64, 96, 2) + 2 * conv(96, 96, 3) + conv(96, 96, 1) + conv(96, 6, 1)
    assert parameter_count(model) == fine + middle + coarse == 256_646
    assert TissueCnnConfig().halo == HALO == 96


@pytest.mark.parametrize(("side", "map_side"), [(224, 1), (256, 2), (704, 16)])
def test_a_window_gives_a_grid_of_vectors(model, side, map_side):
    with torch.inference_mode():
        assert model(torch.rand(1, 3, side, side)).shape == (1, 6, map_side, map_side)
    assert (side - 2 * HALO) // STRIDE == map_side


def test_each_vector_equals_that_of_its_own_224_pixels(model):
    large = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        whole = model(large)
        for row, column in ((0, 0), (1, 3), (3, 2)):
            y, x = STRIDE * row, STRIDE * column
            alone = model(large[:, :, y : y + 224, x : x + 224].contiguous())
            assert torch.allclose(alone[0, :, 0, 0], whole[0, :, row, column], atol=1e-5)


def test_a_vector_sees_its_field_and_no_border(model):
    rgb = torch.rand(1, 3, 224, 224, requires_grad=True)
    model(rgb).sum().backward()
    seen = rgb.grad[0].abs().sum(dim=0).nonzero()
    assert (int(seen.min()), int(seen.max())) == (4, 219)
