"""How pictures of paper C are varied: one affine map for pixels and labels, mirror images, a filter, colours.

Ranges are those of the authors' program. Contrast is changed as the paper says; in their program a slip undoes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

SCALE, SHIFT = 0.1, 0.01
"""Largest change of size along an axis, and of place, as shares."""
SHEAR_DEGREES, TURN_DEGREES = 5.0, 179.0
NOISE = 0.05
"""Largest standard deviation of Gaussian noise, as a share of 255."""
COLOUR_CHANCE = 0.9
HUE, SATURATION, BRIGHTNESS, CONTRAST = 8, 0.2, 26.0, 0.25


def draw_affine(rng: np.random.Generator) -> np.ndarray:
    """Random scale, shear, turn and mirror images as a 2×2 matrix from the result's offsets to the picture's."""
    turn, shear = np.deg2rad(rng.uniform(-TURN_DEGREES, TURN_DEGREES)), np.deg2rad(rng.uniform(-1, 1) * SHEAR_DEGREES)
    scale = np.diag(1.0 / rng.uniform(1 - SCALE, 1 + SCALE, 2))
    mirror = np.diag(np.where(rng.random(2) < 0.5, -1.0, 1.0))
    cosine, sine = math.cos(turn), math.sin(turn)
    return scale @ np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[1, math.tan(shear)], [0, 1]]) @ mirror


def cut_square(maps: Sequence[np.ndarray], side: int, rng: np.random.Generator, vary: bool = True) -> list[np.ndarray]:
    """The same side×side square of maps of one size: anywhere and varied, or the middle as it is.

    Nearest pixel, as the program does it, for colours too. Beyond its edges a map is continued by its mirror image.
    """
    height, width = maps[0].shape[:2]
    half = (side - 1) / 2
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    # The middle of an even map lies between pixels: whole pixels are kept whole.
    centre = np.floor(centre - half) + half
    affine = np.eye(2)
    if vary:
        affine = draw_affine(rng)
        room = np.maximum(np.array([width, height]) - side, 0) / 2
        centre = centre + rng.uniform(-1, 1, 2) * (room + SHIFT * side)
    matrix = np.column_stack([affine, centre - affine @ np.array([half, half])])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return [_warped(each, matrix, side, flags) for each in maps]


def _warped(values: np.ndarray, matrix: np.ndarray, side: int, flags: int) -> np.ndarray:
    # OpenCV warps no 32-bit integers; a float32 holds label numbers up to 16 million exactly.
    wide = values.astype(np.float32) if values.dtype == np.int32 else values
    warped = cv2.warpAffine(wide, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(values.dtype)


def vary_pixels(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of three filters, then by chance hue, saturation, brightness and contrast in random order; uint8 H×W×3."""
    rgb = _filtered(rgb, rng)
    if rng.random() >= COLOUR_CHANCE:
        return rgb
    changes = (_change_hue, _change_saturation, _change_brightness, _change_contrast)
    for place in rng.permutation(len(changes)).tolist():
        rgb = changes[place](rgb, float(rng.uniform(-1, 1)))
    return rgb


def _filtered(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kind, side = int(rng.integers(3)), 1 + 2 * int(rng.integers(3))
    if kind == 0:
        return cv2.GaussianBlur(rgb, (side, side), 0)
    if kind == 1:
        return cv2.medianBlur(rgb, side)
    noise = rng.normal(0, 1, rgb.shape).astype(np.float32) * np.float32(rng.uniform(0, NOISE) * 255)
    return _to_pixels(rgb + noise)


def _change_hue(rgb: np.ndarray, amount: float) -> np.ndarray:
    """Hue is in steps of two degrees, as OpenCV keeps it."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(amount * HUE)) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _change_saturation(rgb: np.ndarray, amount: float) -> np.ndarray:
    factor = 1 + amount * SATURATION
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return _to_pixels(rgb * np.float32(factor) + grey * np.float32(1 - factor))


def _change_brightness(rgb: np.ndarray, amount: float) -> np.ndarray:
    return _to_pixels(rgb + np.float32(amount * BRIGHTNESS))


def _change_contrast(rgb: np.ndarray, amount: float) -> np.ndarray:
    factor = 1 + amount * CONTRAST
    mean = rgb.mean(axis=(0, 1), dtype=np.float32)
    return _to_pixels(rgb * np.float32(factor) + mean * np.float32(1 - factor))


def _to_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
