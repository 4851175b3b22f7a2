"""Sources of pixels: the badge tells the truth, switching keeps the view and never flashes."""

from __future__ import annotations

import re

import numpy as np
import pytest

NEAR = "#x=2200&y=1200&z=1&l=none"
AT_20 = "#x=2200&y=1200&z=0.5&l=none"


def test_no_badge_where_stored_pixels_suffice(tab, site):
    tab.view(site.liver, AT_20)
    assert (tab.source, tab.badge, tab.magnification) == ("auto", None, "×20 · stored")
    assert site.synthesis.asked == []


def test_badge_comes_and_goes_with_the_synthesised_pixels(tab, site):
    tab.view(site.liver, AT_20)
    tab.press("+")
    assert (tab.magnification, tab.badge) == ("×30 · synthesised", "Synthesised · sr-fake abababababab")
    tab.press("-")
    assert (tab.magnification, tab.badge) == ("×20 · stored", None)


@pytest.mark.parametrize(("source", "badge", "words"), [
    ("stored", None, "×40 · stored, enlarged 2×"),
    ("bicubic", "Synthesised · bicubic", "×40 · synthesised"),
    ("sr-fake", "Synthesised · sr-fake abababababab", "×40 · synthesised"),
])  # fmt: skip
def test_badge_names_the_source(tab, site, source, badge, words):
    tab.view(site.liver, f"{NEAR}&s={source}")
    assert (tab.source, tab.badge, tab.magnification) == (source, badge, words)


def test_badge_is_about_visible_tiles_only(tab, site):
    def scanned(route):
        response = route.fetch()
        route.fulfill(response=response, headers={**response.headers, "x-tile-source": "scan"})

    tab.page.route(re.compile(r"auto@.*/13/[0-4]_\d+\.jpg"), scanned)
    tab.view(site.liver, "#x=1900&y=1200&z=1&l=none")
    assert tab.badge is None, "tiles 2 to 4 are scanned, and the view ends before tile 5 begins at 2560"
    tab.press("t")
    tab.go("#x=2070&y=1200&z=1&l=none")
    assert tab.badge == "Synthesised in part · sr-fake abababababab", "ten columns of tile 5 show"
    tab.go("#x=2058&y=1200&z=1&l=none")
    assert tab.badge is None


def test_one_key_cycles_the_sources_and_keeps_the_view(tab, site):
    tab.view(site.liver, NEAR)
    before, seen = tab.state, []
    for _ in range(4):
        tab.press("s")
        seen.append(tab.source)
    assert seen == ["stored", "bicubic", "sr-fake", "auto"]
    assert tab.press("Shift+S").source == "sr-fake"
    after = tab.state
    assert [after[key] for key in "xyz"] == [before[key] for key in "xyz"]


def test_switching_never_shows_anything_but_the_two_sources(tab, site):
    """While the new tiles are awaited, every frame shows the old pixels; coming back shows them at once."""
    tab.view(site.liver, f"{NEAR}&s=sr-fake")
    made = tab.pixels()
    site.synthesis.open.clear()
    tab.press("s", settle=False)
    tab.frames()
    assert tab.source == "auto"
    assert np.array_equal(tab.pixels(), made)
    tab.press("Shift+S", settle=False)
    tab.frames(2)
    assert np.array_equal(tab.pixels(), made)
    site.synthesis.open.set()
    tab.settle()


def test_stored_is_there_at_once_and_sr_again_at_once(tab, site):
    tab.view(site.liver, f"{NEAR}&s=stored")
    stored = tab.pixels()
    made = tab.press("Shift+S", "Shift+S").pixels()
    assert not np.array_equal(made, stored)
    asked = len(site.synthesis.asked)
    tab.press("s", "s", settle=False)
    tab.frames(2)
    assert tab.badge is None and np.array_equal(tab.pixels(), stored)
    tab.press("Shift+S", "Shift+S", settle=False)
    tab.frames(2)
    assert np.array_equal(tab.pixels(), made)
    assert len(site.synthesis.asked) == asked


def test_frames_show_the_origin_of_each_tile(tab, site):
    tab.view(site.liver, "#x=2048&y=1024&z=1&l=none&s=stored")
    plain = tab.pixels()
    changed = np.abs(tab.press("t").pixels().astype(int) - plain).max(-1) > 30
    assert changed[:, 150].mean() > 0.8 and changed[150].mean() > 0.8, "the corner of four tiles is in the middle"
    assert not changed[:140, :140].any() and not changed[190:, 165:].any()
    tab.press("t")
    tab.view(site.liver, "#x=2560&y=1536&z=1&l=none&s=sr-fake")
    amber = tab.press("t").pixels()[150, :]
    assert (np.abs(amber.astype(int) - (0xF2, 0xB3, 0x3D)).max(-1) < 60).mean() > 0.5
    tab.press("t")


def test_slides_without_a_x40_source_offer_only_stored_pixels(tab, site):
    tab.view(site.coarse, "#x=1400&y=1100&z=2")
    assert [each.get_attribute("value") for each in tab.page.locator("#sources input").all()] == ["stored"]
    assert tab.badge is None
    assert "stored, enlarged" in tab.magnification
