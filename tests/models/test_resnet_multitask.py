"""The network that paper B is compared with: counts, shapes, what a task costs, sizes that do not fit."""

import pytest
import torch

from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count, weightless


def test_the_encoder_is_torchvision_s_resnet_18_without_its_classes():
    with weightless():
        model = build("resnet18-multitask")
    parts = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    assert sum(parameter_count(getattr(model, name)) for name in parts) == 11_689_512 - 513_000
    assert parameter_count(model) == 13_574_852
    assert "layer2.0.downsample.0.weight" in model.state_dict() and "layer4.1.bn2.bias" in model.state_dict()


def test_shapes_and_each_task_at_its_own_cost():
    with weightless():
        model = build("resnet18-multitask", classes=3, picture_classes=4)
    rgb = torch.empty(2, 3, 64, 96, device="meta")
    sizes = [tuple(each.shape[1:]) for each in model.encode(rgb)]
    assert sizes == [(64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    told = model(rgb)
    assert told.pixels.shape == (2, 3, 64, 96) and told.pictures.shape == (2, 4)
    assert model(rgb, "segmentation").pictures is None and model(rgb, "classification").pixels is None
    with pytest.raises(BadRequestError, match="multiples of 32"):
        model(torch.empty(1, 3, 48, 64, device="meta"))
    with pytest.raises(BadRequestError, match="four widths"):
        build("resnet18-multitask", widths=(8, 8))
