"""The RRDB networks by value: blocks, encoder, decoder and branches against the formulas, on tiny widths."""

import pytest
import torch
from torch.nn import functional

from wsi_ml.errors import BadRequestError
from wsi_ml.models import build
from wsi_ml.models.rrdb import Rdb, Rrdb, start_as_bilinear

SMALL = {"channels": 8, "growth": 4, "blocks": 2}


@pytest.fixture(scope="module")
def joint():
    torch.manual_seed(11)
    return build("sr-joint", **SMALL, classes=3).double().eval()


def randomised(module):
    """Numbers large enough that a missing activation or factor shows."""
    torch.manual_seed(12)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


def leaky(values):
    return torch.where(values > 0, values, 0.2 * values)


def test_a_dense_block_sees_all_before_it_and_ends_without_activation():
    block = randomised(Rdb(4, 2))
    features = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    known = [features]
    for layer in (block.conv1, block.conv2, block.conv3, block.conv4):
        known.append(leaky(layer(torch.cat(known, 1))))
    assert torch.allclose(block(features), features + 0.2 * block.conv5(torch.cat(known, 1)), atol=1e-12)


def test_a_block_is_three_dense_blocks_beside_the_identity():
    block = randomised(Rrdb(4, 2))
    features = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    inner = block.rdb3(block.rdb2(block.rdb1(features)))
    assert torch.allclose(block(features), features + 0.2 * inner, atol=1e-12)


def test_a_dense_block_starts_at_a_tenth_of_hes_start_without_bias():
    torch.manual_seed(13)
    layer = Rdb(64, 32).conv5
    assert float(layer.weight.detach().std()) == pytest.approx(0.1 * (2 / (192 * 9)) ** 0.5, rel=0.02)
    assert not layer.bias.any()


def test_the_encoder_adds_its_trunk_to_its_first_convolution(joint):
    rgb = torch.rand(1, 3, 8, 6, dtype=torch.float64)
    first = joint.conv_first(functional.pixel_unshuffle(rgb, 2))
    assert torch.allclose(joint.encode(rgb), first + joint.conv_body(joint.body(first)), atol=1e-12)


def test_the_decoder_doubles_by_repeating_pixels(joint):
    features = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    up = leaky(joint.conv_up1(features.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    up = leaky(joint.conv_up2(up.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    assert torch.allclose(joint.decode(features), joint.conv_last(leaky(joint.conv_hr(up))), atol=1e-12)


def test_a_branch_alone_gives_what_both_give(joint):
    rgb = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        logits, picture = joint(rgb)
        assert torch.equal(joint(rgb, "cl"), logits) and torch.equal(joint(rgb, "sr"), picture)


def test_a_branch_alone_does_not_run_the_other(joint):
    ran = []
    hooks = [
        module.register_forward_hook(lambda module, given, got, name=name: ran.append(name))
        for name, module in joint.named_children()
    ]
    rgb = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    encoder, decoder = ["conv_first", "body", "conv_body"], ["conv_up1", "conv_up2", "conv_hr", "conv_last"]
    joint(rgb, "sr")
    assert ran == encoder + decoder
    ran.clear()
    joint(rgb, "cl")
    assert ran == [*encoder, "layer1", "layer2", "dropout", "fc"]
    for hook in hooks:
        hook.remove()


def test_the_generator_and_the_main_model_share_names_and_values(joint):
    generator = build("sr-gan-generator", **SMALL).double()
    names = generator.state_dict().keys()
    assert names < joint.state_dict().keys()
    generator.load_state_dict({name: joint.state_dict()[name] for name in names})
    rgb = torch.rand(1, 3, 6, 10, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.equal(generator(rgb), joint(rgb, "sr"))


def test_nothing_is_clamped(joint):
    last = {name: torch.full_like(tensor, 5.0) for name, tensor in joint.conv_last.state_dict().items()}
    kept = {name: tensor.clone() for name, tensor in joint.conv_last.state_dict().items()}
    joint.conv_last.load_state_dict(last)
    with torch.inference_mode():
        assert joint(torch.rand(1, 3, 4, 4, dtype=torch.float64), "sr").abs().max() > 1.0
    joint.conv_last.load_state_dict(kept)


def test_dropout_acts_only_in_training(joint):
    wide = build("sr-joint", **SMALL, dropout=0.5).train()
    for module in wide.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    rgb = torch.rand(1, 3, 4, 4)
    assert not torch.equal(wide(rgb, "cl"), wide(rgb, "cl"))
    wide.eval()
    assert torch.equal(wide(rgb, "cl"), wide(rgb, "cl"))
    assert build("sr-joint", **SMALL).dropout.p == 0.25


def test_msrresnet_starts_near_bilinear():
    torch.manual_seed(14)
    model = build("msrresnet", channels=8, blocks=1)
    torch.nn.init.zeros_(model.conv_last.weight)
    rgb = torch.rand(1, 3, 5, 7)
    wanted = functional.interpolate(rgb, scale_factor=2.0, mode="bilinear", align_corners=False)
    assert torch.equal(model(rgb), wanted)


def test_the_discriminator_is_under_spectral_norm_but_for_its_ends():
    torch.manual_seed(15)
    model = build("unet-discriminator", channels=4)
    names = set(model.state_dict())
    for number in range(1, 9):
        assert {f"conv{number}.weight_orig", f"conv{number}.weight_u", f"conv{number}.weight_v"} <= names
        assert f"conv{number}.bias" not in names
    assert {"conv0.weight", "conv0.bias", "conv9.weight", "conv9.bias"} <= names
    with torch.no_grad():
        model(torch.rand(1, 3, 8, 8))
        kept = model.state_dict()["conv4.weight_u"].clone()
        model.eval()(torch.rand(1, 3, 8, 8))
    assert torch.equal(model.state_dict()["conv4.weight_u"], kept)
    for number in range(1, 9):
        # What was convolved with is the parameter over its estimated largest singular value, u·W·v.
        layer = getattr(model, f"conv{number}")
        flat = layer.weight_orig.detach().flatten(1)
        largest = layer.weight_u @ flat @ layer.weight_v
        assert torch.allclose(layer.weight.detach().flatten(1), flat / largest, atol=1e-6)


def test_the_discriminator_adds_skips_after_the_activation():
    torch.manual_seed(16)
    model = build("unet-discriminator", channels=2).double().eval()
    rgb = torch.rand(1, 3, 16, 8, dtype=torch.float64)

    def doubled(features):
        return functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)

    with torch.no_grad():
        whole = leaky(model.conv0(rgb))
        half = leaky(model.conv1(whole))
        quarter = leaky(model.conv2(half))
        up = leaky(model.conv4(doubled(leaky(model.conv3(quarter))))) + quarter
        up = leaky(model.conv5(doubled(up))) + half
        up = leaky(model.conv6(doubled(up))) + whole
        wanted = model.conv9(leaky(model.conv8(leaky(model.conv7(up)))))
        assert torch.allclose(model(rgb), wanted, atol=1e-12)


def test_gradients_reach_every_parameter(joint):
    logits, picture = joint(torch.rand(1, 3, 8, 8, dtype=torch.float64))
    (logits.sum() + picture.sum()).backward()
    assert [name for name, parameter in joint.named_parameters() if not parameter.grad.any()] == []
    joint.zero_grad(set_to_none=True)


def test_a_bilinear_start_is_bilinear_interpolation():
    torch.manual_seed(0)
    model = build("sr-gan-generator", channels=16, growth=4, blocks=1, pixel_shuffle=True)
    start_as_bilinear(model)
    rgb = torch.rand(2, 3, 12, 16)
    with torch.inference_mode():
        made = model(rgb)
    wanted = torch.nn.functional.interpolate(rgb, scale_factor=2.0, mode="bilinear", align_corners=False)
    assert (made - wanted)[:, :, 8:-8, 8:-8].abs().max() < 1e-5
    made = model(rgb).sum()
    made.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("config", [{"channels": 16}, {"channels": 8, "pixel_shuffle": True}])
def test_networks_that_cannot_start_so_say_what_they_need(config):
    with pytest.raises(BadRequestError, match="pixel_shuffle and at least 12 channels"):
        start_as_bilinear(build("sr-gan-generator", growth=4, blocks=1, **config))
