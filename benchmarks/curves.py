"""Curves as a picture, drawn with Pillow: panels side by side over one logarithmic axis, a legend below.

Pillow's own font has Latin letters only, so words keep to ASCII.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PANEL_WIDTH, PANEL_HEIGHT = 500, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 56
LEGEND_LINE, LEGEND_COLUMN = 26, 375
SMOOTH = 3
"""Everything is drawn this much larger and shrunk, for smooth lines."""
INK, GRID, PALE = (34, 34, 34), (226, 226, 226), (96, 96, 96)
X_MARKS = (10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


@dataclass(frozen=True)
class Curve:
    """A named line through points in every panel."""

    name: str
    colour: tuple[int, int, int]
    panels: Sequence[Sequence[tuple[float, float]]]
    """Points (x, y) for each panel, in order of x."""
    bold: bool = False
    ringed: int | None = None
    """Number of the point that a ring marks in every panel."""


@dataclass(frozen=True)
class Axis:
    """The vertical axis of a panel; marks are written without their sign."""

    title: str
    low: float
    high: float
    step: float
    places: int


class _Panel:
    """One panel's place and scales."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: int, axis: Axis, x_range: tuple[float, float]):
        self.draw = draw
        self.axis = axis
        self.x_range = x_range
        self.box = (left + LEFT, TOP, left + PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM)

    def place(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        low, high = (math.log(end) for end in self.x_range)
        across = (math.log(x) - low) / (high - low)
        up = (y - self.axis.low) / (self.axis.high - self.axis.low)
        return SMOOTH * (left + across * (right - left)), SMOOTH * (bottom - up * (bottom - top))

    def draw_grid(self, x_title: str) -> None:
        left, top, right, bottom = (SMOOTH * side for side in self.box)
        for number in range(round((self.axis.high - self.axis.low) / self.axis.step) + 1):
            value = self.axis.low + number * self.axis.step
            _, y = self.place(self.x_range[0], value)
            self.draw.line((left, y, right, y), GRID, SMOOTH)
            words = f"{abs(value):.{self.axis.places}f}"
            self.draw.text((left - 8 * SMOOTH, y), words, PALE, _font(13), anchor="rm")
        for mark in X_MARKS:
            if self.x_range[0] <= mark <= self.x_range[1]:
                x, _ = self.place(mark, self.axis.low)
                self.draw.line((x, top, x, bottom), GRID, SMOOTH)
                self.draw.text((x, bottom + 6 * SMOOTH), str(mark), PALE, _font(13), anchor="mt")
        self.draw.line((left, top, left, bottom, right, bottom), INK, SMOOTH)
        self.draw.text((left, top - 12 * SMOOTH), self.axis.title, INK, _font(15), anchor="ls")
        self.draw.text(((left + right) / 2, bottom + 26 * SMOOTH), x_title, PALE, _font(13), anchor="mt")

    def draw_curve(self, curve: Curve, points: Sequence[tuple[float, float]]) -> None:
        places = [self.place(*point) for point in points]
        self.draw.line(places, curve.colour, (4 if curve.bold else 2) * SMOOTH, joint="curve")
        radius = (5 if curve.bold else 3) * SMOOTH
        for number, (x, y) in enumerate(places):
            self.draw.circle((x, y), radius, curve.colour)
            if number == curve.ringed:
                self.draw.circle((x, y), radius + 5 * SMOOTH, outline=INK, width=2 * SMOOTH)


def draw_curves(
    file: Path, curves: Sequence[Curve], axes: Sequence[Axis], x_range: tuple[float, float], x_title: str, note: str
) -> None:
    """Write a PNG with one panel for each axis; points outside the ranges must have been left out before."""
    width = PANEL_WIDTH * len(axes)
    columns = width // LEGEND_COLUMN
    rows = -(-len(curves) // columns)
    height = PANEL_HEIGHT + (rows + 1) * LEGEND_LINE + 12
    picture = Image.new("RGB", (SMOOTH * width, SMOOTH * height), "white")
    draw = ImageDraw.Draw(picture)
    for number, axis in enumerate(axes):
        panel = _Panel(draw, number * PANEL_WIDTH, axis, x_range)
        panel.draw_grid(x_title)
        for curve in curves:
            panel.draw_curve(curve, curve.panels[number])
    for number, curve in enumerate(curves):
        x, y = LEFT + number // rows * LEGEND_COLUMN, PANEL_HEIGHT + LEGEND_LINE // 2 + number % rows * LEGEND_LINE
        thickness = (4 if curve.bold else 2) * SMOOTH
        draw.line((SMOOTH * x, SMOOTH * y, SMOOTH * (x + 28), SMOOTH * y), curve.colour, thickness)
        draw.circle((SMOOTH * (x + 14), SMOOTH * y), (5 if curve.bold else 3) * SMOOTH, curve.colour)
        draw.text((SMOOTH * (x + 38), SMOOTH * y), curve.name, INK, _font(15), anchor="lm")
    draw.text((SMOOTH * LEFT, SMOOTH * (height - LEGEND_LINE // 2 - 8)), note, PALE, _font(13), anchor="lm")
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((width, height), Image.Resampling.BOX).save(file, optimize=True)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SMOOTH)
