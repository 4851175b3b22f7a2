"""`densenet121`: densely connected network (Huang et al. 2017, table 1). State-dict names are those of torchvision."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.models.resnet import pooled, start_convolutions

BOTTLENECK = 4
"""The 1×1 of a layer gives this many times the growth."""


@dataclass(frozen=True)
class DenseNetConfig:
    """Shape of the network."""

    classes: int = 5
    """Classes told; 1000 in ImageNet's files."""
    growth: int = 32
    """Channels that each layer adds."""
    blocks: tuple[int, ...] = (6, 12, 24, 16)
    """Layers of each dense block."""
    first: int = 64
    """Channels before the first block."""
    dropout: float = 0.0
    """Share of pooled features dropped before the last layer, in training."""


class DenseLayer(nn.Module):
    """Norm, ReLU, 1×1, norm, ReLU, 3×3: N×C×H×W → N×(C + growth)×H×W, the input in front."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        inner = self.conv1(functional.relu(self.norm1(features), inplace=True))
        added = self.conv2(functional.relu(self.norm2(inner), inplace=True))
        return torch.cat((features, added), 1)


class Transition(nn.Module):
    """Norm, ReLU, 1×1 to half the channels, average of 2×2."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """N×C×H×W → N×C/2×⌊H/2⌋×⌊W/2⌋."""
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(features), inplace=True)), 2)


class DenseNet(nn.Module):
    """DenseNet-121 classifier: N×3×H×W RGB → N×classes logits; H, W ≥ 29."""

    def __init__(self, config: DenseNetConfig | None = None):
        super().__init__()
        self.config = config or DenseNetConfig()
        channels, growth = self.config.first, self.config.growth
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv0"] = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        layers["norm0"] = nn.BatchNorm2d(channels)
        layers["relu0"] = nn.ReLU(inplace=True)
        layers["pool0"] = nn.MaxPool2d(3, 2, 1)
        for block, count in enumerate(self.config.blocks, start=1):
            dense: OrderedDict[str, nn.Module] = OrderedDict()
            for number in range(1, count + 1):
                dense[f"denselayer{number}"] = DenseLayer(channels, growth)
                channels += growth
            layers[f"denseblock{block}"] = nn.Sequential(dense)
            if block < len(self.config.blocks):
                layers[f"transition{block}"] = Transition(channels)
                channels //= 2
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.dropout = nn.Dropout(self.config.dropout)
        self.classifier = nn.Linear(channels, self.config.classes)
        start_convolutions(self)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class; at 224 px the blocks have 56, 28, 14 and 7 cells a side."""
        return self.classifier(self.dropout(pooled(functional.relu(self.features(rgb), inplace=True))))
