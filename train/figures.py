"""Pictures of an evaluation, drawn with Pillow: crops beside error maps, confusion, reliability; uint8 RGB arrays.

The font is Pillow's own, which has Latin letters only: words in these pictures keep to ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsi_ml.metrics.image import luma, psnr, ssim

CROP = 128
"""×40 pixels on a side of a crop."""
ZOOM = 2
"""Pixels of the figure for one of the crop, without interpolation."""
ERROR_TOP = 24
"""Grey levels of the brightest colour of an error map; larger errors look the same."""
GAP, MARGIN, LINE = 8, 14, 22
INK, PALE, GRID = (20, 20, 20), (110, 110, 110), (205, 205, 205)
BLUE, RED = (31, 119, 180), (200, 60, 50)
MAP_WORDS = "mean absolute error of R, G, B in grey levels"


@dataclass(frozen=True)
class Crop:
    """One row of the comparison: pictures uint8 of the same size."""

    title: str
    stored: np.ndarray
    """The stored pixels enlarged by bicubic interpolation."""
    made: np.ndarray
    scan: np.ndarray


def busiest(scan: np.ndarray, side: int = CROP) -> tuple[int, int]:
    """Left and top (multiples of half a side) of the window whose luma varies most: fine structure, never glass."""
    grey, step = luma(scan), max(1, side // 2)
    places = [
        (x, y) for y in range(0, max(1, scan.shape[0] - side + 1), step)
        for x in range(0, max(1, scan.shape[1] - side + 1), step)
    ]  # fmt: skip
    return max(places, key=lambda place: float(grey[place[1] : place[1] + side, place[0] : place[0] + side].std()))


def error_map(picture: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the colours as a colour, black for 0 and pale yellow for ERROR_TOP and more."""
    error = np.abs(picture.astype(np.float32) - scan.astype(np.float32)).mean(axis=2)
    return _heat(np.minimum(error / ERROR_TOP, 1.0))


def comparison(crops: Sequence[Crop], model: str) -> np.ndarray:
    """A row for each crop: stored pixels, model, scan, and the errors of the first two with their scale."""
    side = CROP * ZOOM
    heads = ("bicubic of the store", model, "scan", "error of bicubic", f"error of {model}")
    width = 2 * MARGIN + len(heads) * side + (len(heads) - 1) * GAP + 74
    row_height = side + 2 * LINE + GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + LINE + len(crops) * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, head in enumerate(heads):
        draw.text((MARGIN + place * (side + GAP), MARGIN), head, INK, _font(15))
    for number, crop in enumerate(crops):
        top = MARGIN + LINE + number * row_height
        draw.text((MARGIN, top), crop.title, PALE, _font(13))
        top += LINE
        panels = (crop.stored, crop.made, crop.scan, error_map(crop.stored, crop.scan), error_map(crop.made, crop.scan))
        for place, panel in enumerate(panels):
            large = cv2.resize(panel, (side, side), interpolation=cv2.INTER_NEAREST)
            sheet.paste(Image.fromarray(large), (MARGIN + place * (side + GAP), top))
        for place, picture in enumerate((crop.stored, crop.made)):
            words = f"PSNR {psnr(picture, crop.scan):.2f} dB, SSIM {ssim(picture, crop.scan):.3f}"
            draw.text((MARGIN + place * (side + GAP), top + side + 2), words, INK, _font(13))
        _error_scale(draw, sheet, MARGIN + len(heads) * (side + GAP) + 4, top, side)
    draw.text((MARGIN + 3 * (side + GAP), sheet.height - MARGIN - LINE + 4), MAP_WORDS, PALE, _font(13))
    return np.asarray(sheet)


def confusion_picture(classes: Sequence[str], rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Counts in cells, shaded by their share of the true class's row."""
    counts, cell, left = np.array(rows), 78, 150
    width, height = left + len(classes) * cell + MARGIN, 74 + len(classes) * cell + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((left, MARGIN), "class told", PALE, _font(14))
    draw.text((MARGIN, 50), "true class", PALE, _font(14))
    for place, name in enumerate(classes):
        _centred(draw, (left + place * cell + cell // 2, 58), _short(name, 10), INK, 14)
        draw.text((MARGIN, 74 + place * cell + cell // 2 - 16), _short(name, 18), INK, _font(14))
        draw.text((MARGIN, 74 + place * cell + cell // 2 + 2), f"{counts[place].sum()} patches", PALE, _font(12))
    for true, told in np.ndindex(counts.shape):
        total = counts[true].sum()
        share = counts[true, told] / total if total else 0.0
        x, y = left + told * cell, 74 + true * cell
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), _shade(share), GRID)
        ink = (255, 255, 255) if share > 0.55 else INK
        if total:
            _centred(draw, (x + cell // 2, y + cell // 2 - 9), str(counts[true, told]), ink, 15)
            _centred(draw, (x + cell // 2, y + cell // 2 + 12), f"{100 * share:.1f} %", ink, 12)
    return np.asarray(sheet)


def reliability_picture(bins: Sequence[dict[str, Any]], error: float) -> np.ndarray:
    """Accuracy of each bin of confidence against the diagonal, the gap in red, and below how many patches it holds."""
    plot, low, left, top = 300, 70, 58, 60
    sheet = Image.new("RGB", (left + plot + 2 * MARGIN, top + plot + low + 74), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((left, 10), "share told rightly in each bin of confidence", INK, _font(13))
    draw.text((left, 28), f"expected calibration error {error:.3f}", INK, _font(13))
    foot = top + plot
    for tick in range(6):
        at = round(tick / 5 * plot)
        draw.line((left, foot - at, left + plot, foot - at), GRID)
        _right(draw, (left - 6, foot - at), f"{tick / 5:.1f}")
        _centred(draw, (left + at, foot + low + 32), f"{tick / 5:.1f}", INK, 12)
    most = max(each["count"] for each in bins) or 1
    for each in bins:
        x, x_end = left + round(each["low"] * plot), left + round(each["high"] * plot) - 2
        height = round(each["count"] / most * low)
        if each["count"]:
            draw.rectangle((x, foot + 20 + low - height, x_end, foot + 20 + low), (150, 150, 150))
            told, wanted = (foot - round(each[key] * plot) for key in ("accuracy", "confidence"))
            draw.rectangle((x, told, x_end, foot), BLUE)
            draw.rectangle((x, min(told, wanted), x_end, max(told, wanted)), None, RED, 2)
    draw.line((left, foot, left + plot, top), INK)
    draw.line((left, foot, left + plot, foot), INK)
    _right(draw, (left - 6, foot + 24), str(most))
    _centred(draw, (left + plot // 2, foot + low + 52), "confidence; grey: patches in the bin", INK, 13)
    return np.asarray(sheet)


def save_png(path: Any, picture: np.ndarray) -> None:
    """Write a picture."""
    Image.fromarray(picture).save(path, "PNG", optimize=True)


def _error_scale(draw: ImageDraw.ImageDraw, sheet: Image.Image, left: int, top: int, height: int) -> None:
    """A colour bar from 0 at the foot to ERROR_TOP, with ticks in grey levels."""
    ramp = np.repeat(np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None], 14, axis=1)
    sheet.paste(Image.fromarray(_heat(ramp)), (left, top))
    for tick in range(0, ERROR_TOP + 1, 6):
        y = top + height - 1 - round(tick / ERROR_TOP * (height - 1))
        draw.line((left + 14, y, left + 18, y), INK)
        words = f">= {tick}" if tick == ERROR_TOP else str(tick)
        draw.text((left + 22, min(max(y - 8, top - 2), top + height - 15)), words, INK, _font(13))


def _heat(share: np.ndarray) -> np.ndarray:
    """0…1 as RGB uint8 of the map `inferno`, which stays ordered in grey and for colour-blind eyes."""
    coded = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(coded, cv2.COLOR_BGR2RGB)


def _shade(share: float) -> tuple[int, int, int]:
    """White to blue."""
    return tuple(round(255 + share * (end - 255)) for end in BLUE)  # type: ignore[return-value]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "."


def _centred(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, ink: tuple[int, int, int], size: int) -> None:
    draw.text(at, text, ink, _font(size), anchor="mm")


def _right(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str) -> None:
    draw.text(at, text, INK, _font(12), anchor="rm")
