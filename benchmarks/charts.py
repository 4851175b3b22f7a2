"""Small charts drawn with Pillow: panels side by side, lines over named places of the horizontal axis.

Unlike `curves`, whose axis is logarithmic, places are evenly spaced: shares of labels, settings of a key.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 460, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 40, 50
LEGEND_LINE = 22
SMOOTH = 2
INK, GRID, PALE = (34, 34, 34), (226, 226, 226), (96, 96, 96)
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90))
"""Okabe and Ito, which colour-blind readers tell apart."""


@dataclass(frozen=True)
class Line:
    """A named line; None where nothing was measured."""

    name: str
    values: Sequence[float | None]
    dashed: bool = False
    """For what others published."""
    colour: int | None = None
    """Number of a colour; not told: the line's own number."""


@dataclass(frozen=True)
class Panel:
    """Lines over the same places."""

    title: str
    places: Sequence[str]
    x_title: str
    lines: Sequence[Line]


def draw_chart(file: Path, panels: Sequence[Panel]) -> None:
    """Write a PNG; each panel has an axis of its own, from the lowest to the highest value."""
    rows = max(len(panel.lines) for panel in panels)
    size = (SMOOTH * WIDTH * len(panels), SMOOTH * (HEIGHT + LEGEND_LINE * rows + 8))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for number, panel in enumerate(panels):
        _draw_panel(draw, number * WIDTH, panel)
    file.parent.mkdir(parents=True, exist_ok=True)
    small = picture.resize((size[0] // SMOOTH, size[1] // SMOOTH), Image.Resampling.BOX)
    small.quantize(64).save(file, optimize=True)


def marks(values: Sequence[float]) -> list[float]:
    """Round numbers around the values, a handful."""
    low, high = min(values), max(values)
    rough = max(high - low, 1e-3) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]


def _draw_panel(draw: ImageDraw.ImageDraw, left: int, panel: Panel) -> None:
    known = [value for line in panel.lines for value in line.values if value is not None]
    ticks = marks(known or [0.0, 1.0])
    x0, x1, y0, y1 = left + LEFT, left + WIDTH - RIGHT, HEIGHT - BOTTOM, TOP
    step = (x1 - x0) / max(1, len(panel.places) - 1)

    def at(place: int, value: float) -> tuple[float, float]:
        return SMOOTH * (x0 + place * step), SMOOTH * (y0 - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (y0 - y1))

    places = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    for tick in ticks:
        (_, y), end = at(0, tick), SMOOTH * x1
        draw.line((SMOOTH * x0, y, end, y), GRID, SMOOTH)
        draw.text((SMOOTH * (x0 - 6), y), f"{tick:.{places}f}", PALE, _font(12), anchor="rm")
    for place, words in enumerate(panel.places):
        x, y = at(place, ticks[0])
        draw.line((x, y, x, SMOOTH * y1), GRID, SMOOTH)
        draw.text((x, y + 6 * SMOOTH), words, PALE, _font(12), anchor="mt")
    draw.text((SMOOTH * x0, SMOOTH * (TOP - 12)), panel.title, INK, _font(14), anchor="ls")
    draw.text((SMOOTH * (x0 + x1) / 2, SMOOTH * (y0 + 26)), panel.x_title, PALE, _font(12), anchor="mt")
    for number, line in enumerate(panel.lines):
        colour = COLOURS[(number if line.colour is None else line.colour) % len(COLOURS)]
        points = [at(place, value) for place, value in enumerate(line.values) if value is not None]
        _draw_line(draw, points, colour, line.dashed)
        y = HEIGHT + LEGEND_LINE * number + LEGEND_LINE // 2
        ends = [(SMOOTH * (x0 + end), SMOOTH * y) for end in (0, 30)]
        _draw_line(draw, ends, colour, line.dashed, dots=False)
        draw.text((SMOOTH * (x0 + 38), SMOOTH * y), line.name, INK, _font(13), anchor="lm")


def _draw_line(
    draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: tuple[int, int, int], dashed: bool,
    dots: bool = True,
) -> None:  # fmt: skip
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        pieces = max(1, round(math.hypot(x1 - x0, y1 - y0) / (6 * SMOOTH))) if dashed else 1
        for piece in range(0, pieces, 2):
            ends = [piece / pieces, (piece + 1) / pieces]
            draw.line([(x0 + end * (x1 - x0), y0 + end * (y1 - y0)) for end in ends], colour, 2 * SMOOTH)
    for x, y in points if dots else ():
        draw.circle((x, y), 3 * SMOOTH, "white" if dashed else colour, colour, SMOOTH)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SMOOTH)
