"""Exact back-propagation through two networks in the memory of one chunk (Takahama et al. 2019, section 3.3).

A slide has thousands of patches, whose graphs do not fit into memory at once. So the features are computed without a
graph, the second network is differentiated with respect to them, and the first one is run again, chunk by chunk, with
these gradients fed in from the outside. The gradients are those of one whole backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ml.errors import BadRequestError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def split_backward(
    extractor: Callable[[Any], Tensor],
    chunks: Sequence[Any],
    loss_of: Callable[[Tensor], Tensor],
    replay: bool = True,
) -> Tensor:
    """Add the gradients of `loss_of(features of all chunks, joined)` to the parameters of both networks.

    `extractor(chunk)` gives n×F features; `loss_of` places them, runs the second network and gives a scalar. `replay`
    puts the random state of the first run back for the second, so that dropout drops the same. Returns the loss.
    Raises BadRequestError where the two runs cannot be equal; see `check_repeatable`.
    """
    if isinstance(extractor, nn.Module):
        check_repeatable(extractor, replay)
    if not chunks:
        raise BadRequestError("There are no patches: the slide gives nothing to learn from.")
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_states())
            parts.append(extractor(chunk))
    features = torch.cat(parts).requires_grad_()
    loss = loss_of(features)
    loss.backward()
    after = _random_states()
    if features.grad is None:
        raise BadRequestError("The loss does not depend on the features of the patches.")
    gradients = features.grad.split([len(part) for part in parts])
    for chunk, state, gradient in zip(chunks, states, gradients, strict=True):
        if replay:
            _put_back(state)
        # The derivative of Σ gradient · features, whose value means nothing, is that of the loss.
        extractor(chunk).backward(gradient)
    if replay:
        _put_back(after)
    return loss.detach()


def check_repeatable(extractor: nn.Module, replay: bool) -> None:
    """Raise BadRequestError naming the layer for which a second run would not give the first one's features.

    Batch norm in training mode mixes the patches of a chunk and moves its averages at every run; dropout draws anew
    unless the random state is put back.
    """
    for name, layer in extractor.named_modules():
        if isinstance(layer, NORMS) and layer.training:
            raise BadRequestError(
                f"The layer {name} is batch norm in training mode: gradients would not be those of one pass. "
                "Call eval() on it (its averages then stay)."
            )
        if isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.training and layer.p and not replay:
            raise BadRequestError(f"The layer {name} drops at random: set its share to 0, or replay the random state.")


def _random_states() -> list[Tensor]:
    """Random states of the CPU and of each GPU in use."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpus]


def _put_back(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if states[1:]:
        torch.cuda.set_rng_state_all(states[1:])
