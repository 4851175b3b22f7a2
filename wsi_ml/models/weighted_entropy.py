"""Cross-entropy whose weights follow the network's own certainty (Zeng, Tang et al. 2023, equations 1 and 2).

As printed, equation 1 lacks its sign and equation 2 grows with the probability of the true class, against the text that
asks for weights in 0…1 that turn to what is still told wrongly. The reading that fits the text is the default here; the
printed form stays as `RISING` for comparison. docs/networks.md has the argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from wsi_ml.errors import BadRequestError

FALLING, RISING = "falling", "rising"
BETA = 3.0
"""Exponent of the probability, best of the paper's table 1."""
RANGE = 100.0
"""The largest weight over the smallest."""
UNLABELLED = -1


def certainty_weights(probability: Tensor, beta: float = BETA, form: str = FALLING) -> Tensor:
    """w(p) = exp(−ln 100 · p^β), from 1 at p = 0 to 0.01 at p = 1; `rising` is the printed exp(+ln 100 · p^β), 1…100.

    Any shape; no gradient flows through the weights. Raises BadRequestError for β < 1 or an unknown form.
    """
    if beta < 1 or form not in (FALLING, RISING):
        raise BadRequestError(
            f"The exponent is at least 1 and the form {FALLING} or {RISING}, not {beta:g} and {form!r}."
        )
    sign = -1.0 if form == FALLING else 1.0
    return torch.exp(sign * math.log(RANGE) * probability.detach() ** beta)


def dynamic_cross_entropy(logits: Tensor, target: Tensor, beta: float = BETA, form: str = FALLING) -> Tensor:
    """Mean over labelled places of −w(p) · log p, p the probability told for the true class.

    `logits` N×C×…, `target` N×… int64 with UNLABELLED where nothing is known. Raises BadRequestError when no place is
    labelled or a class does not exist.
    """
    told = _of_true_class(logits, target)
    return (-certainty_weights(told.exp(), beta, form) * told).mean()


def fixed_cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean over labelled places of −w(class) · log p; plain cross-entropy without `class_weights` (C)."""
    told = _of_true_class(logits, target)
    if class_weights is None:
        return -told.mean()
    return -(class_weights[target[target != UNLABELLED]] * told).mean()


def _of_true_class(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probabilities of the true class at the labelled places, one dimension."""
    labelled = target != UNLABELLED
    if not bool(labelled.any()):
        raise BadRequestError("The batch has no labelled place: the loss of nothing is not defined.")
    classes = logits.shape[1]
    found = target[labelled]
    if int(found.min()) < 0 or int(found.max()) >= classes:
        raise BadRequestError(
            f"The labels run from {int(found.min())} to {int(found.max())}; there are {classes} classes."
        )
    log_probability = functional.log_softmax(logits.float(), dim=1).movedim(1, -1)
    return log_probability[labelled].gather(1, found[:, None])[:, 0]
