"""`nuclei-unet`: a small U-Net that tells the inside and the rim of nuclei at ×20, made for two CPU cores.

The picture is folded 2 × 2 into channels first, so the costly layers run at half the resolution; three such grids
(2, 4 and 8 stored pixels a cell) see far enough for a nucleus and its neighbours. There is no normalisation layer: what
a pixel gets depends only on the pixels within the halo, and a window's map equals the same part of a larger window's.
Residual blocks (He et al. 2016) with a small start keep it trainable without one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

FOLD = 2
"""Stored pixels on a side that are folded into channels; also how the map is unfolded again."""
GRID = 8
"""Stored pixels a cell of the coarsest grid: window origins and (side − 2·halo) are multiples of it."""
HALO = 64
"""Stored pixels, a multiple of GRID, that cover the receptive field: see `NucleiUnet.reach`."""
MAPS = 2
START = 0.3
"""Share of its usual size at which a residual branch starts."""


@dataclass(frozen=True)
class NucleiUnetConfig:
    """Shape of the network."""

    channels: int = 32
    """Feature channels of the finest grid; twice and three times as many on the coarser ones. Multiples of 16."""

    @property
    def halo(self) -> int:
        """Stored pixels on each side of a window that its map leaves out."""
        return HALO


class Residual(nn.Module):
    """Two 3×3 convolutions beside the identity, N×C×H×W → N×C×H×W."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        start(self.first)
        start(self.second, START)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        inner = functional.relu(self.first(features), inplace=not self.training)
        return functional.relu(features + self.second(inner))


class NucleiUnet(nn.Module):
    """N×3×S×S RGB 0…1 → N×2×(S−128)×(S−128) logits of interior and rim; S ≥ 136 and a multiple of 8.

    The convolutions pad with zeros, and the halo that the map leaves out holds all that this touches.
    """

    def __init__(self, config: NucleiUnetConfig | None = None):
        super().__init__()
        self.config = config or NucleiUnetConfig()
        fine = self.config.channels
        middle, coarse = 2 * fine, 3 * fine
        self.first = nn.Conv2d(3 * FOLD * FOLD, fine, 3, padding=1)
        self.fine_in = nn.Conv2d(fine, fine, 3, padding=1)
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle_in = Residual(middle)
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = nn.Sequential(Residual(coarse), Residual(coarse))
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.middle_out = Residual(middle)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.fine_out = Residual(fine)
        self.last = nn.Conv2d(fine, MAPS * FOLD * FOLD, 1)
        for layer in (self.first, self.fine_in, self.to_middle, self.to_coarse):
            start(layer)
        for layer in (self.from_coarse, self.from_middle):
            start(layer, 0.7)
        start(self.last, 0.1)

    @property
    def reach(self) -> int:
        """Stored pixels that the value of a map cell of GRID pixels depends on, on each side of that cell.

        Outwards from the cell, rounded up to whole cells of each grid: two convolutions on the fine grid (2 px a cell,
        4 px), two on the middle one (4 px: 8, from 4 makes 12), four on the coarse one (8 px: 32, from 12 rounded to 16
        makes 48), two on the middle one (8, makes 56), two on the fine one (4, makes 60).
        """
        return 60

    def forward(self, rgb: Tensor, whole: bool = False) -> Tensor:
        """See the class; with `whole` N×2×S×S with the halo, where the border's zeros are felt (for training)."""
        centred = rgb * 2.0 - 1.0
        fine = functional.relu(self.first(functional.pixel_unshuffle(centred, FOLD)))
        fine = functional.relu(self.fine_in(fine))
        middle = self.middle_in(functional.relu(self.to_middle(fine)))
        coarse = self.coarse(functional.relu(self.to_coarse(middle)))
        middle = self.middle_out(functional.relu(middle + double(self.from_coarse(coarse))))
        fine = self.fine_out(functional.relu(fine + double(self.from_middle(middle))))
        if not whole:
            edge = HALO // FOLD
            fine = fine[:, :, edge:-edge, edge:-edge]
        return functional.pixel_shuffle(self.last(fine), FOLD)


def double(features: Tensor) -> Tensor:
    """Each cell as 2 × 2 equal ones: no neighbour is read, so nothing is added to the reach."""
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


def start(layer: nn.Conv2d, share: float = 1.0) -> None:
    """He's start for ReLU, times `share`; biases at zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    with torch.no_grad():
        layer.weight.mul_(share)
        layer.bias.zero_()  # type: ignore[union-attr]
