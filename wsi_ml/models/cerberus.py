"""`cerberus`: one ResNet-34 encoder, one decoder a task, a head for patches (Graham et al. 2022, section 3.1).

Names of the encoder's tensors are torchvision's, so that its ResNet-34 files load. Pictures are RGB 0…1 (grey levels
over 255, no ImageNet normalisation). Sides are multiples of 16.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import BadRequestError
from wsi_ml.models.resnet import start_convolutions

BLOCKS = (3, 4, 6, 3)
"""Residual blocks of ResNet-34's four stages."""
WIDTH = 64
"""Channels of its finest features; those of the stages are 1, 2, 4 and 8 times as many."""
PATCH_CELLS = 9
"""Side of the middle of the deepest features that tells a patch's class: 144 px."""
PATCH_DROPOUT = 0.3
PATCH = "patch"
STRIDE = 16
CELLS = (8, 4, 2, 1)
"""Pixels on a side of a cell after each step of a decoder."""

DEFAULT_TASKS: Mapping[str, int] = {"gland": 3, "lumen": 3, "nuclei": 3}


@dataclass(frozen=True)
class CerberusConfig:
    """Shape of the network."""

    tasks: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_TASKS))
    """Output channels of each dense task's decoder: 3 for background, interior, contour; 2 without contour."""
    patch_classes: int = 9
    """Classes of a patch; 0 for a network without this head."""
    width: int = WIDTH
    """Channels of the finest features; fewer than 64 are ours, for small machines."""
    blocks: tuple[int, ...] = BLOCKS
    """Residual blocks of the four stages."""

    def __post_init__(self) -> None:
        if PATCH in self.tasks or any(not name.isidentifier() or count < 2 for name, count in self.tasks.items()):
            raise BadRequestError(f"cerberus takes tasks as plain names with 2 channels or more, not {self.tasks}.")
        if not self.tasks and not self.patch_classes:
            raise BadRequestError("cerberus needs at least one task.")
        if self.width < 2 or self.width % 2 or len(self.blocks) != len(BLOCKS) or min(self.blocks) < 1:
            raise BadRequestError("cerberus takes an even width and at least one block in each of four stages.")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside the identity or a 1×1 shortcut; batch norm, ReLU (He et al. 2016, figure 2)."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, features: Tensor) -> Tensor:
        """N×channels×H×W → N×out×⌈H/stride⌉×⌈W/stride⌉."""
        inner = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        inner = self.bn2(self.conv2(inner))
        shortcut = features if self.downsample is None else self.downsample(features)
        return functional.relu(inner + shortcut, inplace=True)


class Encoder(nn.Module):
    """ResNet-34 whose first convolution keeps the size: five levels of features, from full size to 1/16."""

    def __init__(self, width: int = WIDTH, counts: Sequence[int] = BLOCKS):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 1, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, channels = [], width
        for number, count in enumerate(counts):
            out = width << number
            blocks = [BasicBlock(channels, out, 1 if number == 0 else 2)]
            blocks += [BasicBlock(out, out, 1) for _ in range(1, count)]
            stages.append(nn.Sequential(*blocks))
            channels = out
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """N×3×H×W → 64 × H, 64 × H/2, 128 × H/4, 256 × H/8, 512 × H/16; of another width in proportion."""
        features = [functional.relu(self.bn1(self.conv1(rgb)), inplace=True)]
        below = functional.max_pool2d(features[0], 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            below = stage(below)
            features.append(below)
        return features


class Decoder(nn.Module):
    """From the deepest features back to full size, adding the encoder's level by level; then a head of two 1×1."""

    def __init__(self, channels: int, width: int = WIDTH):
        super().__init__()
        self.steps = nn.ModuleList(
            nn.Sequential(*_convolved(wide, wide), *_convolved(wide, out))
            for wide, out in ((4 * width, 2 * width), (2 * width, width), (width, width), (width, width))
        )
        head = width * 3 // 2
        self.head = nn.Sequential(
            nn.Conv2d(width, head, 1), nn.BatchNorm2d(head), nn.ReLU(inplace=True), nn.Conv2d(head, channels, 1)
        )

    def forward(self, mapped: Tensor, levels: list[Tensor], halo: int = 0) -> Tensor:
        """N×256×H/16 mapped features and the encoder's levels → N×channels×(H − 2·halo)×(W − 2·halo) logits.

        Within the halo no more is computed than the rest depends on: the result is that of the whole, cut.
        """
        features, cut = mapped, 0
        for step, skip, cell in zip(self.steps, levels[-2::-1], CELLS, strict=True):
            features = functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            # This step's two convolutions, and for each finer one these and two cells by enlarging.
            beyond = max(cut, (halo - 2 * cell - 4 * (cell - 1)) // cell * cell)
            features = step(_without_edge(features, (beyond - cut) // cell) + _without_edge(skip, beyond // cell))
            cut = beyond
        return self.head(_without_edge(features, halo - cut))


class Cerberus(nn.Module):
    """Any set of dense tasks and a patch class from one encoder; N×3×H×W RGB 0…1, sides multiples of 16."""

    def __init__(self, config: CerberusConfig | None = None):
        super().__init__()
        self.config = config or CerberusConfig()
        width = self.config.width
        deepest, mapped = 8 * width, 4 * width
        self.encoder = Encoder(width, self.config.blocks)
        self.conv_map = nn.Conv2d(deepest, mapped, 1, bias=False)
        self.decoders = nn.ModuleDict({name: Decoder(count, width) for name, count in self.config.tasks.items()})
        self.patch: nn.Sequential | None = None
        if self.config.patch_classes:
            self.patch = nn.Sequential(
                nn.BatchNorm2d(deepest),
                nn.ReLU(inplace=True),
                nn.Dropout(PATCH_DROPOUT),
                nn.Conv2d(deepest, mapped, 1),
                nn.BatchNorm2d(mapped),
                nn.ReLU(inplace=True),
                nn.Conv2d(mapped, self.config.patch_classes, 1),
            )
        start_convolutions(self)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of what the network tells: the dense tasks, then `patch`."""
        return (*self.config.tasks, *((PATCH,) if self.patch is not None else ()))

    def forward(self, rgb: Tensor, tasks: Collection[str] | None = None, halo: int = 0) -> dict[str, Tensor]:
        """Logits by task: N×channels×H×W of a dense one, N×classes of `patch`; only those named are computed.

        Dense ones lack `halo` pixels at each side, which saves work and changes nothing else.
        Raises BadRequestError for a size that is no multiple of 16 and for a task that the network does not have.
        """
        if rgb.ndim != 4 or rgb.shape[1] != 3 or min(rgb.shape[2:]) < STRIDE or any(s % STRIDE for s in rgb.shape[2:]):
            raise BadRequestError(
                f"cerberus takes N×3×H×W with sides that are multiples of {STRIDE}, not {tuple(rgb.shape)}."
            )
        unknown = set(tasks or ()) - set(self.tasks)
        if unknown:
            raise BadRequestError(f"The network has no task {sorted(unknown)[0]!r}; it has {', '.join(self.tasks)}.")
        wanted = [name for name in self.tasks if tasks is None or name in tasks]
        levels = self.encoder(rgb)
        told: dict[str, Tensor] = {}
        if any(name != PATCH for name in wanted):
            mapped = self.conv_map(levels[-1])
            told = {name: self.decoders[name](mapped, levels, halo) for name in wanted if name != PATCH}
        if PATCH in wanted:
            told[PATCH] = self.classify(levels[-1])
        return told

    def classify(self, deepest: Tensor) -> Tensor:
        """N×512×h×w deepest features → N×classes logits of the patch in their middle (9×9 cells, or all if fewer)."""
        if self.patch is None:
            raise BadRequestError("The network has no head for patches.")
        pooled = functional.adaptive_avg_pool2d(_middle(deepest, PATCH_CELLS), 1)
        return torch.flatten(self.patch(pooled), 1)


def _middle(features: Tensor, side: int) -> Tensor:
    """The middle side×side cells; all of them along an axis that has no more."""
    height, width = features.shape[2:]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return features[:, :, top : top + min(height, side), left : left + min(width, side)]


def _without_edge(features: Tensor, cells: int) -> Tensor:
    """Features without so many cells at each side."""
    return features[:, :, cells : features.shape[2] - cells, cells : features.shape[3] - cells] if cells else features


def _convolved(channels: int, out: int) -> tuple[nn.Module, ...]:
    """3×3 convolution with bias, batch norm, ReLU."""
    return nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
