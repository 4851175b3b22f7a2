"""Colours for classes that bring none: told apart by colour-blind eyes, and visible on pink and purple tissue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#f0e442",
    "#56b4e9",
    "#d55e00",
    "#cc79a7",
    "#332288",
    "#88ccee",
    "#44aa99",
    "#117733",
    "#999933",
    "#ddcc77",
    "#882255",
)
"""Okabe and Ito's colours less black, then those of Paul Tol's muted scheme that differ from them."""


def class_colors(stated: Mapping[str, str | None], names: Iterable[str]) -> dict[str, str]:
    """Colour of each class in order of name: the stated one, else the next of the palette that no class has taken."""
    taken = set(stated.values())
    free = [color for color in PALETTE if color not in taken] or list(PALETTE)
    colors: dict[str, str] = {}
    unstated = 0
    for name in sorted(names):
        color = stated.get(name)
        if color is None:
            color = free[unstated % len(free)]
            unstated += 1
        colors[name] = color
    return colors
