"""`sr-fast`: a small ×2 super-resolution network, wide and shallow, so that the halo a tile needs stays narrow.

All convolutions run at the stored resolution; the last gives the four sub-pixels of every stored pixel (sub-pixel
convolution, Shi et al. 2016, eq. 4). The picture itself takes a second way round: a learnt linear filter in fp32 that
starts as bicubic, so the network only has to add what bicubic lacks, and bf16 rounding touches only that part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALE = 2
SUBPIXELS = SCALE * SCALE
SKIP_SIDE = 5
GREY_CENTRE = 192.0
GREY_UNIT = 64.0
BICUBIC_A = -0.75


@dataclass(frozen=True)
class SrFastConfig:
    """Shape of the network."""

    channels: int = 48
    """Feature channels of every inner layer; multiples of 16 run at full speed."""
    layers: int = 8
    """Inner 3×3 convolutions between the first and the last one."""

    @property
    def halo(self) -> int:
        """Radius of the receptive field in stored pixels: one per 3×3 convolution."""
        return self.layers + 2


class SrFast(nn.Module):
    """N×3×H×W grey levels 0…255 → N×3×2H×2W grey levels, fp32, neither rounded nor clamped; any H, W ≥ 1."""

    def __init__(self, config: SrFastConfig | None = None):
        super().__init__()
        self.config = config or SrFastConfig()
        channels = self.config.channels
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        inner = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(self.config.layers)]
        self.inner = nn.ModuleList(inner)
        self.last = nn.Conv2d(channels, 3 * SUBPIXELS, 3, padding=1)
        self.skip = nn.Conv2d(3, 3 * SUBPIXELS, SKIP_SIDE, bias=False)
        self._start(inner)

    def _start(self, inner: list[nn.Conv2d]) -> None:
        """Start as bicubic: last layer at zero, inner ones near the identity, which saves residual adds at run time."""
        for layer in inner:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            identity = torch.zeros(layer.weight.shape)
            nn.init.dirac_(identity)
            with torch.no_grad():
                layer.weight.mul_(0.3).add_(identity)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.skip.weight.copy_(bicubic_phases())

    def phases(self, grey: Tensor) -> Tensor:
        """N×3×H×W grey levels → N×H×W×12 grey levels, fp32: per stored pixel (top, bottom) × (left, right) × RGB."""
        # Whole grey levels less 192, over a power of two, are exact in bf16: the input loses nothing.
        centred = (grey.float() - GREY_CENTRE) / GREY_UNIT
        features = functional.relu(self.first(centred.to(self.first.weight.dtype)))
        for layer in self.inner:
            features = functional.relu(layer(features), inplace=not self.training)
        detail = self.last(features)
        with torch.autocast(grey.device.type, enabled=False):
            radius = SKIP_SIDE // 2
            base = self.skip(functional.pad(centred, (radius,) * 4, mode="replicate"))
            picture = (base + detail.float()) * GREY_UNIT + GREY_CENTRE
        return picture.permute(0, 2, 3, 1)

    def forward(self, grey: Tensor) -> Tensor:
        """See the class."""
        return interleave(self.phases(grey)).permute(0, 3, 1, 2)


def interleave(phases: Tensor) -> Tensor:
    """N×H×W×12 sub-pixels of `SrFast.phases` → N×2H×2W×3 picture, same dtype."""
    count, height, width, _ = phases.shape
    rows = phases.reshape(count, height, width, SCALE, SCALE * 3).permute(0, 1, 3, 2, 4)
    return rows.reshape(count, SCALE * height, SCALE * width, 3)


def bicubic_phases() -> Tensor:
    """12×3×5×5 weights of ×2 bicubic interpolation (Keys' kernel, a = −0.75 as OpenCV's) in the order of `phases`."""

    def keys(distance: float) -> float:
        d, a = abs(distance), BICUBIC_A
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    offsets = range(-(SKIP_SIDE // 2), SKIP_SIDE // 2 + 1)
    # Sub-pixel centres lie a quarter of a stored pixel left or right of the stored pixel's centre. On the CPU even
    # where networks are made on the meta device, whose arithmetic takes a second to load.
    taps = torch.tensor([[keys(offset - shift) for offset in offsets] for shift in (-0.25, 0.25)], device="cpu")
    weights = torch.zeros(SCALE, SCALE, 3, 3, SKIP_SIDE, SKIP_SIDE, device="cpu")
    for row in range(SCALE):
        for column in range(SCALE):
            for colour in range(3):
                weights[row, column, colour, colour] = torch.outer(taps[row], taps[column])
    return weights.reshape(3 * SUBPIXELS, 3, SKIP_SIDE, SKIP_SIDE)
