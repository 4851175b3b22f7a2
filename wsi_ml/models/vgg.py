"""`vgg19`: the convolutions of VGG-19 (Simonyan and Zisserman 2015, column E) up to conv5_4, for the perceptual loss.

State-dict names are those of torchvision's files, whose `classifier` is not needed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

from wsi_ml.errors import BadRequestError

CONVOLUTIONS = (2, 2, 4, 4, 4)
"""Convolutions of each stage; a pool halves the picture between stages."""
SMALLEST = 16
"""Sides below this leave nothing after the four pools before conv5_4."""


@dataclass(frozen=True)
class VggConfig:
    """Shape of the network."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each stage."""


def convolution_indices() -> dict[str, int]:
    """conv1_1 … conv5_4 → index in `features`."""
    indices, index = {}, 0
    for stage, count in enumerate(CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            indices[f"conv{stage}_{number}"] = index
            index += 2  # its ReLU follows
        index += 1  # the pool
    return indices


INDICES = convolution_indices()


class Vgg19(nn.Module):
    """VGG-19's convolutions up to conv5_4, for the perceptual loss: normalised RGB → features before their ReLU."""

    def __init__(self, config: VggConfig | None = None):
        super().__init__()
        self.config = config or VggConfig()
        layers: list[nn.Module] = []
        channels = 3
        for width, count in zip(self.config.widths, CONVOLUTIONS, strict=True):
            for _ in range(count):
                # Not in place: a tap is what the ReLU reads.
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: INDICES["conv5_4"] + 1])

    def taps(self, rgb: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """N×3×H×W, normalised by ImageNet's mean and deviation → the named convolutions' results, before their ReLU.

        Runs no further than the last of them. Raises BadRequestError for an unknown name or sides below 16 px.
        """
        unknown = sorted(set(names) - set(INDICES))
        if unknown or not names:
            raise BadRequestError(f"VGG-19 has no layer {', '.join(unknown)!r}; it has {', '.join(INDICES)}.")
        if min(rgb.shape[-2:]) < SMALLEST:
            raise BadRequestError(f"The perceptual loss takes pictures of at least {SMALLEST} × {SMALLEST} pixels.")
        wanted = {INDICES[name]: name for name in names}
        found = {}
        for index in range(max(wanted) + 1):
            rgb = self.features[index](rgb)
            if index in wanted:
                found[wanted[index]] = rgb
        return found

    def forward(self, rgb: Tensor) -> Tensor:
        """N×3×H×W → N×512×H/16×W/16, conv5_4 before its ReLU."""
        return self.taps(rgb, ("conv5_4",))["conv5_4"]
