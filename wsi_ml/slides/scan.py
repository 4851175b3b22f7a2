"""The vendor file, through OpenSlide. Import this only inside the ingestion child (see sandbox.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
import openslide
from PIL import Image

from wsi_ml.errors import IngestError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.colour import ToSrgb
from wsi_ml.slides.header import check_claim
from wsi_ml.slides.kernel import KERNEL, halve_pixels
from wsi_ml.slides.plan import Plan, ScanFacts, believable_mpp

READ_SIDE = 2048
"""Side of the largest area asked of OpenSlide at once, in pixels of the level read."""
CACHE_BYTES = 64 << 20
ASSOCIATED = ("label", "macro", "thumbnail")
MAX_ASSOCIATED_SIDE = 20_000
NOT_A_SLIDE = (
    "OpenSlide cannot read this file as a whole slide: it knows no such format, or the TIFF is not tiled with whole "
    "pixels; `vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg` makes one it can read."
)


class Scan:
    """An open vendor file; a context manager. Raises IngestError when OpenSlide cannot open it."""

    def __init__(self, path: Path):
        try:
            self.slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise IngestError(NOT_A_SLIDE) from error
        except openslide.OpenSlideError as error:
            raise IngestError(
                "OpenSlide recognises the format but cannot open the slide: the file is damaged, cut short, or a file "
                "that belongs to it is missing."
            ) from error
        self.slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        self.background = background_of(self.slide.properties)

    def __enter__(self) -> Scan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.slide.close()

    def facts(self) -> ScanFacts:
        """What the file says about itself; raises IngestError where that cannot be."""
        properties = self.slide.properties
        l0_size = Size(*self.slide.dimensions)
        if min(l0_size) < 1:
            raise IngestError(f"The slide has no pixels: its size is {l0_size.width} × {l0_size.height}.")
        check_claim("the slide", l0_size)
        return ScanFacts(
            vendor=re.sub(r"[^a-z0-9-]", "", properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"))[:40],
            l0_size=l0_size,
            level_sizes=[Size(*size) for size in self.slide.level_dimensions],
            level_downsamples=list(self.slide.level_downsamples),
            l0_bounds=bounds_of(properties, l0_size),
            mpp=believable_mpp(
                _number(properties, openslide.PROPERTY_NAME_MPP_X), _number(properties, openslide.PROPERTY_NAME_MPP_Y)
            ),
            objective_power=_number(properties, openslide.PROPERTY_NAME_OBJECTIVE_POWER),
        )

    def colour(self) -> ToSrgb:
        """The way from the scan's colours to sRGB."""
        profile = self.slide.color_profile
        return ToSrgb(profile.tobytes() if profile is not None else None)

    def read(self, level: int, level_region: Region) -> np.ndarray:
        """RGB uint8 of a region of one vendor level (in that level's pixels), on the slide's background.

        What lies beyond the level's edge repeats its last row or column. Raises IngestError where pixels are damaged.
        """
        size = Size(*self.slide.level_dimensions[level])
        x, y = min(level_region.x, size.width - 1), min(level_region.y, size.height - 1)
        width, height = min(level_region.x_end, size.width) - x, min(level_region.y_end, size.height) - y
        downsample = self.slide.level_downsamples[level] if level else 1
        try:
            picture = self.slide.read_region((round(x * downsample), round(y * downsample)), level, (width, height))
        except openslide.OpenSlideError as error:
            raise IngestError(
                f"The scan is damaged: pixels of level {level} near x {x}, y {y} cannot be decoded; get the file again."
            ) from error
        rgb = flatten(picture, self.background)
        missing = (level_region.height - height, level_region.width - width)
        return np.pad(rgb, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge") if any(missing) else rgb

    def save_associated(self, folder: Path) -> list[str]:
        """Write label, macro and thumbnail as PNG (mode 0600) into `folder` (0700); returns the names it found."""
        saved = []
        for name in ASSOCIATED:
            if name not in self.slide.associated_images:
                continue
            try:
                picture = self.slide.associated_images[name]
            except openslide.OpenSlideError:
                continue  # a damaged label is no reason to refuse the slide
            if max(picture.size) > MAX_ASSOCIATED_SIDE:
                continue
            folder.mkdir(mode=0o700, exist_ok=True)
            path = folder / f"{name}.png"
            path.touch(mode=0o600)
            Image.fromarray(flatten(picture, (255, 255, 255))).save(path, "PNG")
            saved.append(name)
        return saved


class LevelPixels(Protocol):
    """What gives pixels of a scan's levels: a Scan, or another format's reader."""

    def read(self, level: int, level_region: Region) -> np.ndarray:
        """RGB uint8 of a region of one level; what lies beyond the edge repeats its last row or column."""
        ...


class ScanPixels:
    """Pixels of the stored plane, read from the scan and halved by the kernel; safe to call from several threads."""

    def __init__(self, scan: LevelPixels, plan: Plan, colour: ToSrgb):
        self.scan = scan
        self.plan = plan
        self.colour = colour
        self.kernel = KERNEL
        step = 1 << plan.scan_steps
        self.offset = (plan.l0_bounds.x // step, plan.l0_bounds.y // step)
        self.limit = Size(-(-plan.l0_bounds.width // step), -(-plan.l0_bounds.height // step))

    def __call__(self, stored_region: Region) -> np.ndarray:
        """RGB uint8 (sRGB) of a region of the stored plane."""
        side = max(1, READ_SIDE >> self.plan.halvings)
        result = np.empty((stored_region.height, stored_region.width, 3), np.uint8)
        for y in range(0, stored_region.height, side):
            for x in range(0, stored_region.width, side):
                width, height = min(side, stored_region.width - x), min(side, stored_region.height - y)
                piece = Region(stored_region.x + x, stored_region.y + y, width, height)
                result[y : y + height, x : x + width] = self._piece(piece)
        return result

    def _piece(self, stored_region: Region) -> np.ndarray:
        scan_x, scan_y = stored_region.x << self.plan.halvings, stored_region.y << self.plan.halvings
        scan_region = Region(
            scan_x + self.offset[0],
            scan_y + self.offset[1],
            min(stored_region.width << self.plan.halvings, self.limit.width - scan_x),
            min(stored_region.height << self.plan.halvings, self.limit.height - scan_y),
        )
        pixels = self.scan.read(self.plan.scan_level, scan_region)
        for _ in range(self.plan.halvings):
            pixels = halve_pixels(pixels)
        return self.colour.apply(pixels)


def background_of(properties: Mapping[str, str]) -> tuple[int, int, int]:
    """The colour behind transparent pixels: the scanner's own (`openslide.background-color`), else white."""
    text = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "")
    if not re.fullmatch(r"[0-9A-Fa-f]{6}", text):
        return 255, 255, 255
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)


def bounds_of(properties: Mapping[str, str], l0_size: Size) -> Region:
    """`openslide.bounds-*` inside level 0; the whole of level 0 where they are absent, broken or empty."""
    names = ("X", "Y", "WIDTH", "HEIGHT")
    values = [_number(properties, getattr(openslide, f"PROPERTY_NAME_BOUNDS_{name}")) for name in names]
    if any(value is None for value in values):
        return Region(0, 0, *l0_size)
    x, y, width, height = (int(value) for value in values if value is not None)
    x, y = max(0, x), max(0, y)
    width, height = min(width, l0_size.width - x), min(height, l0_size.height - y)
    return Region(x, y, width, height) if width > 0 and height > 0 else Region(0, 0, *l0_size)


def flatten(picture: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    """RGB uint8 of an RGBA picture laid on a background colour."""
    rgba = np.asarray(picture.convert("RGBA") if picture.mode != "RGBA" else picture)
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    weight = alpha.astype(np.uint16)
    mixed = rgba[..., :3] * weight + np.array(background, np.uint16) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def _number(properties: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(properties[name])
    except (KeyError, ValueError):
        return None
    return value if np.isfinite(value) else None
