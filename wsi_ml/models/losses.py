"""Losses of super-resolution and of the joint network: L1, perceptual, adversarial, and the two stages of paper A.

Pictures are N×3×H×W RGB 0…1; every loss is a scalar mean, not summed over the batch. docs/networks.md has the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.models.foreign import load_partial
from wsi_ml.models.vgg import Vgg19

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
PAPER_TAPS: Mapping[str, float] = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
"""Layers of VGG-19 and their weights, as Real-ESRGAN and paper A's code have them."""
ESRGAN_TAPS: Mapping[str, float] = {"conv5_4": 1.0}
"""The one layer of ESRGAN and SRGAN in BasicSR."""
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class StageOneWeights:
    """Factors of the terms of the first stage (paper A, equation 2)."""

    l1: float = 0.2
    perceptual: float = 1.0
    adversarial: float = 1.0


class Perceptual(nn.Module):
    """Σ weight · L1 between VGG-19's features of two pictures, before their ReLU (Johnson et al. 2016).

    Pictures RGB 0…1 are normalised by ImageNet's mean and deviation. The backbone is frozen.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: Vgg19, taps: Mapping[str, float] = PAPER_TAPS):
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.weights = dict(taps)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, made: Tensor, truth: Tensor) -> Tensor:
        """The loss of a made picture; no gradient flows into the truth."""
        made_taps = self.backbone.taps(self._normalised(made), self.weights)
        with torch.no_grad():
            truth_taps = self.backbone.taps(self._normalised(truth), self.weights)
        return torch.stack(
            [weight * functional.l1_loss(made_taps[name], truth_taps[name]) for name, weight in self.weights.items()]
        ).sum()

    def _normalised(self, rgb: Tensor) -> Tensor:
        return (rgb - self.mean) / self.deviation


def open_perceptual(weights: Path | None, taps: Mapping[str, float] = PAPER_TAPS) -> Perceptual:
    """The perceptual loss with VGG-19's weights from a safetensors file with torchvision's names.

    Raises ModelUnavailableError without a file, and for one that is unreadable or lacks a convolution.
    """
    if weights is None or not weights.is_file():
        what = "no file is given" if weights is None else f"there is no file {weights.name}"
        raise ModelUnavailableError(
            f"The perceptual loss needs the weights of VGG-19, and {what}. Convert torchvision's file by "
            "`python -m train.convert vgg19.pth vgg19.safetensors --architecture vgg19`, or train without this term."
        )
    backbone = Vgg19()
    report = load_partial(backbone, weights)
    if report.missing:
        raise ModelUnavailableError(f"{weights.name} is no whole VGG-19: it lacks {', '.join(report.missing)}.")
    return Perceptual(backbone, taps)


def verdict_loss(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of a discriminator's logits against the label 1 (`real`) or 0, mean over all verdicts."""
    wanted = torch.ones_like(logits) if real else torch.zeros_like(logits)
    return functional.binary_cross_entropy_with_logits(logits, wanted)


def generator_verdict_loss(made_logits: Tensor) -> Tensor:
    """What a generator gains by being taken for real: −log σ of the made picture's logits."""
    return verdict_loss(made_logits, True)


def discriminator_loss(real_logits: Tensor, made_logits: Tensor) -> Tensor:
    """BCE(real, 1) + BCE(made, 0), unweighted; the made picture must be detached by the caller."""
    return verdict_loss(real_logits, True) + verdict_loss(made_logits, False)


def relativistic_generator_loss(real_logits: Tensor, made_logits: Tensor) -> Tensor:
    """ESRGAN's relativistic average loss (equation 2 there), halved as in BasicSR; real logits get no gradient."""
    real = real_logits.detach()
    return 0.5 * (verdict_loss(real - made_logits.mean(), False) + verdict_loss(made_logits - real.mean(), True))


def relativistic_discriminator_loss(real_logits: Tensor, made_logits: Tensor) -> Tensor:
    """ESRGAN's relativistic average loss (equation 1 there), halved as in BasicSR."""
    above = verdict_loss(real_logits - made_logits.mean(), True)
    return 0.5 * (above + verdict_loss(made_logits - real_logits.mean(), False))


def stage_one_loss(
    made: Tensor,
    truth: Tensor,
    made_logits: Tensor | None,
    perceptual: Perceptual | None,
    weights: StageOneWeights,
) -> dict[str, Tensor]:
    """Weighted terms `l1`, `perceptual`, `adversarial` and their sum `total`.

    A term whose network is None is left out: the caller has then been told to train without it, or warms up by L1.
    """
    terms = {"l1": weights.l1 * functional.l1_loss(made, truth)}
    if perceptual is not None:
        terms["perceptual"] = weights.perceptual * perceptual(made, truth)
    if made_logits is not None:
        terms["adversarial"] = weights.adversarial * generator_verdict_loss(made_logits)
    return {**terms, "total": torch.stack(list(terms.values())).sum()}


def stage_two_loss(
    logits: Tensor, classes: Tensor, made: Tensor, truth: Tensor, smoothing: float = LABEL_SMOOTHING
) -> dict[str, Tensor]:
    """`l1` of the picture, label-smoothed `cross_entropy` of N×K logits and N classes, and their sum `total`."""
    l1 = functional.l1_loss(made, truth)
    cross_entropy = functional.cross_entropy(logits, classes, label_smoothing=smoothing)
    return {"l1": l1, "cross_entropy": cross_entropy, "total": l1 + cross_entropy}
