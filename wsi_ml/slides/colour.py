"""Colours of a scan to sRGB by its ICC profile."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

SAME_COLOUR = 2
"""A profile that moves no test colour by more than this many grey levels is sRGB under another name."""
INTENTS = {
    ImageCms.Intent.PERCEPTUAL: "perceptual",
    ImageCms.Intent.RELATIVE_COLORIMETRIC: "relative",
    ImageCms.Intent.SATURATION: "saturation",
    ImageCms.Intent.ABSOLUTE_COLORIMETRIC: "absolute",
}


class ToSrgb:
    """Applies an ICC profile with the rendering intent the profile itself asks for; without one it does nothing.

    `word` says what is done, as the slide's card records it: `none`, `srgb`, `applied: <intent>`, or
    `unreadable: not applied` for a profile that is damaged or not for RGB.
    """

    def __init__(self, profile: bytes | None):
        self._transform: ImageCms.ImageCmsTransform | None = None
        self.word = "none"
        if profile is None:
            return
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)
        except (ImageCms.PyCMSError, OSError, ValueError):
            self.word = "unreadable: not applied"
            return
        if _moves_colours(transform):
            self._transform = transform
            self.word = f"applied: {INTENTS[intent]}"
        else:
            self.word = "srgb"

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """RGB uint8 H×W×3 in sRGB; the same array where there is nothing to do."""
        if self._transform is None:
            return rgb
        return np.asarray(self._transform.apply(Image.fromarray(rgb)))


def _moves_colours(transform: ImageCms.ImageCmsTransform) -> bool:
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(9, 81, 3)
    moved = np.asarray(transform.apply(Image.fromarray(grid)))
    return int(np.abs(moved.astype(int) - grid).max()) > SAME_COLOUR
