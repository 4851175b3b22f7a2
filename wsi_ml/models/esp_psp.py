"""`esp-psp`: U-Net of ESP and PSP modules with a classifier on the encoder (Zeng, Tang et al. 2023, sections 2.1–2.2).

The paper fixes the modules and leaves the widths open; the defaults are those of docs/networks.md. Pictures are RGB
0…1; sides are multiples of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import BadRequestError

RATES = (1, 2, 3, 5)
"""Dilation of the four parallel convolutions of an ESP module."""
BINS = (1, 2, 3, 5)
"""Cells a side of the four average poolings of a PSP module."""
HIDDEN = 128
"""Channels between the two 1×1 convolutions of the classifier."""

Task = Literal["segmentation", "classification", "both"]


@dataclass(frozen=True)
class EspPspConfig:
    """Shape of the network."""

    classes: int = 2
    """Classes of a pixel."""
    picture_classes: int = 2
    """Classes of a whole picture."""
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the four levels; multiples of 4."""

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or any(width < 4 or width % 4 for width in self.widths):
            raise BadRequestError(f"esp-psp takes four widths that are multiples of 4, not {self.widths}.")


class Told(NamedTuple):
    """What the network says of N pictures of H×W; None for a task that was not asked for."""

    pixels: Tensor | None
    """N×classes×H×W logits."""
    pictures: Tensor | None
    """N×picture_classes logits: the mean of the map."""
    class_map: Tensor | None
    """N×picture_classes×H/8×W/8 logits."""


class Esp(nn.Module):
    """Four dilated 3×3 convolutions side by side on a 1×1 reduction, joined: N×C×H×W → N×out×H×W, no bias."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        inner = out // len(RATES)
        self.reduce = nn.Conv2d(channels, inner, 1, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(inner, inner, 3, padding=rate, dilation=rate, bias=False) for rate in RATES
        )

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        reduced = self.reduce(features)
        return torch.cat([branch(reduced) for branch in self.branches], 1)


class Psp(nn.Module):
    """Pyramid pooling: the input and four pooled, convolved (1×1) and enlarged views of it, N×C×H×W → N×2C×H×W."""

    def __init__(self, channels: int):
        super().__init__()
        quarter = channels // len(BINS)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side),
                nn.Conv2d(channels, quarter, 1, bias=False),
                nn.BatchNorm2d(quarter),
                nn.ReLU(inplace=True),
            )
            for side in BINS
        )

    def forward(self, features: Tensor) -> Tensor:
        """See the class; the first C channels are the input."""
        size = features.shape[2:]
        views = [
            functional.interpolate(branch(features), size=size, mode="bilinear", align_corners=False)
            for branch in self.branches
        ]
        return torch.cat([features, *views], 1)


class EspPsp(nn.Module):
    """Segmentation and classification from one encoder of four ESP modules; RGB 0…1, sides multiples of 8."""

    def __init__(self, config: EspPspConfig | None = None):
        super().__init__()
        self.config = config or EspPspConfig()
        widths = self.config.widths
        one, two, three, four = widths
        self.levels = nn.ModuleList(_level(*pair) for pair in zip((3, *widths[:-1]), widths, strict=True))
        self.pyramids = nn.ModuleList(Psp(width) for width in (four, 2 * three, 2 * two, 2 * one))
        self.fuses = nn.ModuleList(
            _normalised(2 * wide, out)
            for wide, out in ((four, three), (2 * three, two), (2 * two, one), (2 * one, one))
        )
        self.told = nn.Conv2d(one, self.config.classes, 1)
        self.classifier = nn.Sequential(
            nn.Conv2d(four, HIDDEN, 1, bias=False),
            nn.BatchNorm2d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Conv2d(HIDDEN, self.config.picture_classes, 1),
        )

    def encode(self, rgb: Tensor) -> list[Tensor]:
        """Features of the four levels: 64 × H×W, 128 × H/2, 256 × H/4, 512 × H/8."""
        if rgb.ndim != 4 or rgb.shape[1] != 3 or min(rgb.shape[2:]) < 8 or rgb.shape[2] % 8 or rgb.shape[3] % 8:
            raise BadRequestError(f"esp-psp takes N×3×H×W with sides that are multiples of 8, not {tuple(rgb.shape)}.")
        features = [self.levels[0](rgb)]
        for level in list(self.levels)[1:]:
            features.append(level(functional.max_pool2d(features[-1], 2)))
        return features

    def segment(self, levels: list[Tensor]) -> Tensor:
        """N×classes×H×W logits of the levels of `encode`."""
        features = self.fuses[0](self.pyramids[0](levels[-1]))
        for skip, pyramid, fuse in zip(levels[-2::-1], self.pyramids[1:], self.fuses[1:], strict=True):
            enlarged = functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            features = fuse(pyramid(torch.cat([enlarged, skip], 1)))
        return self.told(features)

    def forward(self, rgb: Tensor, task: Task = "both") -> Told:
        """N×3×H×W → what is asked for, each task at its own cost only; raises BadRequestError for another size."""
        levels = self.encode(rgb)
        pixels = self.segment(levels) if task != "classification" else None
        if task == "segmentation":
            return Told(pixels, None, None)
        class_map = self.classifier(levels[-1])
        return Told(pixels, class_map.mean((2, 3)), class_map)

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """What only the segmentation uses: step 2 of the training leaves it alone."""
        for part in (self.pyramids, self.fuses, self.told):
            yield from part.parameters()


def _normalised(channels: int, out: int) -> nn.Sequential:
    """3×3 convolution without bias, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def _level(channels: int, width: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU, then an ESP module with batch norm and ReLU."""
    return nn.Sequential(*_normalised(channels, width), Esp(width, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
