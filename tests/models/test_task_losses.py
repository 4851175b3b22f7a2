"""Losses of mixed batches by hand: masks, weights, the foreground's Dice."""

import math

import pytest
import torch

from wsi_ml.errors import BadRequestError
from wsi_ml.models.feature_unet import feature_map
from wsi_ml.models.task_losses import SMOOTH, instance_loss, patch_loss, type_loss


def told(probabilities):
    """N×1×W grid of probabilities N×W×C as logits N×C×1×W."""
    return torch.tensor(probabilities).log().permute(0, 2, 1)[:, :, None]


def test_an_instance_loss_is_weighted_by_pixel_and_masked_by_sample():
    logits = told([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [0.4, 0.6]]])
    target = torch.tensor([[[0, 1]], [[1, 1]]])
    weights = torch.tensor([[[1.0, 3.0]], [[1.0, 1.0]]])
    first = (-math.log(0.5) - 3 * math.log(0.1)) / 2
    second = (-math.log(0.8) - math.log(0.6)) / 2
    alone = instance_loss(logits, target, weights, torch.tensor([1.0, 0.0]))
    both = instance_loss(logits, target, weights, torch.tensor([1.0, 1.0]))
    assert float(alone) == pytest.approx(first, rel=1e-5)
    assert float(both) == pytest.approx((first + second) / 2, rel=1e-5)


def test_a_task_that_no_sample_has_costs_nothing_and_sends_no_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target, none = torch.ones(2, 4, 4, dtype=torch.int64), torch.zeros(2)
    loss = instance_loss(logits, target, torch.ones(2, 4, 4), none) + type_loss(logits, target, torch.ones(3), none)
    loss.backward()
    assert float(loss.detach()) == 0 and float(logits.grad.abs().max()) == 0


def test_a_patch_loss_is_the_mean_over_its_samples():
    logits = torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log()
    assert float(patch_loss(logits, torch.tensor([0, 0]), torch.tensor([0.0, 1.0]))) == pytest.approx(-math.log(0.1))


def test_types_count_only_inside_instances():
    logits = told([[[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]])
    target = torch.tensor([[[1, 0]]])
    weights = torch.tensor([0.0, 2.0, 1.0])
    entropy = 2 * -math.log(0.5) / 2  # one of two pixels, weight 2, mean over all pixels
    first = 1 - (2 * 0.5 + SMOOTH) / (0.5 + 1 + SMOOTH)
    second = 1 - SMOOTH / (0.3 + SMOOTH)
    loss = type_loss(logits, target, weights, torch.ones(1))
    assert float(loss) == pytest.approx(entropy + first + second, rel=1e-5)


@pytest.mark.parametrize(
    ("target", "words"), [(torch.zeros(1, 3, 3), "differ in size"), (torch.full((1, 2, 2), 7), "from 7 to 7")]
)
def test_targets_that_do_not_fit_are_refused(target, words):
    with pytest.raises(BadRequestError, match=words):
        instance_loss(torch.zeros(1, 3, 2, 2), target.long(), torch.ones(1, 2, 2), torch.ones(1))


def test_features_are_placed_and_their_gradients_come_back():
    features = torch.arange(6.0).reshape(3, 2).requires_grad_()
    kept, rows, columns = torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([2, 0])
    placed = feature_map(features, kept, rows, columns, 4)
    assert placed.shape == (2, 4, 4)
    assert placed[:, 1, 2].tolist() == [0, 1] and placed[:, 3, 0].tolist() == [4, 5]
    assert float(placed.sum().detach()) == 0 + 1 + 4 + 5
    (placed * 2).sum().backward()
    assert features.grad.tolist() == [[2, 2], [0, 0], [2, 2]]
