"""`mobilenet`: MobileNetV2 (Sandler et al. 2018, table 2). State-dict names are those of torchvision's files."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from wsi_ml.models.resnet import pooled, start_convolutions

# Expansion, channels, blocks, stride of the first: table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST, LAST = 32, 1280


@dataclass(frozen=True)
class MobileNetConfig:
    """Shape of the network."""

    classes: int = 5
    """Classes told; 1000 in ImageNet's files."""
    dropout: float = 0.2
    """Share of pooled features dropped before the last layer, in training."""


def conv_norm(
    into: int, out: int, side: int, stride: int, groups: int, activation: type[nn.Module] | None
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, batch norm, activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(into, out, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, *([activation(inplace=True)] if activation is not None else []))


class InvertedResidual(nn.Module):
    """1×1 to `expansion`·into, depthwise 3×3, linear 1×1 to `out`; beside the identity where the shape allows it."""

    def __init__(self, into: int, out: int, stride: int, expansion: int):
        super().__init__()
        inner = into * expansion
        expand = [conv_norm(into, inner, 1, 1, 1, nn.ReLU6)] if expansion != 1 else []
        depthwise = conv_norm(inner, inner, 3, stride, inner, nn.ReLU6)
        self.conv = nn.Sequential(*expand, depthwise, nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out))
        self.residual = stride == 1 and into == out

    def forward(self, features: Tensor) -> Tensor:
        """N×into×H×W → N×out×⌈H/stride⌉×⌈W/stride⌉."""
        return features + self.conv(features) if self.residual else self.conv(features)


class MobileNet(nn.Module):
    """MobileNetV2 classifier: N×3×H×W RGB → N×classes logits; any H, W."""

    def __init__(self, config: MobileNetConfig | None = None):
        super().__init__()
        self.config = config or MobileNetConfig()
        layers: list[nn.Module] = [conv_norm(3, FIRST, 3, 2, 1, nn.ReLU6)]
        channels = FIRST
        for expansion, out, blocks, stride in STAGES:
            for number in range(blocks):
                layers.append(InvertedResidual(channels, out, stride if number == 0 else 1, expansion))
                channels = out
        self.features = nn.Sequential(*layers, conv_norm(channels, LAST, 1, 1, 1, nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(self.config.dropout), nn.Linear(LAST, self.config.classes))
        start_convolutions(self)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class; at 224 px the last features have 7 cells a side."""
        return self.classifier(pooled(self.features(rgb)))
