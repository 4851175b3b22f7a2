"""The gallery thumbnail: the tissue of a slide, found in its own stored pixels."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_ml.geometry import Region
from wsi_ml.slides.codec import encode_jpeg
from wsi_ml.slides.kernel import halve_pixels

THUMBNAIL_SIDE = 512
QUALITY = 85
MIN_SATURATION = 12
MARGIN = 0.03
MIN_TISSUE = 0.002


MASK_SIDE = 512


def tissue_mask(rgb: np.ndarray) -> np.ndarray:
    """Boolean H×W: pixels more coloured than the background (Otsu's threshold on saturation), specks removed."""
    red, green, blue = cv2.split(rgb)
    spread = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    smooth = cv2.medianBlur(spread, 5) if min(spread.shape) >= 5 else spread
    threshold, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = (smooth > max(threshold, MIN_SATURATION)).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(bool)


def tissue_box(rgb: np.ndarray) -> Region:
    """Box around the tissue with a small margin, found at reduced size; the whole picture where there is hardly any."""
    height, width = rgb.shape[:2]
    small, step = rgb, 1
    while max(small.shape) > MASK_SIDE:
        small, step = halve_pixels(small), 2 * step
    mask = tissue_mask(small)
    if mask.mean() < MIN_TISSUE:
        return Region(0, 0, width, height)
    columns, rows = np.flatnonzero(mask.any(axis=0)) * step, np.flatnonzero(mask.any(axis=1)) * step
    margin = step + round(MARGIN * max(width, height))
    x, y = max(0, int(columns[0]) - margin), max(0, int(rows[0]) - margin)
    x_end, y_end = min(width, int(columns[-1]) + margin), min(height, int(rows[-1]) + margin)
    return Region(x, y, x_end - x, y_end - y)


def make_thumbnail(rgb: np.ndarray) -> bytes:
    """JPEG of the tissue in an overview picture, at most THUMBNAIL_SIDE pixels a side."""
    box = tissue_box(rgb)
    part = rgb[box.y : box.y_end, box.x : box.x_end]
    scale = min(1.0, THUMBNAIL_SIDE / max(box.width, box.height))
    size = (max(1, round(box.width * scale)), max(1, round(box.height * scale)))
    return encode_jpeg(cv2.resize(part, size, interpolation=cv2.INTER_AREA), QUALITY)
