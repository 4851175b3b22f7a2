"""`cerberus` on windows of a slide: one task's decoder, or the head of patches slid over the deepest features.

How far the network sees follows from its blocks: with one block a stage 110 px, as published 286 px. A halo that wide
makes windows leave no trace; see `halo_for`. Windows stand on multiples of 16 px, to which it pools.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.data.task_pictures import TYPE
from wsi_ml.errors import ModelUnavailableError
from wsi_ml.inference.card import PredictorCard
from wsi_ml.models.cerberus import CELLS, PATCH, PATCH_CELLS, STRIDE, Cerberus

PATCH_SIDE = PATCH_CELLS * STRIDE
"""Stored pixels on a side of a patch whose class is told."""
MOST_HALO = 160
"""Widest halo that is worth its cost: the paper's program keeps the middle 144 of 448 px, which is 152."""
NEVER = -20.0
"""Logit of what a network without contours tells of them."""
ROUNDING = 1e-6


def encoder_reach(blocks: Sequence[int]) -> int:
    """Stored pixels that the deepest features see to each side of their own cell's first pixel."""
    convolutions = [2 * count for count in blocks]
    # A first convolution of 7, a pooling of 3; then each stage's first convolution steps on the grid above it.
    reach = 3 + 1 + 2 * convolutions[0]
    for number, count in enumerate(convolutions[1:], start=1):
        reach += (1 << number) + (2 << number) * (count - 1)
    return reach


def dense_reach(blocks: Sequence[int]) -> int:
    """Stored pixels that a pixel of a dense task's map sees at most to each side."""
    # Each step of the decoder: two cells of its grid by enlarging, two by its convolutions.
    return encoder_reach(blocks) + sum(4 * cell for cell in CELLS)


def halo_for(blocks: Sequence[int], task: str) -> int:
    """The halo of a task's windows: all that the network sees, or MOST_HALO where it sees more.

    For patches, whose cells are told every 32 px, what is seen beyond the outermost patch and that patch's half.
    """
    if task != PATCH:
        return min(MOST_HALO, _up(dense_reach(blocks), STRIDE))
    return min(MOST_HALO, _up(encoder_reach(blocks), STRIDE)) + PATCH_SIDE // 2 - STRIDE


def is_exact(blocks: Sequence[int], task: str) -> bool:
    """Whether that halo holds all that the network sees."""
    return (encoder_reach(blocks) if task == PATCH else dense_reach(blocks)) <= MOST_HALO


class CerberusMaps(nn.Module):
    """N×3×side×side RGB 0…1 → N×channels×m×m logits of the card's `task`.

    A dense task: each channel against all others, for `sigmoid`, which gives back the network's own shares; with
    `stride` above 1 they are means over stride² pixels. Objects within others (`postprocess.within`) get the others'
    channels too, and instances with classes those of the network's task of types. `patch`: logits of the classes for
    the patch around each cell of the map, for `softmax`.

    Raises ModelUnavailableError for a card that asks for what the network has not or whose windows do not fit its grid.
    """

    def __init__(self, network: Cerberus, card: PredictorCard):
        super().__init__()
        self.network, self.card = network, card
        self.task = str(card.about.get("task", ""))
        self.around = str(card.postprocess.get("within", ""))
        self.types = f"{self.task}{TYPE}" if self.task != PATCH and len(card.classes) > 1 else ""
        self.wanted = [task for task in (self.task, self.around, self.types) if task]
        lacking = sorted(set(self.wanted) - set(network.tasks)) if self.task else ["(none)"]
        if lacking:
            raise ModelUnavailableError(
                f"The card of {card.name} asks for the task {lacking[0]}; its network has {', '.join(network.tasks)}."
            )
        fitting = not any(each % STRIDE for each in (card.side, card.core, card.about.get("multiple", 1)))
        if self.task == PATCH:
            self._margin = card.halo + card.stride // 2 - PATCH_SIDE // 2
            fitting = fitting and self._margin >= 0 and not self._margin % STRIDE and not card.stride % STRIDE
        if not fitting:
            raise ModelUnavailableError(
                f"The card of {card.name} does not fit its network: side, side − 2 · halo and multiple must be "
                f"multiples of {STRIDE} px; for patches stride and halo + stride/2 − {PATCH_SIDE // 2} px as well."
            )

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        if self.task == PATCH:
            return self._patches(self.network.encoder(rgb)[-1])
        kept = {task: told.float() for task, told in self.network(rgb, self.wanted, self.card.halo).items()}
        pairs = [self._pair(kept[self.task])]
        if self.types:
            pairs.append(self._reduced(against_others(kept[self.types][:, 1:])))
        if self.around:
            pairs.append(self._pair(kept[self.around]))
        return torch.cat(pairs, dim=1)

    def _pair(self, logits: Tensor) -> Tensor:
        """Interior and contour of a decoder's background, interior and, if it has it, contour."""
        pair = self._reduced(against_others(logits)[:, 1:])
        return pair if pair.shape[1] == 2 else torch.cat([pair, torch.full_like(pair, NEVER)], dim=1)

    def _reduced(self, logits: Tensor) -> Tensor:
        """Logits of mean probabilities on the map's grid."""
        if self.card.stride == 1:
            return logits
        return functional.avg_pool2d(logits.sigmoid(), self.card.stride).logit(ROUNDING)

    def _patches(self, deepest: Tensor) -> Tensor:
        """Classes of the patch around each cell; the means in fp32, since there are few of them and they decide."""
        head = self.network.patch
        assert head is not None  # noqa: S101 -- the task is among the network's
        first, step, cells = self._margin // STRIDE, self.card.stride // STRIDE, self.card.map_side
        last = first + PATCH_CELLS + (cells - 1) * step
        inside = deepest[:, :, first:last, first:last].float()
        with torch.autocast(deepest.device.type, enabled=False):
            return head(functional.avg_pool2d(inside, PATCH_CELLS, step))


def against_others(logits: Tensor) -> Tensor:
    """N×C×H×W logits of a softmax → logits of each channel against the rest: their sigmoid is that softmax."""
    # log p − log(1 − p), with 1 − p as the sum of the others, which keeps its digits where p is almost 1.
    others = [torch.cat([logits[:, :place], logits[:, place + 1 :]], 1) for place in range(logits.shape[1])]
    rests = torch.stack([each.logsumexp(1) for each in others], dim=1)
    return logits - rests


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
