"""`srresnet` (Ledig et al. 2017, figure 4) and `msrresnet`, its form without batch norm as BasicSR has it.

`msrresnet` bears the state-dict names of BasicSR's files; the first paper came with no PyTorch file, so the names of
`srresnet` follow them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import BadRequestError
from wsi_ml.models.rrdb import start_small

MSR_SLOPE = 0.1
"""Slope of LeakyReLU below zero in `msrresnet`."""


@dataclass(frozen=True)
class SrResNetConfig:
    """Shape of either network."""

    channels: int = 64
    """Channels of every inner layer."""
    blocks: int = 16
    """Residual blocks."""
    scale: int = 2
    """Enlargement: 2 or 4, by sub-pixel convolutions of ×2 each."""

    def __post_init__(self) -> None:
        if self.scale not in (2, 4):
            raise BadRequestError(f"SRResNet enlarges ×2 or ×4, not ×{self.scale}.")


class _NormedBlock(nn.Module):
    """Convolution, batch norm, PReLU, convolution, batch norm beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """N×C×H×W → the same."""
        return features + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(features)))))


class SrResNet(nn.Module):
    """SRResNet, SRGAN's generator, as first published: N×3×H×W RGB 0…1 → N×3×sH×sW; any H, W."""

    def __init__(self, config: SrResNetConfig | None = None):
        super().__init__()
        self.config = config or SrResNetConfig()
        channels = self.config.channels
        self.conv_first = nn.Conv2d(3, channels, 9, padding=4)
        self.prelu_first = nn.PReLU()
        self.body = nn.Sequential(*(_NormedBlock(channels) for _ in range(self.config.blocks)))
        self.conv_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn_body = nn.BatchNorm2d(channels)
        self.upconv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.prelu_up1 = nn.PReLU()
        if self.config.scale == 4:
            self.upconv2 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
            self.prelu_up2 = nn.PReLU()
        self.conv_last = nn.Conv2d(channels, 3, 9, padding=4)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        first = self.prelu_first(self.conv_first(rgb))
        features = first + self.bn_body(self.conv_body(self.body(first)))
        features = self.prelu_up1(functional.pixel_shuffle(self.upconv1(features), 2))
        if self.config.scale == 4:
            features = self.prelu_up2(functional.pixel_shuffle(self.upconv2(features), 2))
        return self.conv_last(features)


class _PlainBlock(nn.Module):
    """Convolution, ReLU, convolution beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        start_small(self.conv1)
        start_small(self.conv2)

    def forward(self, features: Tensor) -> Tensor:
        """N×C×H×W → the same."""
        return features + self.conv2(functional.relu(self.conv1(features), inplace=True))


class MsrResNet(nn.Module):
    """SRResNet without batch norm, over bilinear (BasicSR's MSRResNet): N×3×H×W RGB 0…1 → N×3×sH×sW; any H, W."""

    def __init__(self, config: SrResNetConfig | None = None):
        super().__init__()
        self.config = config or SrResNetConfig()
        channels = self.config.channels
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*(_PlainBlock(channels) for _ in range(self.config.blocks)))
        self.upconv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        outer = [self.conv_first, self.upconv1]
        if self.config.scale == 4:
            self.upconv2 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
            outer.append(self.upconv2)
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)
        for layer in (*outer, self.conv_hr, self.conv_last):
            start_small(layer)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        features = self.body(_msr_leaky(self.conv_first(rgb)))
        features = _msr_leaky(functional.pixel_shuffle(self.upconv1(features), 2))
        if self.config.scale == 4:
            features = _msr_leaky(functional.pixel_shuffle(self.upconv2(features), 2))
        detail = self.conv_last(_msr_leaky(self.conv_hr(features)))
        base = functional.interpolate(
            rgb, scale_factor=float(self.config.scale), mode="bilinear", align_corners=False
        )  # fmt: skip
        return base + detail


def _msr_leaky(features: Tensor) -> Tensor:
    return functional.leaky_relu(features, MSR_SLOPE, inplace=True)
