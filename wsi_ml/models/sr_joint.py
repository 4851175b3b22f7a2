"""`sr-joint`: super-resolution ×2 and tissue classes from one encoder (Sun, Khvostikov et al. 2024, figure 3).

The encoder and decoder of `rrdb.py`, and a classifier on the encoder's features: two residual stages of two
bottlenecks, average, dropout, one linear layer. Real-ESRGAN's files fit the encoder and decoder; of their blocks the
first 15 are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from wsi_ml.errors import BadRequestError
from wsi_ml.models.resnet import EXPANSION, pooled, stage
from wsi_ml.models.rrdb import RrdbConfig, RrdbNet

Mode = Literal["sr", "cl", "both"]
STAGE_BLOCKS = 2
"""Bottlenecks a stage: what the paper calls a residual block is a stage of two in the authors' code."""


@dataclass(frozen=True)
class SrJointConfig(RrdbConfig):
    """Shape of the network; the defaults are the paper's."""

    classes: int = 5
    """Tissue classes told: AT, BG, LP, MM, TUM, in this order, in the paper."""
    dropout: float = 0.25
    """Share of pooled features dropped before the last layer, in training."""


class SrJoint(RrdbNet):
    """RRDB encoder (15 blocks) with ×2 decoder and tissue classifier, paper A's main model; RGB 0…1, even sides."""

    config: SrJointConfig

    def __init__(self, config: SrJointConfig | None = None):
        config = config or SrJointConfig()
        super().__init__(config)
        channels = config.channels
        self.layer1 = stage(channels, channels, STAGE_BLOCKS, 2)
        self.layer2 = stage(EXPANSION * channels, EXPANSION * channels, STAGE_BLOCKS, 2)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(EXPANSION * EXPANSION * channels, config.classes)

    def classify(self, features: Tensor) -> Tensor:
        """N×64×112×112 shared features → 256×56² → 1024×28² → N×classes logits (sides for 224 px; any are taken)."""
        return self.fc(self.dropout(pooled(self.layer2(self.layer1(features)))))

    def forward(self, rgb: Tensor, mode: Mode = "both") -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """N×3×H×W → (N×classes logits, N×3×2H×2W picture); one of them, at its own cost only, for `cl` or `sr`."""
        if mode not in ("sr", "cl", "both"):
            raise BadRequestError(f"There is no mode {mode!r}; there are sr, cl and both.")
        features = self.encode(rgb)
        if mode == "sr":
            return self.decode(features)
        if mode == "cl":
            return self.classify(features)
        return self.classify(features), self.decode(features)
