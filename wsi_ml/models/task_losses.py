"""Losses of several tasks in one batch, of which each sample knows only some (Graham et al. 2022, sections 3.3, 3.4).

Targets of samples without a task are ignored through `has`, N of 0 and 1; a task that no sample has costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from wsi_ml.errors import BadRequestError

TASK_WEIGHTS: Mapping[str, float] = {"lumen": 1.5, "gland": 1.4, "nuclei": 1.0, "gland_type": 1.0, "patch": 0.4}
"""Factors of the authors' program; the paper adds the tasks unweighted."""
NUCLEI_TYPE_WEIGHTS = (0.0, 12.0, 1.0, 2.0, 6.0, 12.0, 2.0)
"""Of the background and the six types of nuclei in the cross-entropy of types."""
FEW = 1e-8
SMOOTH = 1e-3


def instance_loss(logits: Tensor, target: Tensor, weights: Tensor, has: Tensor) -> Tensor:
    """Cross-entropy times the weight map, mean over pixels, then over the samples that have the task.

    `logits` N×C×H×W, `target` N×H×W int64, `weights` N×H×W, `has` N.
    """
    _check(logits, target)
    per_pixel = functional.cross_entropy(logits.float(), target, reduction="none")
    return _mean_over_samples((per_pixel * weights).mean((1, 2)), has)


def patch_loss(logits: Tensor, target: Tensor, has: Tensor) -> Tensor:
    """Cross-entropy of N×C logits and N classes, mean over the samples that have the task."""
    return _mean_over_samples(functional.cross_entropy(logits.float(), target, reduction="none"), has)


def type_loss(logits: Tensor, target: Tensor, class_weights: Tensor, has: Tensor) -> Tensor:
    """Type of each pixel inside an instance: weighted cross-entropy (mean over all pixels) plus foreground Dice.

    Class 0 is the background and weighs 0. Dice (Milletari et al. 2016, eq. 2) is summed over the batch and classes 1…:
    Σ 1 − (2 Σ p·t + s) / (Σ p + Σ t + s) over pixels that have a type; the paper's equation 4 prints Σ p + t there.
    """
    _check(logits, target)
    per_pixel = functional.cross_entropy(logits.float(), target, class_weights, reduction="none")
    entropy = _mean_over_samples(per_pixel.mean((1, 2)), has)
    foreground = ((target > 0) & (has[:, None, None] > 0)).float()
    probability = logits.float().softmax(1)
    dice = logits.new_zeros((), dtype=torch.float32)
    for number in range(1, logits.shape[1]):
        told, true = probability[:, number] * foreground, (target == number).float() * foreground
        dice = dice + 1 - (2 * (told * true).sum() + SMOOTH) / (told.sum() + true.sum() + SMOOTH)
    return entropy + dice * (has.sum() > 0)


def _mean_over_samples(each: Tensor, has: Tensor) -> Tensor:
    return (each * has).sum() / (has.sum() + FEW)


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.shape[2:] != target.shape[1:] or len(logits) != len(target):
        raise BadRequestError(
            f"Label map and prediction differ in size: {tuple(target.shape)} and {tuple(logits.shape)}."
        )
    if target.numel() and (int(target.min()) < 0 or int(target.max()) >= logits.shape[1]):
        raise BadRequestError(
            f"The labels run from {int(target.min())} to {int(target.max())}; there are {logits.shape[1]} classes."
        )
