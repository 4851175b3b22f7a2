"""`efficientnet`: EfficientNet-B0 (Tan and Le 2019, table 1). State-dict names are those of torchvision's files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.models.mobilenet import conv_norm
from wsi_ml.models.resnet import pooled, start_convolutions

# Expansion, side of the depthwise convolution, stride of the first, channels, blocks: table 1 of the paper.
STAGES = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
)  # fmt: skip
FIRST, LAST = 32, 1280


@dataclass(frozen=True)
class EfficientNetConfig:
    """Shape of the network."""

    classes: int = 5
    """Classes told; 1000 in ImageNet's files."""
    dropout: float = 0.2
    """Share of pooled features dropped before the last layer, in training."""
    depth_drop: float = 0.2
    """Chance that the last block is skipped for a picture, in training; falls linearly to 0 at the first block."""


class SqueezeExcitation(nn.Module):
    """Weighs channels by what the whole picture holds (Hu et al. 2018), N×C×H×W → the same."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        inner = functional.silu(self.fc1(functional.adaptive_avg_pool2d(features, 1)), inplace=True)
        return features * torch.sigmoid(self.fc2(inner))


class MbConv(nn.Module):
    """1×1 to `expansion`·into, depthwise, squeeze and excitation, linear 1×1; beside the identity where it fits."""

    def __init__(self, into: int, out: int, side: int, stride: int, expansion: int, drop: float):
        super().__init__()
        inner = into * expansion
        expand = [conv_norm(into, inner, 1, 1, 1, nn.SiLU)] if expansion != 1 else []
        self.block = nn.Sequential(
            *expand,
            conv_norm(inner, inner, side, stride, inner, nn.SiLU),
            SqueezeExcitation(inner, max(1, into // 4)),
            conv_norm(inner, out, 1, 1, 1, None),
        )
        self.residual = stride == 1 and into == out
        self.drop = drop

    def forward(self, features: Tensor) -> Tensor:
        """N×into×H×W → N×out×⌈H/stride⌉×⌈W/stride⌉."""
        inner = self.block(features)
        if not self.residual:
            return inner
        if self.training and self.drop:
            keep = 1.0 - self.drop
            kept = torch.empty((len(inner), 1, 1, 1), dtype=inner.dtype, device=inner.device).bernoulli_(keep)
            inner = inner * (kept / keep)
        return features + inner


class EfficientNet(nn.Module):
    """EfficientNet-B0 classifier: N×3×H×W RGB → N×classes logits; any H, W."""

    def __init__(self, config: EfficientNetConfig | None = None):
        super().__init__()
        self.config = config or EfficientNetConfig()
        layers: list[nn.Module] = [conv_norm(3, FIRST, 3, 2, 1, nn.SiLU)]
        channels, done, total = FIRST, 0, sum(stage[-1] for stage in STAGES)
        for expansion, side, stride, out, blocks in STAGES:
            inner: list[nn.Module] = []
            for number in range(blocks):
                drop = self.config.depth_drop * done / total
                inner.append(MbConv(channels, out, side, stride if number == 0 else 1, expansion, drop))
                channels, done = out, done + 1
            layers.append(nn.Sequential(*inner))
        self.features = nn.Sequential(*layers, conv_norm(channels, LAST, 1, 1, 1, nn.SiLU))
        self.classifier = nn.Sequential(nn.Dropout(self.config.dropout), nn.Linear(LAST, self.config.classes))
        start_convolutions(self)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class; at 224 px the last features have 7 cells a side."""
        return self.classifier(pooled(self.features(rgb)))
