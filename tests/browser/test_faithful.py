"""Kept tiles in the viewer: badge, words and frames say which tiles were scanned; none is asked for in vain."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser.site import BASE_SIZE
from tests.versions import add_slide
from wsi_ml.geometry import DeepZoom
from wsi_ml.slides.kept import KEPT_FOLDER, KeptIdentity, encode_kept
from wsi_ml.slides.kept_writer import KeptWriter, Outcome

KEPT_COLUMNS = range(2, 5)
"""Columns of tiles kept in every row: 1024 ≤ x < 2560."""
SCANNED = np.array((40, 160, 60), np.uint8)


@pytest.fixture(scope="module")
def kidney(running_site):
    """A slide of BASE_SIZE whose kept tiles are plain green."""
    library = running_site.library
    slide_id, version, _ = add_slide(library, "kidney", BASE_SIZE, seed=8)
    identity = KeptIdentity(version, "sr-fake", "ab" * 32, 0.9, "as served")
    deep_zoom = DeepZoom(BASE_SIZE)
    counts = deep_zoom.tile_counts(deep_zoom.top)
    with KeptWriter(library.version_folder(version) / KEPT_FOLDER, identity, BASE_SIZE, 512) as writer:
        for t_row in range(counts.height):
            for t_col in range(counts.width):
                part = deep_zoom.tile_region(deep_zoom.top, t_col, t_row)
                data = encode_kept(np.broadcast_to(SCANNED, (part.height, part.width, 3)).copy())
                writer.add([Outcome(0.97, len(data), data if t_col in KEPT_COLUMNS else None)])
        writer.finish("2026-01-01T00:00:00+00:00")
    library.publish_kept(version, identity.key)
    yield slide_id
    library.remove(slide_id)


def is_green(pixels: np.ndarray) -> bool:
    return bool(np.abs(pixels.astype(int) - SCANNED).max() <= 3)


def test_auto_shows_kept_tiles_as_scanned_and_asks_no_network_for_them(tab, site, kidney):
    tab.view(kidney, "#x=1800&y=1200&z=1&l=none")
    assert (tab.source, tab.badge, tab.magnification) == ("auto", None, "×40 · scanned")
    assert is_green(tab.pixels()[10:290, 10:290])
    assert not {column for column, _ in site.synthesis.asked} & set(KEPT_COLUMNS)
    tab.go("#x=2560&y=1200&z=1&l=none")
    assert tab.badge == "Synthesised in part · sr-fake abababababab"
    assert tab.magnification == "×40 · synthesised in part"
    tab.go("#x=3500&y=1200&z=1&l=none")
    assert (tab.badge, tab.magnification) == ("Synthesised · sr-fake abababababab", "×40 · synthesised")


def test_scan_shows_only_what_was_kept_and_stored_pixels_elsewhere(tab, site, kidney):
    tab.view(kidney, "#x=2560&y=1200&z=1&l=none&s=scan")
    assert (tab.source, tab.badge, tab.magnification) == ("scan", None, "×40 · scanned in part")
    pixels = tab.pixels()
    assert is_green(pixels[10:290, 10:140]) and not is_green(pixels[10:290, 160:290])
    assert site.synthesis.asked == []
    assert not tab.page.locator(".notice").count() or not tab.page.locator(".notice").first.is_visible()
    tab.go("#x=3500&y=1200&z=1&l=none&s=scan")
    assert tab.magnification == "×40 · stored, enlarged 2×"
    tab.go("#x=1800&y=1200&z=1&l=none&s=scan")
    assert tab.magnification == "×40 · scanned"


def test_the_switch_offers_the_scan(tab, kidney):
    tab.view(kidney, "#x=1800&y=1200&z=1&l=none")
    assert tab.page.locator("#sources label").all_inner_texts() == ["Stored", "Bicubic", "SR", "Scan", "Auto"]
    tab.press("Shift+S")
    assert tab.source == "scan"


def test_the_slide_card_tells_what_was_compared_and_kept(tab, kidney):
    tab.view(kidney)
    tab.press("i", settle=False)
    text = tab.page.locator("dialog[open]").inner_text()
    assert "Faithful ×40" in text
    assert "SSIM 7×7 0.9: tiles below are shown as scanned" in text
    assert "30 tiles (30.0 %)" in text and "30 of 100 ×40 tiles scanned" in text


@pytest.mark.parametrize(
    ("column", "row", "kept"), [(1, 0, True), (4, 2, True), (0, 0, False), (5, 0, False), (-1, 1, False), (4, 3, False)]
)
def test_bits_of_kept_tiles(tab, site, column, row, kept):
    facts = {"tiles": 15, "kept": 2, "columns": 5, "rows": 3, "bits": "QAI="}
    tab.page.goto(site.url)
    assert tab.module("kept", "return m.keptTest(a[0])(a[1], a[2])", facts, column, row) is kept
    assert tab.module("kept", "return m.keptTest(undefined)(0, 0)") is False
