"""Losses against values worked out by hand, and the joint loss's gradients against the sum of its parts'."""

from math import exp, log

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.models import build, losses
from wsi_ml.models.losses import ESRGAN_TAPS, PAPER_TAPS, Perceptual, StageOneWeights
from wsi_ml.models.vgg import INDICES, Vgg19, VggConfig

TINY = VggConfig(widths=(2, 3, 4, 5, 6))


class Passing(nn.Module):
    """A backbone whose every layer gives the normalised picture back."""

    def taps(self, rgb, names):
        return dict.fromkeys(names, rgb)


def softplus(value):
    return log(1 + exp(value))


def test_perceptual_weights_are_those_published():
    assert dict(PAPER_TAPS) == {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    assert dict(ESRGAN_TAPS) == {"conv5_4": 1.0}


def test_perceptual_by_hand():
    # Differences 0.229, 0.448 and 0 in red, green and blue are 1, 2 and 0 deviations: their mean is 1, taps add to 3.2.
    truth = torch.full((1, 3, 2, 2), 0.25)
    made = truth + torch.tensor([0.229, 0.448, 0.0]).reshape(1, 3, 1, 1)
    assert float(Perceptual(Passing())(made, truth)) == pytest.approx(3.2, rel=1e-5)
    assert float(Perceptual(Passing(), {"conv5_4": 0.5})(made, truth)) == pytest.approx(0.5, rel=1e-5)


def test_pictures_are_normalised_by_imagenet_before_the_backbone():
    seen = {}

    class Watching(Passing):
        def taps(self, rgb, names):
            seen["rgb"] = rgb
            return super().taps(rgb, names)

    Perceptual(Watching())(torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    wanted = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert seen["rgb"].flatten().tolist() == pytest.approx(wanted, rel=1e-6)


def test_taps_are_read_before_the_activation():
    torch.manual_seed(21)
    vgg = Vgg19(TINY)
    rgb = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        taps = vgg.taps(rgb, PAPER_TAPS)
        for name in PAPER_TAPS:
            assert torch.equal(taps[name], vgg.features[: INDICES[name] + 1](rgb))
            assert taps[name].min() < 0


def test_the_backbone_learns_nothing_and_the_truth_gets_no_gradient():
    torch.manual_seed(22)
    perceptual = Perceptual(Vgg19(TINY))
    made, truth = torch.rand(1, 3, 16, 16, requires_grad=True), torch.rand(1, 3, 16, 16, requires_grad=True)
    perceptual(made, truth).backward()
    assert made.grad.any() and truth.grad is None
    assert all(parameter.grad is None for parameter in perceptual.parameters())
    assert not perceptual.backbone.training
    assert list(perceptual.state_dict()) == [f"backbone.{name}" for name in Vgg19(TINY).state_dict()]


def test_without_a_backbone_the_caller_is_told(tmp_path):
    with pytest.raises(ModelUnavailableError, match=r"no file is given. Convert .*train\.convert.* or train without"):
        losses.open_perceptual(None)
    with pytest.raises(ModelUnavailableError, match=r"there is no file gone\.safetensors"):
        losses.open_perceptual(tmp_path / "gone.safetensors")
    half = tmp_path / "half.safetensors"
    half.write_bytes(safetensors.torch.save({"features.0.bias": torch.zeros(64)}))
    with pytest.raises(
        ModelUnavailableError, match=r"half\.safetensors is no whole VGG-19: it lacks features\.0\.weig"
    ):
        losses.open_perceptual(half)


def test_verdicts_by_hand():
    logits = torch.tensor([[0.0, 2.0]])
    assert float(losses.verdict_loss(logits, True)) == pytest.approx((softplus(0) + softplus(-2)) / 2)
    assert float(losses.verdict_loss(logits, False)) == pytest.approx((softplus(0) + softplus(2)) / 2)
    assert float(losses.generator_verdict_loss(logits)) == float(losses.verdict_loss(logits, True))
    real, made = torch.tensor([3.0]), torch.tensor([-1.0])
    assert float(losses.discriminator_loss(real, made)) == pytest.approx(softplus(-3) + softplus(-1))


def test_relativistic_verdicts_by_hand():
    real, made = torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 1.0])
    # Means 2 and 0: real − 0 is 3 and 1, made − 2 is −3 and −1.
    wanted = 0.5 * ((softplus(-3) + softplus(-1)) / 2 + (softplus(-3) + softplus(-1)) / 2)
    assert float(losses.relativistic_discriminator_loss(real, made)) == pytest.approx(wanted)
    wanted = 0.5 * ((softplus(3) + softplus(1)) / 2 + (softplus(3) + softplus(1)) / 2)
    assert float(losses.relativistic_generator_loss(real, made)) == pytest.approx(wanted)
    real.requires_grad_(True)
    made.requires_grad_(True)
    losses.relativistic_generator_loss(real, made).backward()
    assert real.grad is None and made.grad.any()


def test_stage_one_by_hand():
    truth = torch.full((1, 3, 2, 2), 0.5)
    made = truth + torch.tensor([0.229, 0.448, 0.0]).reshape(1, 3, 1, 1)
    l1, adversarial = (0.229 + 0.448) / 3, softplus(-1.0)
    logits = torch.ones(1, 1, 2, 2)
    terms = losses.stage_one_loss(made, truth, logits, Perceptual(Passing()), StageOneWeights())
    assert float(terms["l1"]) == pytest.approx(0.2 * l1, rel=1e-5)
    assert float(terms["perceptual"]) == pytest.approx(3.2, rel=1e-5)
    assert float(terms["adversarial"]) == pytest.approx(adversarial, rel=1e-5)
    assert float(terms["total"]) == pytest.approx(0.2 * l1 + 3.2 + adversarial, rel=1e-5)
    code = StageOneWeights(l1=1.0, perceptual=1.0, adversarial=0.1)
    total = losses.stage_one_loss(made, truth, logits, Perceptual(Passing()), code)["total"]
    assert float(total) == pytest.approx(l1 + 3.2 + 0.1 * adversarial, rel=1e-5)
    alone = losses.stage_one_loss(made, truth, None, None, code)
    assert list(alone) == ["l1", "total"] and float(alone["total"]) == pytest.approx(l1, rel=1e-5)


def test_stage_two_by_hand():
    # Probabilities ¼, ¼, ½ for class 2: 0.9·log 2 + 0.1·(log 4 + log 4 + log 2) / 3.
    logits = torch.tensor([[0.0, 0.0, log(2.0)]])
    made, truth = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.25)
    terms = losses.stage_two_loss(logits, torch.tensor([2]), made, truth)
    assert float(terms["l1"]) == 0.25
    assert float(terms["cross_entropy"]) == pytest.approx(0.9 * log(2) + 0.1 * 5 * log(2) / 3, rel=1e-6)
    assert float(terms["total"]) == pytest.approx(0.25 + float(terms["cross_entropy"]), rel=1e-6)


def test_label_smoothing_equals_its_published_form():
    torch.manual_seed(23)
    logits, classes = torch.randn(7, 5, dtype=torch.float64), torch.randint(0, 5, (7,))
    made = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    told = functional.log_softmax(logits, 1)
    chosen = -told.gather(1, classes[:, None])[:, 0]
    for smoothing in (0.0, 0.1, 0.3):
        wanted = ((1 - smoothing) * chosen + smoothing * -told.mean(1)).mean()
        found = losses.stage_two_loss(logits, classes, made, made, smoothing)["cross_entropy"]
        assert torch.allclose(found, wanted, atol=1e-14)
        assert torch.equal(found, functional.cross_entropy(logits, classes, label_smoothing=smoothing))


def test_gradients_of_the_joint_loss_are_the_sum_of_both():
    torch.manual_seed(24)
    model = build("sr-joint", channels=4, growth=2, blocks=1, classes=3, dropout=0.0).double().train()
    rgb, truth = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    classes = torch.tensor([0, 2])
    gradients = {}
    for term in ("total", "l1", "cross_entropy"):
        model.zero_grad(set_to_none=True)
        logits, made = model(rgb)
        losses.stage_two_loss(logits, classes, made, truth)[term].backward()
        gradients[term] = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for name, parameter in model.named_parameters()
        }
    for name, total in gradients["total"].items():
        both = gradients["l1"][name] + gradients["cross_entropy"][name]
        assert torch.allclose(total, both, rtol=1e-10, atol=1e-14), name
        assert total.any(), name
    # The encoder learns from both, each branch from its own.
    assert gradients["l1"]["conv_first.weight"].any() and gradients["cross_entropy"]["conv_first.weight"].any()
    assert not gradients["l1"]["fc.weight"].any() and not gradients["cross_entropy"]["conv_last.weight"].any()
