"""The classifier of `sr-joint` on windows: features once a window, their mean over a patch at every cell of the map.

A classifier of patches ends in a mean over the patch's features. Taken over sliding cells, that mean gives every map
pixel the answer for the patch around it, and the encoder runs once where patches one by one would run it
(patch ÷ stride)² times. What differs from patches one by one is only what the layers see beyond the patch: its
neighbourhood here, zero padding there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.inference.card import PredictorCard
from wsi_ml.models.sr_joint import SrJoint

FEATURE_STRIDE = 8
"""Stored pixels a pixel of the last features stands for: folded by 2, halved by each of the two stages."""
PATCH = 224
"""Stored pixels on a side of a patch in training, where the card does not say."""


class PatchClasses(nn.Module):
    """N×3×side×side RGB 0…1 → N×classes×m×m logits, one for the patch centred on each `stride` px of the window's core.

    `patch` px on a side, `halo` px cut off on each side of the window; all multiples that the features can follow, or
    ModelUnavailableError. Equal to the mean over the same features of the whole slide in one pass as far as the layers
    do not see beyond the window; the card's halo holds the patch and, better, some pixels more.
    """

    def __init__(self, network: SrJoint, card: PredictorCard):
        super().__init__()
        self.network = network
        self.patch = int(card.about.get("patch", PATCH))
        # From the window's edge to the edge of the first cell's patch.
        margin = card.halo + card.stride // 2 - self.patch // 2
        fitting = not any(each % FEATURE_STRIDE for each in (self.patch, card.stride, card.side, margin))
        if margin < 0 or self.patch < FEATURE_STRIDE or not fitting:
            raise ModelUnavailableError(
                f"The card of {card.name} does not fit its network: patch, side, stride and halo + stride/2 − patch/2 "
                f"must be multiples of {FEATURE_STRIDE} px, the last one not negative."
            )
        self._first = margin // FEATURE_STRIDE
        self._side = self.patch // FEATURE_STRIDE
        self._step = card.stride // FEATURE_STRIDE
        self._cells = card.map_side

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        features = self._features(rgb)
        last = self._first + self._side + (self._cells - 1) * self._step
        inside = features[:, :, self._first : last, self._first : last]
        with torch.autocast(rgb.device.type, enabled=False):
            means = functional.avg_pool2d(inside.float(), self._side, self._step)
        return self._told(means.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def classify(self, rgb: Tensor) -> Tensor:
        """N×3×P×P RGB 0…1 → N×classes logits of patches by themselves, as in training; P even."""
        return self._told(self._features(rgb).float().mean(dim=(2, 3)))

    def _features(self, rgb: Tensor) -> Tensor:
        return self.network.layer2(self.network.layer1(self.network.encode(rgb)))

    def _told(self, means: Tensor) -> Tensor:
        """Logits of mean features, last axis; in fp32, since there are few of them and they decide."""
        with torch.autocast(means.device.type, enabled=False):
            return self.network.fc(means)


class WholePatches(nn.Module):
    """A classifier of patches as it is: N×3×side×side RGB → N×classes×1×1 logits of the window, which is the patch.

    The card has halo 0 and a stride of `side`, or ModelUnavailableError. Windows that overlap (`overlap`) give a finer
    map, each of whose pixels is the mean of all patches that it lies in.
    """

    def __init__(self, network: nn.Module, card: PredictorCard):
        super().__init__()
        if card.halo or card.stride != card.side:
            raise ModelUnavailableError(
                f"The card of {card.name} does not fit its network, which tells whole patches: halo must be 0 and "
                f"stride the side, {card.side} px."
            )
        self.network = network

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        return self.network(rgb)[:, :, None, None]
