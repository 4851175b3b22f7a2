"""The halo that an upscaler needs: how far its network can look, and how far it does look on pictures.

A deep network sees hundreds of pixels in principle and a few dozen in effect: what comes from further away is smaller
than half a grey level. A tile is therefore computed with the halo that pictures show to be enough, not the one that the
layers allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn

from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size, ceil_div, grow
from wsi_ml.models import ARCHITECTURES, build
from wsi_ml.models.rrdb import RrdbNet
from wsi_ml.models.sr_fast import SCALE

Upscale = Callable[[np.ndarray], np.ndarray]
"""RGB uint8 H×W×3 → 2H×2W×3."""

TOLERANCE = 1
"""Grey levels by which tiles joined may differ from one pass: the contract of every upscaler."""
STEP = 8
"""Halos that are tried: multiples of this, so that networks which fold pixels stay on their grid."""
MOST = 128
"""Largest halo tried: a tile of 256 stored pixels is then computed on four times its area."""
TILE_SIDE = 256
"""Stored pixels on a side of a tile of 512 base-plane pixels."""
NARROW = {"channels": 1, "growth": 1}


@dataclass(frozen=True)
class HaloReport:
    """What was found; lengths in stored pixels, differences in grey levels."""

    halo: int
    """Smallest halo tried from which on every larger one tried keeps the tolerance on all pictures."""
    theory: int
    """Radius of the receptive field."""
    differences: tuple[tuple[int, int], ...]
    """(halo, largest difference between tiles joined and one pass), by halo."""
    pictures: int

    @property
    def recommended(self) -> int:
        """For the card: a quarter more than measured, since other pictures may be harder; never beyond the theory."""
        return min(ceil_div(5 * self.halo, 4 * STEP), ceil_div(self.theory, STEP)) * STEP

    def to_json(self) -> dict[str, Any]:
        """As plain values for a card's `training` or notes."""
        return {
            "halo_measured": self.halo,
            "halo_recommended": self.recommended,
            "receptive_radius": self.theory,
            "differences": [list(each) for each in self.differences],
            "pictures": self.pictures,
            "tolerance": TOLERANCE,
        }


def receptive_radius(architecture: str, config: dict[str, Any]) -> int:
    """Stored pixels around a stored pixel that its four base-plane pixels depend on, by the layers alone.

    A NaN is laid on one pixel of a strip and looked for in the output: what it reaches, it reaches through any weights.
    The network is built with one channel, which changes no reach. Raises BadRequestError for an unknown architecture.
    """
    if architecture not in ARCHITECTURES:
        raise BadRequestError(f"There is no architecture {architecture!r}.")
    known = {each.name for each in fields(ARCHITECTURES[architecture][1])}
    model = build(architecture, **{**config, **{name: value for name, value in NARROW.items() if name in known}}).eval()
    length = 64
    while True:
        radius = _strip_radius(model, length)
        if radius < length // 2 - SCALE:
            return radius
        length *= 2


def _strip_radius(model: nn.Module, length: int) -> int:
    """Largest distance that a NaN travels along a strip of `length` stored pixels, from either pixel of a fold."""
    radius = 0
    for middle in (length // 2, length // 2 + 1):
        strip = torch.rand(1, 3, 2, length)
        strip[..., middle] = torch.nan
        with torch.inference_mode():
            made = model.decode(model.encode(strip)) if isinstance(model, RrdbNet) else model(strip)
        reached = torch.nonzero(torch.isnan(made).any(dim=(0, 1, 2))).flatten() // SCALE
        radius = max(radius, int((reached - middle).abs().max()))
    return radius


def measure_halo(
    upscale: Upscale,
    pictures: Sequence[np.ndarray],
    theory: int,
    *,
    side: int = TILE_SIDE,
    most: int = MOST,
    tolerance: int = TOLERANCE,
) -> HaloReport:
    """Smallest halo for which tiles of `side` stored pixels, joined, equal one pass within `tolerance` grey levels.

    `pictures` are RGB uint8, at least two tiles on a side so that seams lie inside; `upscale` needs no halo of its own.
    Halos are multiples of STEP, found by halving. Raises BadRequestError when `most` is not enough, or for pictures
    that hold no seam.
    """
    if not pictures or any(min(each.shape[:2]) < side + STEP for each in pictures):
        raise BadRequestError(f"Pictures to measure a halo on must be larger than a tile of {side} px.")
    wholes = [upscale(each) for each in pictures]
    tried: dict[int, int] = {}

    def difference(steps: int) -> int:
        halo = steps * STEP
        if halo not in tried:
            tried[halo] = max(
                _largest(joined(upscale, each, side, halo), whole) for each, whole in zip(pictures, wholes, strict=True)
            )
        return tried[halo]

    low, high = 0, min(most, ceil_div(theory, STEP) * STEP) // STEP
    if difference(high) > tolerance:
        raise BadRequestError(
            f"A halo of {high * STEP} px is not enough: tiles differ from one pass by {difference(high)} grey levels."
        )
    while high - low > 1:
        middle = (low + high) // 2
        if difference(middle) <= tolerance:
            high = middle
        else:
            low = middle
    return HaloReport(high * STEP, theory, tuple(sorted(tried.items())), len(pictures))


def joined(upscale: Upscale, stored: np.ndarray, side: int, halo: int) -> np.ndarray:
    """A picture upscaled tile by tile, each grown by the halo and clipped at the picture's edge as tiles are."""
    size = Size(stored.shape[1], stored.shape[0])
    whole = np.empty((SCALE * size.height, SCALE * size.width, 3), np.uint8)
    for y in range(0, size.height, side):
        for x in range(0, size.width, side):
            core = Region(x, y, min(side, size.width - x), min(side, size.height - y))
            grown = grow(core, halo, size)
            made = upscale(np.ascontiguousarray(stored[grown.y : grown.y_end, grown.x : grown.x_end]))
            top, left = SCALE * (core.y - grown.y), SCALE * (core.x - grown.x)
            tile = made[top : top + SCALE * core.height, left : left + SCALE * core.width]
            whole[SCALE * core.y : SCALE * core.y_end, SCALE * core.x : SCALE * core.x_end] = tile
    return whole


def random_pictures(count: int, side: int, seed: int = 0) -> list[np.ndarray]:
    """Noise in grains of 1, 4, 16 px and so on in turn, RGB uint8 of full contrast: the hardest pictures for a halo."""
    rng = np.random.default_rng(seed)
    grains = [4 ** (number % 4) for number in range(count)]
    noises = [rng.integers(0, 256, (ceil_div(side, grain), ceil_div(side, grain), 3), np.uint8) for grain in grains]
    return [
        np.ascontiguousarray(noise.repeat(grain, 0).repeat(grain, 1)[:side, :side])
        for noise, grain in zip(noises, grains, strict=True)
    ]


def _largest(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(np.int16) - other).max())
