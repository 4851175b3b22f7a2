"""The data-consistency step: synthesised pixels moved, by a bounded amount, to where halving gives the stored ones.

With box2 as the kernel, adding what is missing of a stored pixel to its four pixels is the smallest change that removes
it (the projection of iterative back-projection, Irani and Peleg 1991, whose filter is here the kernel's own). The bound
keeps the step from carrying the noise of the store's JPEG into the picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from wsi_ml.slides.kernel import halve_pixels


def pulled(stored_rgb: np.ndarray, upscaled: np.ndarray, most: int, *, smooth: bool = False) -> np.ndarray:
    """`upscaled` + up(stored − box2(upscaled)), each change at most `most` grey levels; a new RGB uint8 2H×2W×3.

    `up` repeats a difference over its four pixels, or is bicubic when `smooth`. Unbounded and unclamped, repeating
    makes box2 of the result equal `stored_rgb`. `most` 0 changes nothing. Raises ValueError for sizes that do not fit.
    """
    height, width = stored_rgb.shape[:2]
    if upscaled.shape != (2 * height, 2 * width, 3):
        raise ValueError(f"an upscaled picture of shape {upscaled.shape} is not twice one of {stored_rgb.shape}")
    if most <= 0:
        return upscaled
    missing = cv2.subtract(stored_rgb, halve_pixels(np.ascontiguousarray(upscaled)), dtype=cv2.CV_16S)
    np.clip(missing, -most, most, out=missing)
    if smooth:
        change = cv2.resize(missing.astype(np.float32), (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
        change = np.rint(change).clip(-most, most).astype(np.int16)
    else:
        change = missing.repeat(2, axis=0).repeat(2, axis=1)
    return cv2.add(upscaled, change, dtype=cv2.CV_8U)
