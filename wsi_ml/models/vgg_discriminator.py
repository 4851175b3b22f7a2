"""`vgg-discriminator`: one verdict a picture, for SRGAN and ESRGAN; layers and state-dict names as in BasicSR."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsi_ml.errors import BadRequestError
from wsi_ml.models.rrdb import leaky

LAST_SIDE = 4
"""Cells on a side after the last halving."""
HIDDEN = 100
"""Width of the layer before the verdict."""


@dataclass(frozen=True)
class VggDiscriminatorConfig:
    """Shape of the network."""

    channels: int = 64
    """Channels at full size; doubled by each of the next three halvings, then constant."""
    side: int = 128
    """Side of the pictures it takes: 128 (five halvings) or 256 (six)."""

    def __post_init__(self) -> None:
        if self.side not in (128, 256):
            raise BadRequestError(f"The VGG discriminator is defined for sides 128 and 256, not {self.side}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage; a stage ends with a halving."""
        steps = (1, 2, 4, 8, 8) if self.side == 128 else (1, 2, 4, 8, 8, 8)
        return tuple(self.channels * step for step in steps)


class VggDiscriminator(nn.Module):
    """VGG-style discriminator of SRGAN and ESRGAN: N×3×S×S RGB 0…1 → N×1 logits of “real”; S is the configured side."""

    def __init__(self, config: VggDiscriminatorConfig | None = None):
        super().__init__()
        self.config = config or VggDiscriminatorConfig()
        widths = self.config.widths
        for number, (into, out) in enumerate(zip((3, *widths), widths, strict=False)):
            # Only the first convolution has a bias and no batch norm.
            setattr(self, f"conv{number}_0", nn.Conv2d(into, out, 3, padding=1, bias=number == 0))
            if number:
                setattr(self, f"bn{number}_0", nn.BatchNorm2d(out))
            setattr(self, f"conv{number}_1", nn.Conv2d(out, out, 4, 2, 1, bias=False))
            setattr(self, f"bn{number}_1", nn.BatchNorm2d(out))
        self.linear1 = nn.Linear(widths[-1] * LAST_SIDE**2, HIDDEN)
        self.linear2 = nn.Linear(HIDDEN, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        side = self.config.side
        if tuple(rgb.shape[-2:]) != (side, side):
            raise BadRequestError(f"The VGG discriminator takes {side} × {side} pixels, not {_size(rgb)}.")
        features = rgb
        for number in range(len(self.config.widths)):
            features = getattr(self, f"conv{number}_0")(features)
            if number:
                features = getattr(self, f"bn{number}_0")(features)
            features = leaky(features)
            features = leaky(getattr(self, f"bn{number}_1")(getattr(self, f"conv{number}_1")(features)))
        return self.linear2(leaky(self.linear1(torch.flatten(features, 1))))


def _size(rgb: Tensor) -> str:
    return f"{rgb.shape[-1]} × {rgb.shape[-2]}"
