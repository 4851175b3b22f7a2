"""Gradients in chunks equal those of one whole pass, whatever the chunks."""

import pytest
import torch
from torch import nn

from wsi_ml.errors import BadRequestError
from wsi_ml.models import build
from wsi_ml.models.split_learning import split_backward

PATCHES = 12


def small_extractor(dtype, dropout=0.0):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval(), nn.ReLU(), nn.Dropout(dropout), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 16), nn.Tanh(),
    ).to(dtype)  # fmt: skip


def pieces(dtype=torch.float64, dropout=0.0):
    torch.manual_seed(4)
    extractor = small_extractor(dtype, dropout)
    segmenter = build("takahama-unet", base=4).to(dtype)
    patches = torch.rand(PATCHES, 3, 9, 9, dtype=dtype)
    target = torch.randint(0, 2, (1, 16, 16))

    def loss_of(features):
        placed = torch.zeros(16, 16, 16, dtype=dtype)
        placed[:, 3, 2 : 2 + PATCHES] = features.T
        return nn.functional.cross_entropy(segmenter(placed[None]), target)

    return extractor, segmenter, patches, loss_of


def gradients(*models):
    return torch.cat([parameter.grad.flatten() for model in models for parameter in model.parameters()])


def whole_pass(dtype, dropout=0.0):
    extractor, segmenter, patches, loss_of = pieces(dtype, dropout)
    loss = loss_of(extractor(patches))
    loss.backward()
    return float(loss.detach()), gradients(extractor, segmenter)


@pytest.mark.parametrize("size", [1, 5, PATCHES])
def test_gradients_equal_whole_back_propagation_for_any_chunk(size):
    loss, whole = whole_pass(torch.float64)
    extractor, segmenter, patches, loss_of = pieces(torch.float64)
    split = split_backward(extractor, list(patches.split(size)), loss_of)
    assert float(split) == pytest.approx(loss, rel=1e-14)
    assert float((gradients(extractor, segmenter) - whole).abs().max()) <= 1e-12


def test_single_precision_agrees_to_its_own_rounding():
    _, whole = whole_pass(torch.float32)
    extractor, segmenter, patches, loss_of = pieces(torch.float32)
    split_backward(extractor, list(patches.split(5)), loss_of)
    told = gradients(extractor, segmenter)
    assert float((told - whole).norm() / whole.norm()) <= 1e-4


def test_dropout_is_replayed_so_that_both_runs_agree():
    extractor, segmenter, patches, loss_of = pieces(dropout=0.5)
    torch.manual_seed(9)
    kept = []
    extractor[3].register_forward_hook(lambda _, __, told: kept.append(told.detach() != 0))
    split_backward(extractor, list(patches.split(4)), loss_of)
    assert len(kept) == 6
    assert all(torch.equal(first, again) for first, again in zip(kept[:3], kept[3:], strict=True))
    assert not torch.equal(kept[0], kept[1])
    assert gradients(extractor, segmenter).isfinite().all()


def test_the_random_state_goes_on_as_after_one_pass():
    extractor, _, patches, loss_of = pieces(dropout=0.5)
    torch.manual_seed(9)
    for chunk in patches.split(4):
        extractor(chunk)
    after = torch.get_rng_state()
    torch.manual_seed(9)
    split_backward(extractor, list(patches.split(4)), loss_of)
    assert torch.equal(torch.get_rng_state(), after)


def test_gradients_add_up_over_slides():
    extractor, segmenter, patches, loss_of = pieces()
    chunks = list(patches.split(6))
    split_backward(extractor, chunks, loss_of)
    once = gradients(extractor, segmenter).clone()
    split_backward(extractor, chunks, loss_of)
    assert torch.allclose(gradients(extractor, segmenter), 2 * once)


def test_what_would_break_equality_is_refused_by_the_layers_name():
    extractor, _, patches, loss_of = pieces()
    extractor[1].train()
    with pytest.raises(BadRequestError, match="layer 1 is batch norm in training mode"):
        split_backward(extractor, list(patches.split(4)), loss_of)
    extractor, _, patches, loss_of = pieces(dropout=0.5)
    with pytest.raises(BadRequestError, match="layer 3 drops at random"):
        split_backward(extractor, list(patches.split(4)), loss_of, replay=False)
    with pytest.raises(BadRequestError, match="no patches"):
        split_backward(extractor, [], loss_of)
