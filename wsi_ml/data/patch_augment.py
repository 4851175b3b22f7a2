"""Variation of patches as paper A does it: one geometry for the ×20 and the ×40 picture, blur where it is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np


class AugmentationSettings(Protocol):
    """What is varied and how far; `train.presets.Augmentation` has these fields and their meanings."""

    @property
    def flip_horizontal(self) -> float:
        """Chance of a mirror image, left for right."""
        ...

    @property
    def flip_vertical(self) -> float:
        """Chance of a mirror image, top for bottom."""
        ...

    @property
    def rotate(self) -> float:
        """Chance of a turn."""
        ...

    @property
    def rotate_degrees(self) -> float:
        """Largest turn to either side."""
        ...

    @property
    def shift(self) -> float:
        """Largest shift that comes with a turn, as a share of the side."""
        ...

    @property
    def zoom(self) -> float:
        """Largest change of size that comes with a turn, as a share."""
        ...

    @property
    def blur(self) -> float:
        """Chance of blur."""
        ...

    @property
    def blur_kind(self) -> str:
        """`gaussian` or `box`."""
        ...

    @property
    def blur_side(self) -> int:
        """Largest side of the blur's kernel in pixels."""
        ...

    @property
    def blur_truth(self) -> bool:
        """Whether the ×40 picture is blurred too."""
        ...


@dataclass(frozen=True)
class Pose:
    """Mirror images, then a turn with change of size and a shift; in shares of the side, so good for any resolution."""

    mirror_x: bool = False
    mirror_y: bool = False
    degrees: float = 0.0
    """Anticlockwise, about the middle."""
    zoom: float = 1.0
    shift_x: float = 0.0
    """To the right, as a share of the width."""
    shift_y: float = 0.0
    """Down, as a share of the height."""

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """The picture in this pose, uint8 H×W×3; what comes in from outside is the picture's mirror image."""
        rgb = rgb[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        if (self.degrees, self.zoom, self.shift_x, self.shift_y) == (0.0, 1.0, 0.0, 0.0):
            return np.ascontiguousarray(rgb)
        height, width = rgb.shape[:2]
        cosine = self.zoom * math.cos(math.radians(self.degrees))
        sine = self.zoom * math.sin(math.radians(self.degrees))
        turn = np.array([[cosine, sine], [-sine, cosine]])
        # Of pixels' middles at half coordinates, so that the two resolutions keep their places to the fraction.
        middle = np.array([width / 2 - 0.5, height / 2 - 0.5])
        shift = middle - turn @ middle + (self.shift_x * width, self.shift_y * height)
        # Cubic: linear interpolation would take from the ×40 picture the fine detail that is to be learned.
        return cv2.warpAffine(
            np.ascontiguousarray(rgb), np.column_stack([turn, shift]), (width, height),
            flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101,
        )  # fmt: skip


def draw_pose(settings: AugmentationSettings | None, rng: np.random.Generator) -> Pose:
    """A random pose; none at all without settings."""
    if settings is None:
        return Pose()
    chances = rng.random(3)
    degrees, zoom, shift_x, shift_y = rng.uniform(-1.0, 1.0, 4)
    mirrors = bool(chances[0] < settings.flip_horizontal), bool(chances[1] < settings.flip_vertical)
    if chances[2] >= settings.rotate:
        return Pose(*mirrors)
    return Pose(
        *mirrors,
        degrees * settings.rotate_degrees,
        1.0 + zoom * settings.zoom,
        shift_x * settings.shift,
        shift_y * settings.shift,
    )


@dataclass(frozen=True)
class Blur:
    """A blur of one kernel, `side` pixels wide (odd); of side 1 it changes nothing."""

    kind: str = "gaussian"
    side: int = 1

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """The blurred picture, uint8 H×W×3."""
        if self.side == 1:
            return rgb
        if self.kind == "box":
            return cv2.blur(rgb, (self.side, self.side))
        return cv2.GaussianBlur(rgb, (self.side, self.side), 0)


def draw_blur(settings: AugmentationSettings | None, rng: np.random.Generator) -> Blur:
    """A random blur with an odd kernel from 3 px up to the settings' largest, by its chance."""
    if settings is None or rng.random() >= settings.blur or settings.blur_side < 3:
        return Blur()
    return Blur(settings.blur_kind, 3 + 2 * int(rng.integers((settings.blur_side - 1) // 2)))


def blur_pair(
    stored: np.ndarray, base: np.ndarray | None, settings: AugmentationSettings | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Blur the ×20 picture and, where `blur_truth` says so, the ×40 picture by as many of its own pixels."""
    blur = draw_blur(settings, rng)
    if base is not None and settings is not None and settings.blur_truth:
        base = blur.apply(base)
    return blur.apply(stored), base
