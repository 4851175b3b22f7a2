"""Augmentations of a ×40 picture that survive a change of stain, scanner and pose; made before the degradation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Ruifrok & Johnston (2001), table 1: optical density of haematoxylin, eosin and DAB in red, green, blue.
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], dtype=np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
UNMIX = np.linalg.inv(STAINS)
DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1.0) / 256.0)


@dataclass(frozen=True)
class AugmentConfig:
    """How far and how often a training picture is changed; 0 switches a change off."""

    stain_chance: float = 0.5
    """Chance that the stains of a picture are changed."""
    stain_gain: float = 0.12
    """Largest relative change of the amount of one stain."""
    stain_shift: float = 0.02
    """Largest added optical density per colour: background tint and lamp brightness."""
    colour_chance: float = 0.1
    """Chance that the three colours change places, so that other stains (DAB brown) are no surprise."""
    sharpness_chance: float = 0.15
    """Chance that the picture is made a little softer or sharper, as another scanner's optics would."""
    sharpness: float = 0.3
    """Largest share of a Gaussian's difference (σ 0.8 px at ×40) that is added or taken away."""


def dihedral(rgb: np.ndarray, pose: int) -> np.ndarray:
    """One of the eight poses of a square grid: `pose` 0…7, of which 4…7 are mirrored first."""
    return np.rot90(rgb[:, ::-1] if pose >= 4 else rgb, pose % 4)


def change_stain(rgb: np.ndarray, gains: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Scale the amount of each stain and shift each colour's optical density; uint8 H×W×3 in and out.

    Density is −ln((grey + 1) / 256); mixing and unmixing are one 3×3 matrix, as both are linear in density.
    """
    matrix = (UNMIX @ np.diag(gains.astype(np.float32)) @ STAINS).T
    density = cv2.transform(DENSITY[rgb], np.column_stack([matrix, shift]).astype(np.float32))
    return np.clip(np.rint(np.exp(-density) * 256.0 - 1.0), 0, 255).astype(np.uint8)


def change_sharpness(rgb: np.ndarray, amount: float) -> np.ndarray:
    """Unsharp mask for a positive `amount`, blur for a negative one; uint8 H×W×3 in and out."""
    soft = cv2.GaussianBlur(rgb, (0, 0), 0.8)
    return cv2.addWeighted(rgb, 1.0 + amount, soft, -amount, 0.0)


def augment(rgb: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A changed copy of a square ×40 picture, uint8 H×W×3, contiguous; the same generator state gives the same copy."""
    rgb = dihedral(rgb, int(rng.integers(8)))
    if rng.random() < config.stain_chance:
        gains = 1.0 + rng.uniform(-config.stain_gain, config.stain_gain, 3)
        rgb = change_stain(rgb, gains, rng.uniform(-config.stain_shift, config.stain_shift, 3))
    if rng.random() < config.colour_chance:
        rgb = rgb[..., rng.permutation(3)]
    if rng.random() < config.sharpness_chance:
        rgb = change_sharpness(np.ascontiguousarray(rgb), float(rng.uniform(-config.sharpness, config.sharpness)))
    return np.ascontiguousarray(rgb)
