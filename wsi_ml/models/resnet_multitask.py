"""`resnet18-multitask`: segmentation and classes from one ResNet-18, which paper B compares its network with.

The encoder is torchvision's ResNet-18 with its names, so that its files load; the decoder is the plainest U-Net on it.
In the manner of the multi-task method the paper names (Ciga & Martel 2021), not a rebuilding of it. Pictures are RGB
0…1; sides are multiples of 32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import BadRequestError
from wsi_ml.models.cerberus import BasicBlock
from wsi_ml.models.esp_psp import Task, Told
from wsi_ml.models.resnet import start_convolutions

STRIDE = 32


@dataclass(frozen=True)
class ResnetMultitaskConfig:
    """Shape of the network."""

    classes: int = 2
    """Classes of a pixel."""
    picture_classes: int = 2
    """Classes of a whole picture."""
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the four stages; fewer are ours, for small machines."""

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or min(self.widths) < 1:
            raise BadRequestError(f"resnet18-multitask takes four widths, not {self.widths}.")


class ResnetMultitask(nn.Module):
    """ResNet-18 with a U-Net decoder and a linear classifier; RGB 0…1, sides multiples of 32."""

    def __init__(self, config: ResnetMultitaskConfig | None = None):
        super().__init__()
        self.config = config or ResnetMultitaskConfig()
        one, two, three, four = self.config.widths
        self.conv1 = nn.Conv2d(3, one, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(one)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(channels, out, stride), BasicBlock(out, out, 1))
            for channels, out, stride in ((one, one, 1), (one, two, 2), (two, three, 2), (three, four, 2))
        )
        self.fuses = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
            )
            for channels, out in ((four + three, three), (three + two, two), (two + one, one), (one + one, one))
        )
        self.told = nn.Conv2d(one, self.config.classes, 1)
        self.fc = nn.Linear(four, self.config.picture_classes)
        start_convolutions(self)

    def encode(self, rgb: Tensor) -> list[Tensor]:
        """Features at H/2 (64), H/4 (64), H/8 (128), H/16 (256) and H/32 (512)."""
        if rgb.ndim != 4 or rgb.shape[1] != 3 or rgb.shape[2] % STRIDE or rgb.shape[3] % STRIDE:
            raise BadRequestError(f"Sides are multiples of {STRIDE} for resnet18-multitask, not {tuple(rgb.shape)}.")
        features = [functional.relu(self.bn1(self.conv1(rgb)), inplace=True)]
        below = functional.max_pool2d(features[0], 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            below = stage(below)
            features.append(below)
        return features

    def segment(self, features: list[Tensor]) -> Tensor:
        """N×classes×H×W logits of the features of `encode`."""
        below = features[-1]
        for skip, fuse in zip(features[-2::-1], self.fuses, strict=True):
            enlarged = functional.interpolate(below, scale_factor=2.0, mode="bilinear", align_corners=False)
            below = fuse(torch.cat([enlarged, skip], 1))
        return functional.interpolate(self.told(below), scale_factor=2.0, mode="bilinear", align_corners=False)

    def forward(self, rgb: Tensor, task: Task = "both") -> Told:
        """N×3×H×W → what is asked for, each task at its own cost only; raises BadRequestError for another size."""
        features = self.encode(rgb)
        pixels = self.segment(features) if task != "classification" else None
        if task == "segmentation":
            return Told(pixels, None, None)
        return Told(pixels, self.fc(features[-1].mean((2, 3))), None)
