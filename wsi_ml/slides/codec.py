"""Tile pictures in bytes: JPEG as the store writes it; JPEG, PNG and WebP of pixels made for one answer."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
SERVED_QUALITY = 95
"""Quality of JPEG and WebP made for an answer (synthesised tiles, other formats); never of what is stored."""
SERVED_SUBSAMPLING = "420"
STORE_STEPS = (5, 7)
"""Quantisation steps of the store's JPEG: one for all frequencies of the luma, one for all of the chroma."""
STORE_STEPS_SUBSAMPLING = "444"
_PILLOW_SUBSAMPLING = {"444": 0, "422": 1, "420": 2}


def encode_jpeg(rgb: np.ndarray, quality: int = SERVED_QUALITY, subsampling: str = SERVED_SUBSAMPLING) -> bytes:
    """A self-contained baseline YCbCr JPEG (FFD8 … FFD9) of RGB uint8 H×W×3, with Annex K's tables at `quality`."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling=subsampling, fastdct=False
    )


def encode_steps(
    rgb: np.ndarray,
    steps: tuple[int, int] = STORE_STEPS,
    subsampling: str = STORE_STEPS_SUBSAMPLING,
    optimize: bool = False,
) -> bytes:
    """A self-contained baseline YCbCr JPEG with equal quantisation steps (luma, chroma: 1…255); the store's by default.

    The tables of Annex K round away the highest frequencies first, as an eye that sees the picture as it is would not
    miss them. The store's pictures are enlarged by a network that builds on just these: equal steps serve it best.
    `optimize` fits the Huffman codes to the picture: the same pixels in 2 to 4 % fewer bytes, in three times the time,
    which is why ingestion does without.
    """
    luma, chroma = steps
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(
        buffer,
        "JPEG",
        qtables=[[luma] * 64, [chroma] * 64],
        subsampling=_PILLOW_SUBSAMPLING[subsampling],
        optimize=optimize,
    )
    return buffer.getvalue()


def steps_text(steps: tuple[int, int] = STORE_STEPS, subsampling: str = STORE_STEPS_SUBSAMPLING) -> str:
    """The encoding in words, by default the store's: `JPEG steps 5/7 4:4:4`."""
    return f"JPEG steps {steps[0]}/{steps[1]} {':'.join(subsampling)}"


def decode_jpeg(data: bytes) -> np.ndarray:
    """RGB uint8 H×W×3 of a JPEG; raises ValueError when the bytes are not a readable JPEG."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False)


def encode(rgb: np.ndarray, extension: str, quality: int = SERVED_QUALITY) -> bytes:
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
