"""`resnet50`: residual network of bottlenecks (He et al. 2016, table 1), stride on the 3×3 as torchvision has it.

State-dict names are those of torchvision's files. Pictures are RGB, normalised as the weights want it: by ImageNet's
mean and deviation for torchvision's files, plain 0…1 in paper A.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4
"""A bottleneck gives this many times its planes."""


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of the network."""

    classes: int = 5
    """Classes told; 1000 in ImageNet's files."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Bottlenecks of each stage."""
    width: int = 64
    """Planes of the first stage, doubled by each further one."""
    dropout: float = 0.0
    """Share of pooled features dropped before the last layer, in training."""


class Bottleneck(nn.Module):
    """1×1 to `planes`, 3×3 with `stride`, 1×1 to 4·planes beside the identity or a 1×1 shortcut; batch norm, ReLU."""

    def __init__(self, channels: int, planes: int, stride: int = 1):
        super().__init__()
        out = EXPANSION * planes
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """N×channels×H×W → N×4·planes×⌈H/stride⌉×⌈W/stride⌉."""
        inner = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        inner = functional.relu(self.bn2(self.conv2(inner)), inplace=True)
        inner = self.bn3(self.conv3(inner))
        shortcut = features if self.downsample is None else self.downsample(features)
        return functional.relu(inner + shortcut, inplace=True)


def stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` bottlenecks, the first with `stride`; gives 4·planes channels."""
    first = Bottleneck(channels, planes, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * planes, planes) for _ in range(1, blocks)))


class ResNet(nn.Module):
    """ResNet-50 classifier: N×3×H×W RGB → N×classes logits; any H, W."""

    def __init__(self, config: ResNetConfig | None = None):
        super().__init__()
        self.config = config or ResNetConfig()
        width = self.config.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        first, second, third, fourth = self.config.blocks
        self.layer1 = stage(width, width, first, 1)
        self.layer2 = stage(EXPANSION * width, 2 * width, second, 2)
        self.layer3 = stage(EXPANSION * 2 * width, 4 * width, third, 2)
        self.layer4 = stage(EXPANSION * 4 * width, 8 * width, fourth, 2)
        self.dropout = nn.Dropout(self.config.dropout)
        self.fc = nn.Linear(EXPANSION * 8 * width, self.config.classes)
        start_convolutions(self)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class; at 224 px the stages give 56, 28, 14 and 7 cells a side."""
        features = self.maxpool(functional.relu(self.bn1(self.conv1(rgb)), inplace=True))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(self.dropout(pooled(features)))


def pooled(features: Tensor) -> Tensor:
    """N×C×H×W → N×C averages over the whole picture."""
    return torch.flatten(functional.adaptive_avg_pool2d(features, 1), 1)


def start_convolutions(model: nn.Module) -> None:
    """He's start by fan-out for every convolution, biases at zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
