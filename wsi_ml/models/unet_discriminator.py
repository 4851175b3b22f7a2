"""`unet-discriminator`: a U-Net under spectral norm that judges every pixel (Wang et al. 2021, Real-ESRGAN).

Paper A cites Schönfeld et al. 2020; their encoder's global verdict and CutMix are not in the authors' code, nor here.
State-dict names are those of Real-ESRGAN's discriminator files.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from wsi_ml.errors import BadRequestError
from wsi_ml.models.rrdb import leaky

SMALLEST = 8
"""Sides below this leave nothing after three halvings."""


@dataclass(frozen=True)
class UnetDiscriminatorConfig:
    """Shape of the network."""

    channels: int = 64
    """Channels at full size; two, four and eight times as many after each halving."""


def _normed(into: int, out: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias under spectral norm."""
    # The parametrization that replaced this function names its tensors otherwise than Real-ESRGAN's files.
    return spectral_norm(nn.Conv2d(into, out, side, stride, 1, bias=False))


class UnetDiscriminator(nn.Module):
    """U-Net discriminator with spectral norm: N×3×H×W RGB 0…1 → N×1×H×W logits of “real”; H, W ≥ 8."""

    def __init__(self, config: UnetDiscriminatorConfig | None = None):
        super().__init__()
        self.config = config or UnetDiscriminatorConfig()
        channels = self.config.channels
        self.conv0 = nn.Conv2d(3, channels, 3, padding=1)
        self.conv1 = _normed(channels, 2 * channels, 4, 2)
        self.conv2 = _normed(2 * channels, 4 * channels, 4, 2)
        self.conv3 = _normed(4 * channels, 8 * channels, 4, 2)
        self.conv4 = _normed(8 * channels, 4 * channels)
        self.conv5 = _normed(4 * channels, 2 * channels)
        self.conv6 = _normed(2 * channels, channels)
        self.conv7 = _normed(channels, channels)
        self.conv8 = _normed(channels, channels)
        self.conv9 = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        if min(rgb.shape[-2:]) < SMALLEST:
            raise BadRequestError(f"The discriminator takes pictures of at least {SMALLEST} × {SMALLEST} pixels.")
        whole = leaky(self.conv0(rgb))
        half = leaky(self.conv1(whole))
        quarter = leaky(self.conv2(half))
        eighth = leaky(self.conv3(quarter))
        # Skips are added after the activation, as the weights of Real-ESRGAN expect; out of place, since the
        # activation's gradient needs its result.
        up = leaky(self.conv4(_enlarged(eighth, quarter))) + quarter
        up = leaky(self.conv5(_enlarged(up, half))) + half
        up = leaky(self.conv6(_enlarged(up, whole))) + whole
        return self.conv9(leaky(self.conv8(leaky(self.conv7(up)))))


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    """Bilinear to the size of the skip: exactly ×2 where sides are multiples of 8, and defined for all others."""
    return functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
