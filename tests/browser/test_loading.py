"""Tiles that are slow, refused, damaged or replaced: never blurred for ever, never passed off as something else."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.browser.site import squares
from wsi_ml.geometry import Region

NEAR = "#x=2200&y=1200&z=1&l=none&s=sr-fake"
SR_TILE = re.compile(r"sr-fake@.*/13/\d+_\d+\.jpg")


def is_sharp(tab, x: int = 2200, y: int = 1200) -> bool:
    """Whether the middle shows the squares that the fake network makes."""
    made = squares(Region(x - 150, y - 150, 300, 300))
    return float(np.abs(tab.pixels().astype(int) - made).mean()) < 4


def test_a_stall_of_40_seconds_ends_in_sharp_tiles(open_tab, site):
    """The page's clock runs 40 s ahead while the server holds every synthesised tile: nothing gives up."""
    tab = open_tab()
    tab.page.clock.install()
    site.synthesis.open.clear()
    tab.view(site.liver, NEAR, ready=False)
    tab.until(lambda: site.synthesis.asked, "a request for a synthesised tile")
    tab.page.clock.fast_forward(41_000)
    tab.frames()
    assert tab.badge is None, "only stored pixels show"
    assert not is_sharp(tab)
    site.synthesis.open.set()
    tab.settle()
    assert is_sharp(tab)
    assert tab.badge == "Synthesised · sr-fake abababababab"


@pytest.mark.slow
def test_a_real_stall_of_40_seconds_ends_in_sharp_tiles(open_tab, site):
    tab = open_tab()
    site.synthesis.open.clear()
    tab.view(site.liver, NEAR, ready=False)
    tab.page.wait_for_timeout(40_000)
    assert not is_sharp(tab)
    site.synthesis.open.set()
    tab.settle()
    assert is_sharp(tab)


def test_a_full_queue_is_asked_again_when_it_says(open_tab, site):
    tab = open_tab()
    site.synthesis.refusals = 6
    tab.view(site.liver, NEAR, ready=False)
    tab.until(lambda: site.synthesis.refusals == 0, "six refusals")
    tab.settle()
    assert is_sharp(tab)
    tab.provoked("503")


def test_a_lost_connection_is_tried_again(open_tab, site):
    tab = open_tab()
    lost = []

    def lose(route):
        lost.append(route.request.url)
        if len(lost) > 5:
            route.continue_()
        else:
            route.abort("connectionreset")

    tab.page.route(SR_TILE, lose)
    tab.view(site.liver, NEAR)
    assert len(lost) > 5
    assert is_sharp(tab)
    tab.provoked("ERR_CONNECTION_RESET")


def test_what_leaves_the_view_is_aborted_and_frees_its_place(open_tab, site):
    tab = open_tab()
    aborted = []
    tab.page.on("requestfailed", lambda request: aborted.append(request.url))
    site.synthesis.open.clear()
    tab.view(site.liver, NEAR, ready=False)
    tab.until(lambda: len(site.synthesis.asked) == 4, "as many synthesised tiles at a time as are allowed")
    tab.frames(20)
    assert len(site.synthesis.asked) == 4
    tab.page.evaluate("location.hash = '#x=2200&y=4000&z=1&l=none&s=sr-fake'")
    tab.until(lambda: any(row >= 6 for _, row in site.synthesis.asked), "requests for the new view")
    assert len(aborted) >= 4 and all("/13/" in url or "stored" in url for url in aborted)
    site.synthesis.open.set()
    tab.settle()
    assert is_sharp(tab, 2200, 4000)
    assert is_sharp(tab.go(NEAR)), "what was aborted is asked for again when it comes back into view"


def test_stored_tiles_come_while_every_synthesised_one_stalls(open_tab, site):
    tab = open_tab()
    site.synthesis.open.clear()
    tab.view(site.liver, NEAR, ready=False)
    tab.until(lambda: len(site.synthesis.asked) == 4, "synthesised tiles in flight")
    tab.until(lambda: tab.badge is None and "stored, enlarged 2×" in tab.magnification, "stored pixels")
    part = tab.pixels(4, 4)
    expected = site.pyramid(site.liver).region(Region(1098, 598, 4, 4))
    assert np.abs(part.mean((0, 1)) - expected.mean((0, 1))).max() < 4


def test_stand_ins_are_marked_and_asked_again(open_tab, site):
    tab = open_tab()
    tab.page.clock.install()
    site.synthesis.stand_in = True
    tab.view(site.liver, NEAR)
    assert tab.badge == "Synthesised · bicubic in place of sr-fake"
    assert "badge-waiting" in tab.page.locator("#badge").get_attribute("class")
    site.synthesis.stand_in = False
    tab.page.clock.fast_forward(5_000)
    tab.until(lambda: tab.badge == "Synthesised · sr-fake abababababab", "the network's own tiles")
    tab.settle()
    assert is_sharp(tab)


def test_a_tile_that_fails_for_good_is_named_and_can_be_asked_again(open_tab, site):
    tab = open_tab()
    problem = '{"title": "Gone", "status": 404, "detail": "That tile is <b>gone</b>.", "code": "not_found"}'
    tab.page.route(
        SR_TILE, lambda route: route.fulfill(status=404, body=problem, content_type="application/problem+json")
    )
    tab.view(site.liver, NEAR)
    notice = tab.page.locator("#notice")
    notice.wait_for()
    assert re.match(r"\d+ tiles could not be loaded\. That tile is <b>gone</b>\.", notice.inner_text())
    assert tab.badge is None
    tab.page.unroute(SR_TILE)
    tab.page.get_by_role("button", name="Try again").click()
    notice.wait_for(state="hidden")
    assert is_sharp(tab.settle())
    tab.provoked("404", "failed to load")


def test_a_damaged_tile_is_asked_again(open_tab, site):
    tab = open_tab()
    broken = []

    def damage(route):
        broken.append(route.request.url)
        if len(broken) > 3:
            route.continue_()
        else:
            route.fulfill(body=b"\xff\xd8 no picture", content_type="image/jpeg", headers={"x-tile-source": "stored"})

    tab.page.route(SR_TILE, damage)
    assert is_sharp(tab.view(site.liver, NEAR))
    assert len(broken) > 3


def test_an_unknown_slide_is_said_to_be_unknown(open_tab, site):
    tab = open_tab()
    answer = tab.page.goto(f"{site.url}/slides/doesnotexist")
    failure = tab.page.locator("#failure")
    failure.wait_for()
    assert answer.status == 404
    assert "No such slide" in failure.inner_text()
    tab.provoked("404")


def test_a_server_that_fails_is_named_and_can_be_asked_again(open_tab, site):
    tab = open_tab()
    tab.page.route("**/api/slides/*", lambda route: route.abort("connectionrefused"))
    tab.page.goto(f"{site.url}/slides/{site.liver}")
    failure = tab.page.locator("#failure")
    failure.wait_for()
    assert "The server does not answer." in failure.inner_text()
    tab.page.unroute("**/api/slides/*")
    tab.page.locator("#failure-retry").click()
    failure.wait_for(state="hidden")
    assert tab.settle().magnification
    tab.provoked("ERR_CONNECTION_REFUSED")
