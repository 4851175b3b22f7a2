"""`takahama-extractor`: GoogLeNet with 16 features before its last layer (Takahama et al. 2019, section 3.1).

The trunk is GoogLeNet (Szegedy et al. 2015, table 1) in one of two forms: `torchvision` (batch norm, 3×3 where the
paper has 5×5, names of its files) or `caffe` (biases, 5×5, local response normalisation, as the first publication).
Pictures are RGB 0…1, as the weights want them: torchvision's take −1…1 of ImageNet's mean and deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import BadRequestError
from wsi_ml.models.resnet import pooled, start_convolutions

STYLES = ("torchvision", "caffe")
ACTIVATIONS = ("relu", "none")
POOLED = 1024
BATCH_NORM_EPS = 1e-3


class Branches(NamedTuple):
    """Channels of an inception module: in, 1×1, reduction and 3×3, reduction and 5×5, after pooling."""

    channels: int
    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pool: int


MODULES = {
    "inception3a": Branches(192, 64, 96, 128, 16, 32, 32),
    "inception3b": Branches(256, 128, 128, 192, 32, 96, 64),
    "inception4a": Branches(480, 192, 96, 208, 16, 48, 64),
    "inception4b": Branches(512, 160, 112, 224, 24, 64, 64),
    "inception4c": Branches(512, 128, 128, 256, 24, 64, 64),
    "inception4d": Branches(512, 112, 144, 288, 32, 64, 64),
    "inception4e": Branches(528, 256, 160, 320, 32, 128, 128),
    "inception5a": Branches(832, 256, 160, 320, 32, 128, 128),
    "inception5b": Branches(832, 384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class TakahamaExtractorConfig:
    """Shape of the network."""

    features: int = 16
    """Features of a patch, which make the slide's feature map."""
    classes: int = 2
    """Classes of a patch; 0 without the last layer, as end-to-end learning runs it."""
    style: str = "torchvision"
    """Form of the trunk: `torchvision` or `caffe`."""
    activation: str = "relu"
    """After the features: `relu`, or `none` (two linear layers in a row then are one)."""
    dropout: float = 0.0
    """Share of pooled features dropped in training; must be 0 where a forward pass is to be repeated exactly."""

    def __post_init__(self) -> None:
        if self.style not in STYLES or self.activation not in ACTIVATIONS:
            raise BadRequestError(
                f"takahama-extractor has the styles {', '.join(STYLES)} and the activations {', '.join(ACTIVATIONS)}, "
                f"not {self.style!r} and {self.activation!r}."
            )


class Convolution(nn.Module):
    """Convolution with ReLU: batch norm in between (`torchvision`) or a bias (`caffe`)."""

    def __init__(self, style: str, channels: int, out: int, side: int, stride: int = 1, padding: int = 0):
        super().__init__()
        plain = style == "caffe"
        self.conv = nn.Conv2d(channels, out, side, stride, padding, bias=plain)
        self.bn = nn.Identity() if plain else nn.BatchNorm2d(out, eps=BATCH_NORM_EPS)

    def forward(self, features: Tensor) -> Tensor:
        """N×channels×H×W → N×out×H'×W'."""
        return functional.relu(self.bn(self.conv(features)), inplace=True)


class Inception(nn.Module):
    """Four ways side by side, joined (Szegedy et al. 2015, figure 2b); the size stays."""

    def __init__(self, style: str, given: Branches):
        super().__init__()
        five = 5 if style == "caffe" else 3
        self.branch1 = Convolution(style, given.channels, given.one, 1)
        self.branch2 = nn.Sequential(
            Convolution(style, given.channels, given.reduce_three, 1),
            Convolution(style, given.reduce_three, given.three, 3, padding=1),
        )
        self.branch3 = nn.Sequential(
            Convolution(style, given.channels, given.reduce_five, 1),
            Convolution(style, given.reduce_five, given.five, five, padding=five // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1, ceil_mode=True), Convolution(style, given.channels, given.pool, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """N×C×H×W → N×(sum of the four)×H×W."""
        return torch.cat([way(features) for way in (self.branch1, self.branch2, self.branch3, self.branch4)], 1)


class TakahamaExtractor(nn.Module):
    """GoogLeNet with a layer of 16 features before the classes; N×3×H×W RGB, from 32 px a side, 224 in the paper."""

    def __init__(self, config: TakahamaExtractorConfig | None = None):
        super().__init__()
        self.config = config or TakahamaExtractorConfig()
        style = self.config.style
        self.conv1 = Convolution(style, 3, 64, 7, 2, 3)
        self.conv2 = Convolution(style, 64, 64, 1)
        self.conv3 = Convolution(style, 64, 192, 3, padding=1)
        for name, given in MODULES.items():
            self.add_module(name, Inception(style, given))
        self.normalise = nn.LocalResponseNorm(5, 1e-4, 0.75) if style == "caffe" else nn.Identity()
        self.dropout = nn.Dropout(self.config.dropout)
        self.features = nn.Linear(POOLED, self.config.features)
        self.fc = nn.Linear(self.config.features, self.config.classes) if self.config.classes else None
        start_convolutions(self)

    def trunk(self, rgb: Tensor) -> Tensor:
        """N×3×H×W → N×1024 averages over the last module's map (7×7 cells at 224 px)."""
        below = self.normalise(_halved(self.conv1(rgb)))
        below = _halved(self.normalise(self.conv3(self.conv2(below))))
        for name in MODULES:
            if name == "inception4a":
                below = _halved(below)
            elif name == "inception5a":
                below = _halved(below, 2 if self.config.style == "torchvision" else 3)
            below = self.get_submodule(name)(below)
        return pooled(below)

    def extract(self, rgb: Tensor) -> Tensor:
        """N×3×H×W → N×16 features."""
        told = self.features(self.dropout(self.trunk(rgb)))
        return functional.relu(told) if self.config.activation == "relu" else told

    def forward(self, rgb: Tensor) -> Tensor:
        """N×3×H×W → N×classes logits, or N×16 features where the last layer is left out."""
        told = self.extract(rgb)
        return told if self.fc is None else self.fc(told)


def _halved(features: Tensor, side: int = 3) -> Tensor:
    """Largest of side×side cells at every second place, the last ones also where they stick out."""
    return functional.max_pool2d(features, side, 2, ceil_mode=True)
