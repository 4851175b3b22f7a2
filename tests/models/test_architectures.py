"""Every architecture of paper A and its baselines: parameter counts, shapes and cost, without weights or memory."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wsi_ml.errors import BadRequestError
from wsi_ml.models import ARCHITECTURES, architectures, build, parameter_count, weightless
from wsi_ml.models.resnet import stage
from wsi_ml.models.rrdb import Rdb, Rrdb, RrdbConfig, RrdbEncoder
from wsi_ml.models.vgg import INDICES


def made(name, **config):
    with weightless():
        return build(name, **config)


def rgb(height=224, width=224):
    return torch.empty(1, 3, height, width, device="meta")


def count(make):
    with weightless():
        return parameter_count(make())


def test_the_parts_of_the_encoder_count_as_published():
    assert count(lambda: Rdb(64, 32)) == 239_808
    assert count(lambda: Rrdb(64, 32)) == 719_424
    with weightless():
        encoder = RrdbEncoder()
    assert parameter_count(encoder) == 10_835_264
    assert parameter_count(encoder.conv_first) == 6_976
    assert parameter_count(encoder.conv_body) == 36_928
    assert len(encoder.body) == 15


def test_the_main_model_and_its_branches_count_as_published():
    joint, encoder = made("sr-joint"), 10_835_264
    decoder = sum(parameter_count(getattr(joint, name)) for name in ("conv_up1", "conv_up2", "conv_hr", "conv_last"))
    assert decoder == 112_515
    assert parameter_count(joint.layer1) == 145_408
    assert parameter_count(joint.layer2) == 2_301_952
    assert parameter_count(joint.fc) == 5_125
    assert parameter_count(joint) - encoder - decoder == 2_452_485
    assert parameter_count(joint) == 13_400_264
    assert parameter_count(made("sr-joint", classes=6)) == 13_401_289
    # The authors' object holds a head that is never used; ours does not.
    dead = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))
    assert parameter_count(dead) == 2_373 and parameter_count(joint) + parameter_count(dead) == 13_402_637


@pytest.mark.parametrize(
    ("name", "config", "parameters"),
    [
        ("sr-gan-generator", {}, 10_947_779),
        ("unet-discriminator", {}, 4_376_897),
        ("esrgan", {}, 16_703_171),
        ("esrgan", {"scale": 4}, 16_697_987),
        ("rrdb-plain", {}, 1_595_267),
        ("srresnet", {}, 1_401_749),
        ("srresnet", {"scale": 4}, 1_549_462),
        ("msrresnet", {}, 1_369_859),
        ("msrresnet", {"scale": 4}, 1_517_571),
        ("vgg-discriminator", {}, 14_499_401),
        ("vgg19", {}, 20_024_384),
        ("resnet50", {"classes": 1000}, 25_557_032),
        ("densenet121", {"classes": 1000}, 7_978_856),
        ("efficientnet", {"classes": 1000}, 5_288_548),
        ("mobilenet", {"classes": 1000}, 3_504_872),
    ],
)
def test_the_others_count_as_published(name, config, parameters):
    assert parameter_count(made(name, **config)) == parameters


def test_the_list_gives_the_papers_configuration():
    listed = {each["name"]: each["parameters"] for each in architectures()}
    assert listed.keys() == ARCHITECTURES.keys()
    documented = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    ours = {"nuclei-unet", "sr-fast", "tissue-cnn"}
    rows = re.findall(r"^\| `([\w-]+)` \| \w+\.py \| ([\d,]+) \|", documented, re.MULTILINE)
    assert {name: int(number.replace(",", "")) for name, number in rows} == {
        name: number for name, number in listed.items() if name not in ours
    }
    assert listed["sr-joint"] == 13_400_264
    # Five classes in place of 1000.
    assert listed["resnet50"] == 25_557_032 - 995 * 2049
    assert listed["densenet121"] == 7_978_856 - 995 * 1025
    assert listed["efficientnet"] == 5_288_548 - 995 * 1281
    assert listed["mobilenet"] == 3_504_872 - 995 * 1281


def test_shapes_for_a_patch_of_224_are_as_published():
    joint = made("sr-joint")
    features = joint.encode(rgb())
    assert features.shape == (1, 64, 112, 112)
    assert joint.layer1(features).shape == (1, 256, 56, 56)
    assert joint.layer2(joint.layer1(features)).shape == (1, 1024, 28, 28)
    logits, picture = joint(rgb())
    assert logits.shape == (1, 5) and picture.shape == (1, 3, 448, 448)
    assert made("unet-discriminator")(picture).shape == (1, 1, 448, 448)
    assert made("sr-gan-generator")(rgb()).shape == (1, 3, 448, 448)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (18, 30), (226, 250)])
def test_any_even_size_goes_through_both_branches(height, width):
    logits, picture = made("sr-joint", blocks=1).eval()(rgb(height, width))
    assert logits.shape == (1, 5) and picture.shape == (1, 3, 2 * height, 2 * width)
    assert made("sr-joint", blocks=1, pixel_shuffle=True)(rgb(height, width), "sr").shape == (
        1,
        3,
        2 * height,
        2 * width,
    )


@pytest.mark.parametrize("name", ["sr-joint", "sr-gan-generator", "esrgan", "rrdb-plain"])
def test_odd_sizes_are_refused_by_name(name):
    model = made(name, blocks=1)
    for height, width in ((223, 224), (224, 1), (0, 224)):
        with pytest.raises(BadRequestError, match=rf"{width} × {height} pixels .* multiples of 2"):
            model(rgb(height, width))


def test_pictures_of_other_form_are_refused():
    with pytest.raises(BadRequestError, match=r"N×3×H×W, not of shape \(1, 4, 8, 8\)"):
        made("sr-joint")(torch.empty(1, 4, 8, 8, device="meta"))
    with pytest.raises(BadRequestError, match="no mode 'seg'"):
        made("sr-joint")(rgb(8, 8), "seg")
    with pytest.raises(BadRequestError, match="×2 or ×4, not ×3"):
        made("esrgan", scale=3)
    with pytest.raises(BadRequestError, match="not ×8"):
        made("srresnet", scale=8)


def test_enlarging_by_four_takes_odd_sizes():
    assert made("esrgan", scale=4, blocks=1)(rgb(7, 9)).shape == (1, 3, 28, 36)
    for name in ("srresnet", "msrresnet"):
        assert made(name)(rgb(7, 9)).shape == (1, 3, 14, 18)
        assert made(name, scale=4)(rgb(7, 9)).shape == (1, 3, 28, 36)


def flops(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def conv_flops(into, out, side, cells):
    return 2 * into * out * side * side * cells


def test_a_branch_alone_costs_only_its_own_compute():
    joint, picture = made("sr-joint"), rgb()
    dense = sum(conv_flops(64 + 32 * number, 32, 3, 112**2) for number in range(4)) + conv_flops(192, 64, 3, 112**2)
    encoder = conv_flops(12, 64, 3, 112**2) + 15 * 3 * dense + conv_flops(64, 64, 3, 112**2)
    decoder = conv_flops(64, 64, 3, 224**2) + 2 * conv_flops(64, 64, 3, 448**2) + conv_flops(64, 3, 3, 448**2)
    shared = flops(lambda: joint.encode(picture))
    assert shared == encoder
    features = joint.encode(picture)
    classifier = flops(lambda: joint.classify(features))
    assert flops(lambda: joint(picture, "sr")) == encoder + decoder
    assert flops(lambda: joint(picture, "cl")) == encoder + classifier
    assert flops(lambda: joint(picture)) == encoder + decoder + classifier
    first = conv_flops(64, 64, 1, 112**2) + conv_flops(64, 64, 3, 56**2) + 2 * conv_flops(64, 256, 1, 56**2)
    first += 2 * conv_flops(64, 256, 1, 56**2) + conv_flops(64, 64, 3, 56**2)
    second = conv_flops(256, 256, 1, 56**2) + conv_flops(256, 256, 3, 28**2) + 2 * conv_flops(256, 1024, 1, 28**2)
    second += 2 * conv_flops(256, 1024, 1, 28**2) + conv_flops(256, 256, 3, 28**2)
    assert classifier == first + second + 2 * 1024 * 5


def test_a_bottleneck_strides_on_its_middle_and_its_shortcut():
    with weightless():
        first, second = stage(64, 64, 2, 2)
    assert (first.conv1.stride, first.conv2.stride, first.downsample[0].stride) == ((1, 1), (2, 2), (2, 2))
    assert first.downsample[0].kernel_size == (1, 1) and second.downsample is None


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "efficientnet", "mobilenet"])
def test_classifiers_tell_five_classes_of_a_patch(name):
    assert made(name)(rgb()).shape == (1, 5)
    assert made(name)(rgb(65, 97)).shape == (1, 5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 24), (12, 36), (452, 500)])
def test_the_discriminator_judges_every_pixel_of_any_even_size_doubled(height, width):
    assert made("unet-discriminator")(rgb(height, width)).shape == (1, 1, height, width)


def test_discriminators_refuse_sizes_they_cannot_judge():
    with pytest.raises(BadRequestError, match="at least 8 × 8"):
        made("unet-discriminator")(rgb(4, 8))
    assert made("vgg-discriminator")(rgb(128, 128)).shape == (1, 1)
    assert made("vgg-discriminator", side=256)(rgb(256, 256)).shape == (1, 1)
    with pytest.raises(BadRequestError, match="128 × 128 pixels, not 64 × 128"):
        made("vgg-discriminator")(rgb(128, 64))
    with pytest.raises(BadRequestError, match="sides 128 and 256, not 100"):
        made("vgg-discriminator", side=100)


def test_vgg_stops_at_the_last_layer_asked_for():
    vgg = made("vgg19")
    assert {name: INDICES[name] for name in ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")} == {
        "conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34,
    }  # fmt: skip
    assert vgg(rgb()).shape == (1, 512, 14, 14)
    one = conv_flops(3, 64, 3, 32 * 32) + conv_flops(64, 64, 3, 32 * 32)
    assert flops(lambda: vgg.taps(rgb(32, 32), ("conv1_2",))) == one
    with pytest.raises(BadRequestError, match="conv6_1"):
        vgg.taps(rgb(32, 32), ("conv6_1",))
    with pytest.raises(BadRequestError, match="at least 16 × 16"):
        vgg.taps(rgb(15, 32), ("conv1_2",))


def test_one_encoder_serves_configurations_of_any_depth():
    small = made("sr-joint", channels=8, growth=4, blocks=1, classes=3)
    assert small(rgb(16, 16))[0].shape == (1, 3)
    assert RrdbConfig().fold == 2 and RrdbConfig(scale=4).fold == 1
