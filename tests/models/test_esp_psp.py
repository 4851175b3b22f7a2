"""Paper B's modules and network: counts, shapes, receptive fields, and which task touches what."""

import pytest
import torch

from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count, weightless
from wsi_ml.models.esp_psp import RATES, Esp, EspPsp, EspPspConfig, Psp

SMALL = EspPspConfig(widths=(8, 8, 16, 16))


@pytest.mark.parametrize(
    ("channels", "out", "count"), [(64, 64, 10_240), (128, 128, 40_960), (256, 256, 163_840), (64, 128, 38_912)]
)
def test_an_esp_module_has_a_reduction_and_four_small_convolutions(channels, out, count):
    assert parameter_count(Esp(channels, out)) == count


@pytest.mark.parametrize(("channels", "count"), [(64, 4_224), (128, 16_640), (256, 66_048), (512, 263_168)])
def test_a_psp_module_doubles_its_channels(channels, count):
    pyramid = Psp(channels).eval()
    assert parameter_count(pyramid) == count
    assert pyramid(torch.rand(1, channels, 6, 9)).shape == (1, 2 * channels, 6, 9)


def test_the_network_has_the_parts_that_were_worked_out():
    with weightless():
        model = build("esp-psp")
    parts = [parameter_count(part) for part in (model.levels, model.pyramids, model.fuses, model.classifier)]
    assert parts == [2_424_256, 609_024, 3_982_336, 66_050]
    assert parameter_count(model) == 7_081_796


def test_each_group_of_an_esp_module_sees_nine_taps_at_its_own_rate():
    module = Esp(8, 16)
    torch.nn.init.ones_(module.reduce.weight)
    for branch in module.branches:
        torch.nn.init.ones_(branch.weight)
    impulse = torch.zeros(1, 8, 21, 21)
    impulse[0, :, 10, 10] = 1
    told = module(impulse)[0].detach().reshape(4, 4, 21, 21)
    for group, rate in zip(told, RATES, strict=True):
        rows, columns = torch.nonzero(group[0], as_tuple=True)
        assert len(rows) == 9
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10 - rate, 10 + rate, 10 - rate, 10 + rate)


def test_a_psp_module_keeps_its_input_and_pools_the_rest():
    torch.manual_seed(0)
    pyramid = Psp(8).eval()
    features = torch.rand(1, 8, 10, 10)
    told = pyramid(features)
    assert torch.equal(told[:, :8], features)
    whole_picture = told[0, 8:10]  # the first branch pools everything into one cell
    assert torch.allclose(whole_picture, whole_picture[:, :1, :1].expand_as(whole_picture))
    flat = pyramid(torch.full((1, 8, 10, 10), 0.3))[0, 8:]
    assert torch.allclose(flat, flat[:, :1, :1].expand_as(flat), atol=1e-6)


def test_shapes_of_both_tasks():
    model = build("esp-psp", widths=(8, 8, 16, 16), picture_classes=3).eval()
    told = model(torch.rand(2, 3, 32, 48))
    assert told.pixels.shape == (2, 2, 32, 48)
    assert told.pictures.shape == (2, 3) and told.class_map.shape == (2, 3, 4, 6)
    assert torch.allclose(told.pictures, told.class_map.mean((2, 3)))
    assert model(torch.rand(1, 3, 16, 16), "segmentation").pictures is None
    assert model(torch.rand(1, 3, 16, 16), "classification").pixels is None


@pytest.mark.parametrize("size", [(20, 32), (32, 4), (8,)])
def test_other_sizes_are_refused(size):
    with pytest.raises(BadRequestError, match="multiples of 8"):
        EspPsp(SMALL)(torch.rand(1, 3, *size))


@pytest.mark.parametrize("widths", [(8, 8, 16), (8, 8, 16, 18)])
def test_widths_that_cannot_be_split_are_refused(widths):
    with pytest.raises(BadRequestError, match="multiples of 4"):
        EspPspConfig(widths=widths)


def test_each_task_sends_its_gradient_only_where_it_belongs():
    torch.manual_seed(0)
    model = EspPsp(SMALL)
    decoder = {id(parameter) for parameter in model.decoder_parameters()}
    classifier = {id(parameter) for parameter in model.classifier.parameters()}
    model(torch.rand(2, 3, 16, 16), "classification").pictures.sum().backward()
    assert all((parameter.grad is None) == (id(parameter) in decoder) for parameter in model.parameters())
    model.zero_grad(set_to_none=True)
    model(torch.rand(2, 3, 16, 16), "segmentation").pixels.sum().backward()
    assert all((parameter.grad is None) == (id(parameter) in classifier) for parameter in model.parameters())
