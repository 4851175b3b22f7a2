"""Weights that follow certainty, worked out by hand."""

import math

import pytest
import torch

from wsi_ml.errors import BadRequestError
from wsi_ml.models.weighted_entropy import (
    RISING,
    UNLABELLED,
    certainty_weights,
    dynamic_cross_entropy,
    fixed_cross_entropy,
)


def logits_of(probabilities):
    return torch.tensor(probabilities).log()


def test_weights_fall_from_one_to_a_hundredth():
    told = certainty_weights(torch.tensor([0.0, 0.5, 1.0]), beta=3)
    assert torch.allclose(told, torch.tensor([1.0, 100 ** -(0.5**3), 0.01]))


def test_the_printed_form_rises_to_a_hundred():
    told = certainty_weights(torch.tensor([0.0, 0.5, 1.0]), beta=1, form=RISING)
    assert torch.allclose(told, torch.tensor([1.0, 10.0, 100.0]), rtol=1e-5)


def test_the_loss_is_the_weighted_mean_over_labelled_places():
    logits = logits_of([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    target = torch.tensor([0, 1, UNLABELLED])
    by_hand = (-(100 ** -(0.5**3)) * math.log(0.5) - (100 ** -(0.1**3)) * math.log(0.1)) / 2
    assert float(dynamic_cross_entropy(logits, target)) == pytest.approx(by_hand, rel=1e-5)


def test_pixels_and_pictures_are_treated_alike():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    flat = logits.movedim(1, -1).reshape(-1, 3)
    whole = dynamic_cross_entropy(logits, target)
    assert torch.allclose(whole, dynamic_cross_entropy(flat, target.reshape(-1)))


def test_the_gradient_treats_the_weight_as_a_number():
    logits = logits_of([[0.3, 0.7]]).requires_grad_()
    dynamic_cross_entropy(logits, torch.tensor([0])).backward()
    weight = 100 ** -(0.3**3)
    assert torch.allclose(logits.grad, weight * torch.tensor([[0.3 - 1, 0.7]]), atol=1e-6)


def test_fixed_weights_and_plain_cross_entropy():
    logits, target = logits_of([[0.5, 0.5], [0.8, 0.2]]), torch.tensor([0, 1])
    assert float(fixed_cross_entropy(logits, target)) == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2, rel=1e-5)
    weighted = fixed_cross_entropy(logits, target, torch.tensor([1.0, 3.0]))
    assert float(weighted) == pytest.approx(-(math.log(0.5) + 3 * math.log(0.2)) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("target", "words"),
    [([UNLABELLED, UNLABELLED], "no labelled place"), ([0, 2], "from 0 to 2"), ([-2, 0], "from -2")],
)
def test_labels_that_say_nothing_or_too_much_are_refused(target, words):
    with pytest.raises(BadRequestError, match=words):
        dynamic_cross_entropy(torch.zeros(2, 2), torch.tensor(target))


@pytest.mark.parametrize(("beta", "form"), [(0.5, "falling"), (3, "flat")])
def test_weights_outside_the_method_are_refused(beta, form):
    with pytest.raises(BadRequestError, match="exponent is at least 1"):
        certainty_weights(torch.tensor([0.5]), beta, form)
