"""`takahama-unet`: U-Net on a slide's map of patch features (Takahama et al. 2019, section 3.1).

The paper leaves its details to a supplement that is not at hand: widths, two same-size 3×3 convolutions a level and
learnt enlargement are those of the first U-Net (Ronneberger et al. 2015), as docs/networks.md says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import BadRequestError

DEPTH = 4
"""Halvings: a map of 32 cells a side reaches 2 at the bottom."""


@dataclass(frozen=True)
class TakahamaUnetConfig:
    """Shape of the network."""

    features: int = 16
    """Channels of the map."""
    classes: int = 2
    """Classes of a cell."""
    base: int = 64
    """Channels of the first level, doubled by each further one."""
    normalise: bool = False
    """Batch norm after each convolution, which then has no bias."""


class TakahamaUnet(nn.Module):
    """U-Net of four halvings: N×16×H×W features of patches → N×classes×H×W logits; sides multiples of 16."""

    def __init__(self, config: TakahamaUnetConfig | None = None):
        super().__init__()
        self.config = config or TakahamaUnetConfig()
        widths = [self.config.base << level for level in range(DEPTH + 1)]
        normalise = self.config.normalise
        self.down = nn.ModuleList(
            _twice(channels, out, normalise)
            for channels, out in zip([self.config.features, *widths[:-1]], widths, strict=True)
        )
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[-2::-1])
        self.up = nn.ModuleList(_twice(2 * width, width, normalise) for width in widths[-2::-1])
        self.told = nn.Conv2d(widths[0], self.config.classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """See the class; raises BadRequestError for sides that are no multiples of 16."""
        multiple = 1 << DEPTH
        if features.ndim != 4 or any(side < multiple or side % multiple for side in features.shape[2:]):
            raise BadRequestError(
                f"takahama-unet takes maps with sides that are multiples of {multiple}, not {tuple(features.shape)}."
            )
        levels = [self.down[0](features)]
        for level in list(self.down)[1:]:
            levels.append(level(functional.max_pool2d(levels[-1], 2)))
        below = levels.pop()
        for enlarge, up in zip(self.enlarge, self.up, strict=True):
            below = up(torch.cat([levels.pop(), enlarge(below)], 1))
        return self.told(below)


def _twice(channels: int, out: int, normalise: bool) -> nn.Sequential:
    """Two 3×3 convolutions of the same size with ReLU, batch norm before it where asked."""
    layers: list[nn.Module] = []
    for taken in (channels, out):
        layers.append(nn.Conv2d(taken, out, 3, padding=1, bias=not normalise))
        if normalise:
            layers.append(nn.BatchNorm2d(out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def feature_map(features: Tensor, kept: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """N×F features of patches → F×side×side map, zero where no patch lies; gradients flow back to the features.

    `kept` numbers the patches that lie on the map, at (rows, columns); see `wsi_ml.data.patch_grid.centred`.
    """
    placed = features.new_zeros(features.shape[1], side, side)
    return placed.index_put((torch.arange(features.shape[1])[:, None], rows[None], columns[None]), features[kept].T)
