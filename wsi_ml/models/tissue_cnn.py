"""`tissue-cnn`: a small fully convolutional classifier of tissue: a vector of classes for the 224 px around each 32 px.

It pools by average over a fixed field, so a window of 224 px gives one vector and a larger one a grid of them, each
equal to what its own 224 px would give. No normalisation layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.models.nuclei_unet import Residual, start

FOLD = 4
"""Stored pixels on a side that the first convolution takes together."""
GRID = 16
"""Stored pixels a cell of the coarsest grid: window origins are multiples of it."""
STRIDE = 32
"""Stored pixels a map pixel."""
FIELD = 128
"""Stored pixels on a side of the average."""
EDGE = 48
"""Stored pixels beyond the average's field that reach into it: 4 (3×3 at 4 px a cell), 8 (at 8), 32 (two at 16)."""
HALO = 96
"""Stored pixels on each side of a window that its map leaves out: EDGE and (FIELD − STRIDE) / 2."""


@dataclass(frozen=True)
class TissueCnnConfig:
    """Shape of the network."""

    classes: int = 6
    """Classes told."""
    channels: int = 32
    """Feature channels of the finest grid; twice and three times as many on the coarser ones. Multiples of 16."""

    @property
    def halo(self) -> int:
        """Stored pixels on each side of a window that its map leaves out."""
        return HALO


class TissueCnn(nn.Module):
    """N×3×S×S RGB 0…1 → N×classes×m×m logits, m = (S − 192) / 32; S ≥ 224."""

    def __init__(self, config: TissueCnnConfig | None = None):
        super().__init__()
        self.config = config or TissueCnnConfig()
        fine = self.config.channels
        middle, coarse = 2 * fine, 3 * fine
        self.first = nn.Conv2d(3, fine, FOLD, stride=FOLD)
        self.fine = nn.Conv2d(fine, fine, 3, padding=1)
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle = nn.Conv2d(middle, middle, 3, padding=1)
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = Residual(coarse)
        self.words = nn.Conv2d(coarse, coarse, 1)
        self.last = nn.Conv2d(coarse, self.config.classes, 1)
        for layer in (self.first, self.fine, self.to_middle, self.middle, self.to_coarse, self.words):
            start(layer)
        start(self.last, 0.1)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        features = functional.relu(self.first(rgb * 2.0 - 1.0))
        features = functional.relu(self.fine(features))
        features = functional.relu(self.to_middle(features))
        features = functional.relu(self.middle(features))
        features = self.coarse(functional.relu(self.to_coarse(features)))
        edge = EDGE // GRID
        words = functional.relu(self.words(features[:, :, edge:-edge, edge:-edge]))
        return self.last(functional.avg_pool2d(words, FIELD // GRID, STRIDE // GRID))
