"""Tile pictures in bytes: JPEG as the store writes it, PNG and WebP for clients that ask."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
STORE_QUALITY = 95
STORE_SUBSAMPLING = "420"


def encode_jpeg(rgb: np.ndarray, quality: int = STORE_QUALITY, subsampling: str = STORE_SUBSAMPLING) -> bytes:
    """A self-contained baseline YCbCr JPEG of an RGB uint8 H×W×3 array (FFD8 … FFD9)."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling=subsampling, fastdct=False
    )


def decode_jpeg(data: bytes) -> np.ndarray:
    """RGB uint8 H×W×3 of a JPEG; raises ValueError when the bytes are not a readable JPEG."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False)


def encode(rgb: np.ndarray, extension: str, quality: int = STORE_QUALITY) -> bytes:
    """Encode RGB uint8 H×W×3 as `jpg`, `png` (lossless) or `webp`; raises KeyError for any other extension."""
    if extension == "jpg":
        return encode_jpeg(rgb, quality)
    buffer = io.BytesIO()
    if extension == "png":
        Image.fromarray(rgb).save(buffer, "PNG", compress_level=1)
    elif extension == "webp":
        Image.fromarray(rgb).save(buffer, "WEBP", quality=quality, method=1)
    else:
        raise KeyError(extension)
    return buffer.getvalue()
