"""Paper D's two networks: counts, shapes, forms of the trunk."""

import pytest
import torch

from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count, weightless


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 5_616_338),
        ({"classes": 0}, 5_616_304),
        ({"style": "caffe"}, 5_989_986),
        ({"style": "caffe", "classes": 0}, 5_989_952),
    ],
)
def test_counts_of_the_extractor(config, count):
    with weightless():
        model = build("takahama-extractor", **config)
    assert parameter_count(model) == count
    assert parameter_count(model.features) == 16_400


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 31_039_298),
        ({"normalise": True}, 31_045_186),
        ({"base": 32, "normalise": True}, 7_766_818),
        ({"base": 16, "normalise": True}, 1_944_466),
    ],
)
def test_counts_of_the_unet(config, count):
    with weightless():
        assert parameter_count(build("takahama-unet", **config)) == count


@pytest.mark.parametrize("style", ["torchvision", "caffe"])
def test_a_patch_becomes_1024_then_16_then_2_numbers(style):
    torch.manual_seed(0)
    model = build("takahama-extractor", style=style).eval()
    rgb = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        features = model.extract(rgb)
        assert model.trunk(rgb).shape == (2, 1024) and features.shape == (2, 16)
        assert torch.allclose(model(rgb), model.fc(features))
    assert features.min() >= 0 and features.max() > 0


def test_the_maps_inside_the_trunk_have_the_published_sides():
    model = build("takahama-extractor").eval()
    sides = []
    for name in ("conv1", "conv3", "inception3a", "inception4a", "inception5b"):
        model.get_submodule(name).register_forward_hook(lambda _, __, told: sides.append(tuple(told.shape[1:])))
    with torch.inference_mode():
        model(torch.rand(1, 3, 224, 224))
    assert sides == [(64, 112, 112), (192, 56, 56), (256, 28, 28), (512, 14, 14), (1024, 7, 7)]


def test_without_the_last_layer_the_features_come_out():
    torch.manual_seed(0)
    model = build("takahama-extractor", classes=0, activation="none").eval()
    with torch.inference_mode():
        told = model(torch.rand(3, 3, 64, 64))
    assert told.shape == (3, 16) and told.min() < 0


@pytest.mark.parametrize("config", [{"style": "keras"}, {"activation": "tanh"}])
def test_unknown_forms_are_refused(config):
    with pytest.raises(BadRequestError, match="takahama-extractor has the styles"):
        build("takahama-extractor", **config)


def test_a_map_of_32_cells_reaches_2_at_the_bottom():
    model = build("takahama-unet", base=4).eval()
    bottom = []
    model.down[-1].register_forward_hook(lambda _, __, told: bottom.append(tuple(told.shape)))
    with torch.inference_mode():
        assert model(torch.rand(2, 16, 32, 32)).shape == (2, 2, 32, 32)
    assert bottom == [(2, 64, 2, 2)]


def test_other_sides_of_a_map_are_refused():
    with pytest.raises(BadRequestError, match="multiples of 16"):
        build("takahama-unet", base=4)(torch.rand(1, 16, 24, 32))
