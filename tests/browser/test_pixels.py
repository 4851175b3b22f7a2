"""What is on screen equals what is in the file, pixel for pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.browser.site import GLAND, LUMEN, NUCLEUS, squares
from wsi_ml.geometry import Region

CENTER = (2200, 1200)
"""Base-plane pixel in the middle; a multiple of 8, so that the pixels of the levels fall on screen pixels. Around it
lie whole tiles, which the server hands out as the bytes of the file (those at the rim are encoded again)."""


def fragment(z: float, *, r: float = 0, m: int = 0, x: float = CENTER[0], y: float = CENTER[1], more: str = "") -> str:
    return f"#x={x}&y={y}&z={z}&r={r}&m={m}{more}"


@pytest.mark.parametrize(("z", "level"), [(0.5, 0), (0.25, 1), (0.125, 2)])
def test_stored_pixels_are_the_files(tab, site, z, level):
    tab.view(site.liver, fragment(z, more="&l=none&s=stored"))
    shown = tab.pixels()
    step = 2 ** (level + 1)
    part = Region(CENTER[0] // step - 150, CENTER[1] // step - 150, 300, 300)
    stored = site.pyramid(site.liver).region(part, level)
    assert np.abs(shown.astype(int) - stored).max() <= 3
    assert tab.badge is None


@pytest.mark.parametrize(("turn", "mirror", "expected"), [
    (90, 0, lambda a: np.rot90(a, -1)), (180, 0, lambda a: a[::-1, ::-1]), (0, 1, lambda a: a[:, ::-1]),
    (90, 1, lambda a: np.rot90(a, -1)[:, ::-1]),
])  # fmt: skip
def test_turned_and_mirrored_pixels_are_the_files(tab, site, turn, mirror, expected):
    tab.view(site.liver, fragment(0.5, r=turn, m=mirror, more="&l=none&s=stored"))
    part = Region(CENTER[0] // 2 - 150, CENTER[1] // 2 - 150, 300, 300)
    stored = site.pyramid(site.liver).region(part, 0)
    assert np.abs(tab.pixels().astype(int) - expected(stored)).max() <= 3


def test_a_view_between_pixels_snaps_to_them_at_rest(tab, site):
    tab.view(site.liver, fragment(0.25, x=2200.7, y=1199.1, more="&l=none")).press("5")
    state = {key: float(value) for key, value in tab.state.items() if key in "xyz"}
    assert state["z"] == 0.5
    assert abs(state["x"] - 2200.7) <= 3 and abs(state["y"] - 1199.1) <= 3
    part = Region(round(state["x"] / 2) - 150, round(state["y"] / 2) - 150, 300, 300)
    assert np.abs(tab.pixels().astype(int) - site.pyramid(site.liver).region(part, 0)).max() <= 3


@pytest.mark.parametrize("density", [1, 2])
def test_synthesised_pixels_are_those_of_the_tile(open_tab, site, density):
    tab = open_tab(density=density).view(site.liver, fragment(1 if density == 1 else 2, more="&l=none&s=sr-fake"))
    shown = tab.pixels()
    across = 300 if density == 1 else 150
    made = squares(Region(CENTER[0] - across // 2, CENTER[1] - across // 2, across, across))
    if density == 2:
        shown = cv2.resize(shown, (600 // 4, 600 // 4), interpolation=cv2.INTER_AREA)
    inside = cv2.erode(same_as_neighbours(made), np.ones((5, 5), np.uint8)).astype(bool)
    assert inside.mean() > 0.3
    assert np.abs(shown.astype(int) - made)[inside].max() <= 8


def same_as_neighbours(rgb: np.ndarray) -> np.ndarray:
    """1 where a pixel equals the one to its right and the one below."""
    flat = rgb[..., 0].astype(int)
    right, below = np.diff(flat, axis=1, append=flat[:, -1:]), np.diff(flat, axis=0, append=flat[-1:])
    return ((right == 0) & (below == 0)).astype(np.uint8)


@pytest.mark.parametrize(("z", "turn", "mirror", "density"), [
    (0.2, 0, 0, 1), (0.5, 0, 0, 1), (1.3, 0, 0, 1), (0.2, 90, 0, 1), (0.31, 35, 0, 1), (0.31, 35, 1, 1), (0.2, 0, 0, 2),
])  # fmt: skip
def test_polygons_cover_their_own_pixels(open_tab, site, z, turn, mirror, density):
    tab = open_tab(density=density).view(
        site.liver, fragment(z, r=turn, m=mirror, x=2250, y=1500, more="&s=stored&o=1")
    )
    drawn = tab.pixels(280, 280)
    view = tab.state
    bare = tab.press("h").pixels(280, 280)
    differs = (np.abs(drawn.astype(int) - bare).max(-1) > 6).astype(np.uint8)
    expected = np.zeros_like(differs)
    for ring, value in ((GLAND, 1), (LUMEN, 0), (NUCLEUS, 1)):
        corners = tab.to_screen(ring, view) + differs.shape[0] / 2
        cv2.fillPoly(expected, [np.round(corners * 16).astype(np.int32)], value, shift=4)
    rim = np.ones((2 * 3 * density + 1,) * 2, np.uint8)
    assert expected.mean() > 0.1
    assert (differs >= cv2.erode(expected, rim)).all(), "a part of a polygon is not drawn"
    assert (differs <= cv2.dilate(expected, rim)).all(), "something is drawn outside the polygons"
