"""Weights made elsewhere: names of published files, what is taken in part, and refusals that name the tensor."""

import pytest
import safetensors.torch
import torch

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.models import build, weightless
from wsi_ml.models.foreign import fit, load_partial, plain_names

SMALL = {"channels": 8, "growth": 4}


def shapes(name, **config):
    with weightless():
        return {key: tuple(tensor.shape) for key, tensor in build(name, **config).state_dict().items()}


def saved(folder, tensors, name="given.safetensors"):
    file = folder / name
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return file


def marked(model, value):
    """The model's tensors, all filled with one number."""
    return {name: torch.full_like(tensor, value) for name, tensor in model.state_dict().items()}


def realesrgan_names(blocks):
    """Names in RealESRGAN_x2plus.pth and its kin, written out."""
    layers = ["conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    layers += [f"body.{b}.rdb{r}.conv{c}" for b in range(blocks) for r in (1, 2, 3) for c in (1, 2, 3, 4, 5)]
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_names_are_those_of_realesrgan():
    assert shapes("esrgan").keys() == realesrgan_names(23)
    assert shapes("sr-gan-generator").keys() == realesrgan_names(15)
    assert shapes("esrgan")["conv_first.weight"] == (64, 12, 3, 3)
    assert shapes("esrgan", scale=4)["conv_first.weight"] == (64, 3, 3, 3)
    assert shapes("esrgan")["body.22.rdb3.conv5.weight"] == (64, 192, 3, 3)
    judge = shapes("unet-discriminator")
    kinds = {f"conv{n}.weight_{kind}" for n in range(1, 9) for kind in ("orig", "u", "v")}
    assert judge.keys() == kinds | {"conv0.weight", "conv0.bias", "conv9.weight", "conv9.bias"}
    assert judge["conv3.weight_orig"] == (512, 256, 4, 4) and judge["conv3.weight_v"] == (4096,)


def test_names_are_those_of_basicsr():
    plain = shapes("msrresnet", scale=4)
    assert plain["upconv2.weight"] == (256, 64, 3, 3) and plain["body.15.conv2.bias"] == (64,)
    judge = shapes("vgg-discriminator")
    assert judge["conv4_1.weight"] == (512, 512, 4, 4) and judge["bn4_0.running_var"] == (512,)
    assert "conv0_0.bias" in judge and "conv0_1.bias" not in judge and "bn0_0.weight" not in judge
    assert judge["linear1.weight"] == (100, 8192) and judge["linear2.bias"] == (1,)


@pytest.mark.parametrize(
    ("name", "tensors", "some"),
    [
        ("resnet50", 320, {
            "conv1.weight": (64, 3, 7, 7), "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer3.5.conv2.weight": (256, 256, 3, 3), "layer4.2.bn3.running_mean": (2048,), "fc.weight": (1000, 2048),
        }),
        ("densenet121", 727, {
            "features.conv0.weight": (64, 3, 7, 7), "features.denseblock3.denselayer24.norm1.weight": (992,),
            "features.denseblock3.denselayer24.conv2.weight": (32, 128, 3, 3),
            "features.transition3.conv.weight": (512, 1024, 1, 1), "features.norm5.bias": (1024,),
            "classifier.weight": (1000, 1024),
        }),
        ("efficientnet", 360, {
            "features.0.0.weight": (32, 3, 3, 3), "features.0.1.running_var": (32,),
            "features.1.0.block.0.0.weight": (32, 1, 3, 3), "features.1.0.block.1.fc1.weight": (8, 32, 1, 1),
            "features.1.0.block.2.0.weight": (16, 32, 1, 1), "features.3.1.block.1.0.weight": (240, 1, 5, 5),
            "features.6.3.block.2.fc2.bias": (1152,), "features.7.0.block.3.1.weight": (320,),
            "features.8.0.weight": (1280, 320, 1, 1), "classifier.1.weight": (1000, 1280),
        }),
        ("mobilenet", 314, {
            "features.0.0.weight": (32, 3, 3, 3), "features.1.conv.0.0.weight": (32, 1, 3, 3),
            "features.1.conv.1.weight": (16, 32, 1, 1), "features.1.conv.2.bias": (16,),
            "features.2.conv.0.0.weight": (96, 16, 1, 1), "features.2.conv.1.0.weight": (96, 1, 3, 3),
            "features.17.conv.3.running_mean": (320,), "features.18.0.weight": (1280, 320, 1, 1),
            "classifier.1.bias": (1000,),
        }),
    ],
)  # fmt: skip
def test_names_are_those_of_torchvision(name, tensors, some):
    found = shapes(name, classes=1000)
    assert len(found) == tensors
    assert {key: found.get(key) for key in some} == some


def test_vgg_has_the_sixteen_convolutions_of_torchvision():
    indices = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    found = shapes("vgg19")
    assert found.keys() == {f"features.{index}.{kind}" for index in indices for kind in ("weight", "bias")}
    assert found["features.34.weight"] == (512, 512, 3, 3) and found["features.5.weight"] == (128, 64, 3, 3)


def test_old_spellings_are_read():
    given = ["features.denseblock1.denselayer2.norm.1.running_mean", "features.denseblock1.denselayer2.conv.2.weight"]
    assert list(plain_names(given).values()) == [
        "features.denseblock1.denselayer2.norm1.running_mean", "features.denseblock1.denselayer2.conv2.weight",
    ]  # fmt: skip
    given = ["conv_first.bias", "RRDB_trunk.3.RDB2.conv5.weight", "trunk_conv.bias", "upconv1.bias", "HRconv.weight"]
    assert list(plain_names(given).values()) == [
        "conv_first.bias", "body.3.rdb2.conv5.weight", "conv_body.bias", "conv_up1.bias", "conv_hr.weight",
    ]  # fmt: skip
    assert plain_names(["module.fc.bias"]) == {"module.fc.bias": "fc.bias"}
    assert plain_names(["upconv1.bias", "module.a"]) == {"upconv1.bias": "upconv1.bias", "module.a": "module.a"}


def test_fifteen_of_twenty_three_blocks_fit_the_main_model():
    report = fit(shapes("esrgan"), shapes("sr-joint"))
    assert set(report.taken) == realesrgan_names(15) and report.wrong_shape == ()
    assert set(report.unused) == realesrgan_names(23) - realesrgan_names(15) and len(report.unused) == 240
    assert {name.split(".")[0] for name in report.missing} == {"layer1", "layer2", "fc"}
    assert report.text().splitlines() == [
        "taken          462  body.0…14 (450), conv_body (2), conv_first (2), conv_hr (2), conv_last (2), conv_up1 (2), "
        "conv_up2 (2)",
        "missing         86  fc (2), layer1.0…1 (42), layer2.0…1 (42)",
        "unused         240  body.15…22 (240)",
    ]


def test_the_first_blocks_of_a_deeper_file_are_copied(tmp_path):
    deep, model = build("esrgan", **SMALL, blocks=3), build("sr-joint", **SMALL, blocks=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_partial(model, saved(tmp_path, marked(deep, 0.5)))
    assert set(report.taken) == realesrgan_names(2)
    assert {name.rpartition(".rdb")[0] for name in report.unused} == {"body.2"}
    assert "fc.weight" in report.missing and report.left == ()
    after = model.state_dict()
    for name in after:
        wanted = torch.full_like(after[name], 0.5) if name in report.taken else before[name]
        assert torch.equal(after[name], wanted), name


def test_six_classes_fit_five_but_for_the_head(tmp_path):
    six, five = build("sr-joint", **SMALL, blocks=1, classes=6), build("sr-joint", **SMALL, blocks=1)
    file = saved(tmp_path, {**marked(six, 0.25), "head.1.weight": torch.ones(32, 8)})
    before = {name: tensor.clone() for name, tensor in five.state_dict().items()}
    with pytest.raises(
        ModelUnavailableError,
        match=r"given\.safetensors .* tensor fc\.bias is \(6,\) in the file, \(5,\) in the network\. Leave 'fc' out",
    ):
        load_partial(five, file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in five.state_dict().items())
    report = load_partial(five, file, leave=("fc",))
    assert report.wrong_shape == (("fc.bias", (6,), (5,)), ("fc.weight", (6, 128), (5, 128)))
    assert report.unused == ("head.1.weight",) and report.missing == () and report.left == ()
    assert set(report.taken) == five.state_dict().keys() - {"fc.bias", "fc.weight"}
    assert torch.equal(five.fc.weight, before["fc.weight"])
    assert float(five.layer1[0].conv1.weight.detach().min()) == 0.25
    assert "  fc.weight: (6, 128) in the file, (5, 128) in the network" in report.text()


def test_what_fits_can_be_left_out_too(tmp_path):
    model = build("sr-joint", **SMALL, blocks=1)
    report = load_partial(model, saved(tmp_path, marked(model, 0.125)), leave=("fc", "layer2.1"))
    assert {"fc.bias", "layer2.1.conv1.weight"} <= set(report.left)
    assert "layer2.0.conv1.weight" in report.taken and not (model.fc.weight == 0.125).any()
    with pytest.raises(ModelUnavailableError, match="no part 'head' to leave out"):
        load_partial(model, saved(tmp_path, marked(model, 0.0)), leave=("head",))


def test_the_discriminators_file_is_taken_whole(tmp_path):
    torch.manual_seed(31)
    given, model = build("unet-discriminator", channels=4).eval(), build("unet-discriminator", channels=4).eval()
    report = load_partial(model, saved(tmp_path, given.state_dict()))
    assert len(report.taken) == 28 and report.missing == report.unused == ()
    rgb = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(rgb), given(rgb))


def test_half_precision_files_and_old_counters_are_taken(tmp_path):
    model = build("resnet50", width=2, classes=3)
    given = {name: tensor.half() for name, tensor in marked(model, 0.5).items() if "num_batches" not in name}
    report = load_partial(model, saved(tmp_path, given))
    assert all(name.endswith("num_batches_tracked") for name in report.missing) and len(report.missing) == 53
    assert model.fc.weight.dtype == torch.float32 and (model.fc.weight == 0.5).all()


def test_refusals_name_the_file_and_the_tensor(tmp_path):
    model = build("rrdb-plain", **SMALL)
    tensors = marked(model, 0.5)
    for name, told in (("x2.pth", r"x2\.pth .*python -m train\.convert x2\.pth x2\.safetensors"), ("gone", "gone")):
        with pytest.raises(ModelUnavailableError, match=told):
            load_partial(model, tmp_path / name)
    (tmp_path / "text.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ModelUnavailableError, match=r"text\.safetensors cannot be read"):
        load_partial(model, tmp_path / "text.safetensors")
    with pytest.raises(ModelUnavailableError, match="of another network"):
        load_partial(model, saved(tmp_path, {"encoder.weight": torch.ones(1)}))
    tensors["conv_hr.bias"][3] = float("nan")
    with pytest.raises(ModelUnavailableError, match=r"tensor conv_hr\.bias has values not finite"):
        load_partial(model, saved(tmp_path, tensors))
    assert not (model.conv_first.weight == 0.5).any()
    twice = {name: torch.ones(1) for name in ("denselayer1.norm.1.bias", "denselayer1.norm1.bias")}
    with pytest.raises(ModelUnavailableError, match=r"hold tensor denselayer1\.norm1\.bias twice"):
        load_partial(model, saved(tmp_path, twice))
