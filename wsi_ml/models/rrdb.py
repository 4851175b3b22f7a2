"""Networks of residual-in-residual dense blocks: the encoder, `sr-gan-generator`, `esrgan` and `rrdb-plain`.

Blocks as Wang et al. 2018 (ESRGAN, section 3.1), the folded input as Wang et al. 2021 (Real-ESRGAN, section 3.4).
State-dict names are those of Real-ESRGAN's files. Pictures are RGB 0…1 without any normalisation; nothing is clamped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import BadRequestError

SLOPE = 0.2
"""Slope of LeakyReLU below zero, everywhere in these networks."""
RESIDUAL = 0.2
"""Share of a dense block's, and of a whole block's, output that is added to its input."""
START = 0.1
"""Share of He's start at which the convolutions of a dense block begin."""
COLOURS = 3
FOLD = 2
"""Pixels on a side that a ×2 network folds into channels; it enlarges ×4 from there."""


@dataclass(frozen=True)
class RrdbConfig:
    """Shape of an RRDB network; the defaults are paper A's encoder and decoder."""

    channels: int = 64
    """Channels of the shared features."""
    growth: int = 32
    """Channels that each of the first four convolutions of a dense block adds."""
    blocks: int = 15
    """Residual-in-residual dense blocks."""
    scale: int = 2
    """Enlargement: 2 (the input is folded, so its sides are even) or 4 (any size)."""
    pixel_shuffle: bool = False
    """Enlarge by sub-pixel convolution in place of nearest neighbour; see docs/networks.md."""

    def __post_init__(self) -> None:
        if self.scale not in (2, 4):
            raise BadRequestError(f"An RRDB network enlarges ×2 or ×4, not ×{self.scale}.")

    @property
    def fold(self) -> int:
        """Sides of the input are multiples of this."""
        return FOLD if self.scale == 2 else 1


@dataclass(frozen=True)
class EsrganConfig(RrdbConfig):
    """ESRGAN's generator: 23 blocks."""

    blocks: int = 23


@dataclass(frozen=True)
class PlainRrdbConfig(RrdbConfig):
    """The depth whose size is nearest above EDSR's baseline (1.37 M parameters)."""

    blocks: int = 2


class Rdb(nn.Module):
    """Dense block of five 3×3 convolutions, N×C×H×W → the same; the fifth has no activation."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(channels + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(channels + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(channels + 4 * growth, channels, 3, padding=1)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            start_small(layer)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        first = leaky(self.conv1(features))
        second = leaky(self.conv2(torch.cat((features, first), 1)))
        third = leaky(self.conv3(torch.cat((features, first, second), 1)))
        fourth = leaky(self.conv4(torch.cat((features, first, second, third), 1)))
        fifth = self.conv5(torch.cat((features, first, second, third, fourth), 1))
        return features + RESIDUAL * fifth


class Rrdb(nn.Module):
    """Three dense blocks beside the identity, N×C×H×W → the same."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.rdb1 = Rdb(channels, growth)
        self.rdb2 = Rdb(channels, growth)
        self.rdb3 = Rdb(channels, growth)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return features + RESIDUAL * self.rdb3(self.rdb2(self.rdb1(features)))


class RrdbEncoder(nn.Module):
    """RRDB encoder: N×3×H×W RGB 0…1 → N×channels×H/2×W/2 shared features at ×2 (H×W at ×4); see `fold_input`."""

    def __init__(self, config: RrdbConfig | None = None):
        super().__init__()
        self.config = config or RrdbConfig()
        channels = self.config.channels
        self.conv_first = nn.Conv2d(3 * self.config.fold**2, channels, 3, padding=1)
        self.body = nn.Sequential(*(Rrdb(channels, self.config.growth) for _ in range(self.config.blocks)))
        self.conv_body = nn.Conv2d(channels, channels, 3, padding=1)

    def encode(self, rgb: Tensor) -> Tensor:
        """The shared features of a picture; raises BadRequestError for a size that cannot be folded."""
        first = self.conv_first(fold_input(rgb, self.config.fold))
        return first + self.conv_body(self.body(first))

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        return self.encode(rgb)


class RrdbNet(RrdbEncoder):
    """RRDB encoder and decoder without classifier: N×3×H×W RGB 0…1 → N×3×sH×sW; at ×2 H and W are even."""

    def __init__(self, config: RrdbConfig | None = None):
        super().__init__(config)
        channels = self.config.channels
        wide = 4 * channels if self.config.pixel_shuffle else channels
        self.conv_up1 = nn.Conv2d(channels, wide, 3, padding=1)
        self.conv_up2 = nn.Conv2d(channels, wide, 3, padding=1)
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)

    def decode(self, features: Tensor) -> Tensor:
        """N×C×h×w shared features → N×3×4h×4w picture."""
        features = leaky(self._double(features, self.conv_up1))
        features = leaky(self._double(features, self.conv_up2))
        return self.conv_last(leaky(self.conv_hr(features)))

    def _double(self, features: Tensor, layer: nn.Conv2d) -> Tensor:
        if self.config.pixel_shuffle:
            return functional.pixel_shuffle(layer(features), 2)
        return layer(functional.interpolate(features, scale_factor=2.0, mode="nearest"))

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class."""
        return self.decode(self.encode(rgb))


class SrGanGenerator(RrdbNet):
    """Auxiliary generator of paper A's first stage: encoder of 15 RRDBs and decoder, ×2; RGB 0…1, even sides."""


class Esrgan(RrdbNet):
    """ESRGAN's generator, 23 RRDBs, ×2 as Real-ESRGAN x2plus; RGB 0…1, even sides at ×2."""

    def __init__(self, config: RrdbConfig | None = None):
        super().__init__(config or EsrganConfig())


class PlainRrdb(RrdbNet):
    """Two RRDBs, near EDSR's baseline in size, for training by L1 alone; RGB 0…1, even sides at ×2."""

    def __init__(self, config: RrdbConfig | None = None):
        super().__init__(config or PlainRrdbConfig())


def leaky(features: Tensor) -> Tensor:
    """LeakyReLU, in place: its gradient needs only its result."""
    return functional.leaky_relu(features, SLOPE, inplace=True)


def fold_input(rgb: Tensor, fold: int) -> Tensor:
    """N×3×H×W → N×3·fold²×H/fold×W/fold; raises BadRequestError unless it is RGB with sides of a multiple of `fold`."""
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise BadRequestError(f"The network takes pictures N×3×H×W, not of shape {tuple(rgb.shape)}.")
    height, width = rgb.shape[2:]
    if min(height, width) < fold or height % fold or width % fold:
        raise BadRequestError(
            f"A picture of {width} × {height} pixels cannot be taken: width and height must be multiples of {fold}. "
            "Pad or crop it."
        )
    return functional.pixel_unshuffle(rgb, fold) if fold > 1 else rgb


def start_as_bilinear(model: RrdbNet) -> None:
    """Set weights so that a ×2 network begins as bilinear interpolation, away from the border; for short trainings.

    Channels 0…11 of the features carry the picture, the first three of each later layer its colours; the rows that
    make them begin as plain copies, everything else as it was. Needs `pixel_shuffle` (nearest neighbour cannot tell
    even places from odd ones in one layer) and 12 channels; raises BadRequestError otherwise.
    """
    config = model.config
    folded = COLOURS * FOLD**2
    if not config.pixel_shuffle or config.scale != 2 or config.channels < folded:
        raise BadRequestError("A bilinear start needs an RRDB network ×2 with pixel_shuffle and at least 12 channels.")
    copy = torch.zeros(3, 3)
    copy[1, 1] = 1.0
    with torch.no_grad():
        _clear(model.conv_body, folded)
        for layer, rows in ((model.conv_first, folded), (model.conv_up1, folded), (model.conv_hr, COLOURS)):
            _clear(layer, rows)
            for row in range(rows):
                layer.weight[row, row] = copy
        _clear(model.conv_last, COLOURS)
        for colour in range(COLOURS):
            model.conv_last.weight[colour, colour] = copy
        _clear(model.conv_up2, folded)
        sides = (torch.tensor([0.25, 0.75, 0.0]), torch.tensor([0.0, 0.75, 0.25]))
        for row in range(folded):
            colour, place = divmod(row, FOLD**2)
            model.conv_up2.weight[row, colour] = torch.outer(sides[place // FOLD], sides[place % FOLD])


def _clear(layer: nn.Conv2d, rows: int) -> None:
    """The first rows of a convolution at zero, with their biases."""
    layer.weight[:rows] = 0.0
    if layer.bias is not None:
        layer.bias[:rows] = 0.0


def start_small(layer: nn.Conv2d) -> None:
    """He's start (deviation √(2 / inputs)) times START, so that every block begins near the identity; bias at zero."""
    inputs = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=START * (2.0 / inputs) ** 0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
