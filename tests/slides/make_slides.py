"""Slides made by code: Aperio-style files with any size, tile, colour coding, profile and note."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import ImageCms


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth seeded picture in the colours of H&E, RGB uint8 height×width×3, with fine texture."""
    random = np.random.default_rng(seed)
    coarse = random.random((max(2, height // 64), max(2, width // 64)), np.float32)
    fine = random.random((max(2, height // 3), max(2, width // 3)), np.float32)
    amount = 0.7 * cv2.resize(coarse, (width, height)) + 0.3 * cv2.resize(fine, (width, height))
    light, dark = np.array([236, 214, 228], np.float32), np.array([98, 52, 130], np.float32)
    return np.round(light + (dark - light) * amount[..., None]).astype(np.uint8)


def swapped_profile() -> bytes:
    """An RGB profile whose red and blue primaries are exchanged: to sRGB, red becomes blue."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {
        bytes(data[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(struct.unpack_from(">I", data, 128)[0])
    }
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    data[red : red + 8], data[blue : blue + 8] = data[blue : blue + 8], data[red : red + 8]
    return bytes(data)


def write_svs(
    path: Path,
    rgb: np.ndarray,
    *,
    mpp: float | None = 0.25,
    power: float | None = 40,
    tile: int = 256,
    quality: int = 90,
    compression: str | None = "jpeg",
    ycbcr: bool = True,
    levels: int = 1,
    profile: bytes | None = None,
    note: str = "",
    label: np.ndarray | None = None,
) -> Path:
    """Write an Aperio-style slide: tiled levels, its label if given; `note` is vendor text in its description."""
    facts = "".join(f"|{key} = {value:g}" for key, value in (("AppMag", power), ("MPP", mpp)) if value is not None)
    text = f"Aperio Image Library v12\r\n{rgb.shape[1]}x{rgb.shape[0]} ({tile}x{tile}) Q={quality}{note}{facts}"
    options: dict = {"photometric": "rgb", "tile": (tile, tile), "metadata": None, "software": False}
    if compression:
        options |= {"compression": compression}
    if compression == "jpeg":
        options |= {"compressionargs": {"level": quality, "outcolorspace": "YCbCr" if ycbcr else "RGB"}}
        options |= {} if ycbcr else {"subsampling": (1, 1)}
    with tifffile.TiffWriter(path) as file:
        file.write(rgb, description=text, iccprofile=profile, **options)
        if label is not None:  # the second image of an Aperio file is always its thumbnail
            file.write(rgb[:90, :120], description=text, photometric="rgb", metadata=None, software=False)
        for _ in range(levels - 1):
            rgb = cv2.resize(rgb, (max(1, rgb.shape[1] // 2), max(1, rgb.shape[0] // 2)), interpolation=cv2.INTER_AREA)
            file.write(rgb, description=text, **options)
        if label is not None:
            words = f"Aperio Image Library v12\r\nlabel {label.shape[1]}x{label.shape[0]}"
            file.write(label, description=words, photometric="rgb", metadata=None, software=False, subfiletype=1)
    return path


def write_generic(path: Path, rgb: np.ndarray, *, mpp: float | None = None, tile: int = 256) -> Path:
    """Write a plain tiled TIFF, lossless, with µm/px in its resolution tags when given."""
    resolution = {} if mpp is None else {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path,
        rgb,
        photometric="rgb",
        tile=(tile, tile),
        compression="deflate",
        metadata=None,
        software=False,
        **resolution,
    )
    return path


def patch_tag(path: Path, tag: int, value: int) -> None:
    """Overwrite the first value of a tag in the first directory."""
    with tifffile.TiffFile(path) as file:
        found = file.pages.first.tags[tag]
        offset, kind, order = found.valueoffset, found.dtype, file.byteorder
    code = {1: "B", 3: "H", 4: "I", 16: "Q"}[int(kind)]
    with path.open("r+b") as raw:
        if code == "H" and value >= 1 << 16:  # widen the tag to LONG: its value field has room for that
            raw.seek(found.offset + 2)
            raw.write(struct.pack(f"{order}H", 4))
            code = "I"
        raw.seek(offset)
        raw.write(struct.pack(f"{order}{code}", value))
