"""A network that looks at a whole picture, on windows of a slide: overlapping pictures, faded into each other.

What `esp-psp` tells of a pixel depends on the whole picture, through its averages over 1, 2, 3 and 5 cells a side. Side
by side, two pictures would therefore disagree along their common edge. Here every picture has the side that the network
was trained with; pictures stand half a side apart, on one lattice for the whole slide, and each counts less towards its
edges, down to nothing. The map is then continuous, and it does not depend on the windows: each holds every picture of
the lattice that reaches into its core.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.inference.card import PredictorCard

PIXELS_AT_ONCE = 1 << 19
"""Of the pictures that go through the network together, which keeps the memory that they need in bounds."""


class BlendedMap(nn.Module):
    """N×3×side×side RGB 0…1 → N×classes×m×m logits: means of the four pictures over a map pixel, faded.

    A map pixel is `stride` stored pixels, whose mean the network is shown: a network of ×10 has a stride of 2. The
    card's `picture` is the side of a picture in map pixels, even. Half of it is the halo, and the core is a multiple of
    the halo, or ModelUnavailableError.
    """

    fade: Tensor

    def __init__(self, network: nn.Module, card: PredictorCard):
        super().__init__()
        self.network = network
        self.picture = int(card.about.get("picture", 0))
        self.step = self.picture // 2
        self.stride, halo = card.stride, self.step * card.stride
        fits = self.picture >= 2 and self.picture % 2 == 0 and card.halo == halo and card.core % halo == 0
        if not fits or int(card.about.get("multiple", 1)) % halo:
            raise ModelUnavailableError(
                f"The card of {card.name} does not fit its network: halo must be half of picture ({self.picture} px) "
                "times stride, the core and multiple whole numbers of halos."
            )
        self.core, self.channels = card.map_side, len(card.channels)
        # Hann's window: two of them half a side apart add up to 1, and edges, where padding is seen, hardly count.
        ramp = torch.sin((torch.arange(self.picture) + 0.5) * (math.pi / self.picture)) ** 2
        self.register_buffer("fade", ramp[:, None] * ramp[None, :], persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        rgb = functional.avg_pool2d(rgb, self.stride) if self.stride > 1 else rgb
        starts = range(0, self.core + 1, self.step)
        places = [(y, x) for y in starts for x in starts]
        most = max(1, PIXELS_AT_ONCE // self.picture**2)
        whole = rgb.new_zeros((len(rgb), self.channels, *rgb.shape[2:]))
        for number in range(len(rgb)):
            for first in range(0, len(places), most):
                some = places[first : first + most]
                told = self._told(torch.stack([self._cut(rgb[number], y, x) for y, x in some]))
                for (y, x), logits in zip(some, told, strict=True):
                    whole[number, :, y : y + self.picture, x : x + self.picture] += logits
        inside = slice(self.step, self.step + self.core)
        return whole[:, :, inside, inside]

    def _cut(self, window: Tensor, y: int, x: int) -> Tensor:
        return window[:, y : y + self.picture, x : x + self.picture]

    def _told(self, pictures: Tensor) -> Tensor:
        """Faded logits of pictures, in fp32."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return self.network(pictures, "segmentation").pixels.float() * self.fade
