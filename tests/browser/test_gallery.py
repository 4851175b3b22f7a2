"""The gallery: every slide with its facts, found by name, honest when there is nothing or no answer."""

from __future__ import annotations

import re

from tests.browser.site import EVIL


def test_cards_say_what_a_slide_is(tab, site):
    tab.page.goto(site.url)
    card = tab.page.locator(".card", has_text="liver")
    card.wait_for()
    assert tab.page.locator(".card").count() == 3
    text = re.sub(r"\s+", " ", card.inner_text())
    assert (
        "4,611 × 5,001 px" in text and "0.25 µm/px" in text and "stored, bicubic, sr-fake" in text and "ready" in text
    )
    tab.until(lambda: tab.page.evaluate("document.querySelector('.card img').naturalWidth") == 64, "the thumbnail")
    assert card.locator("a").get_attribute("href") == f"/slides/{site.liver}"


def test_slides_are_found_by_name(tab, site):
    tab.page.goto(site.url)
    tab.page.locator(".card").first.wait_for()
    tab.page.locator("#search").fill("LIV")
    assert tab.page.locator(".card:visible .card-name").all_inner_texts() == ["liver"]
    tab.page.locator("#search").fill("<img")
    assert tab.page.locator(".card:visible .card-name").all_inner_texts() == [EVIL]
    tab.page.locator("#search").fill("spleen")
    assert tab.page.locator("#message").inner_text() == "No slide is called “spleen”."


def test_an_empty_library_says_what_to_do(tab, site):
    tab.page.route("**/api/slides", lambda route: route.fulfill(json={"slides": []}))
    tab.page.goto(site.url)
    tab.until(lambda: "ocular ingest" in tab.page.locator("#message").inner_text(), "words for an empty library")


def test_no_answer_is_said_and_can_be_asked_again(open_tab, site):
    tab = open_tab()
    tab.page.route("**/api/slides", lambda route: route.abort("connectionrefused"))
    tab.page.goto(site.url)
    tab.page.locator("#retry").wait_for()
    assert "The server does not answer." in tab.page.locator("#message").inner_text()
    tab.page.unroute("**/api/slides")
    tab.page.locator("#retry").click()
    tab.page.locator(".card").first.wait_for()
    tab.provoked("ERR_CONNECTION_REFUSED")


def test_slides_that_arrive_appear_without_a_reload_and_keep_the_focus(open_tab, site):
    tab = open_tab()
    tab.page.clock.install()
    cards = tab.page.request.get(f"{site.url}/api/slides").json()["slides"]
    answers = {"slides": cards[:1]}
    tab.page.route("**/api/slides", lambda route: route.fulfill(json=answers))
    tab.page.goto(site.url)
    tab.page.locator(".card a").first.focus()
    focused = tab.page.evaluate("document.activeElement.getAttribute('href')")
    answers["slides"] = cards
    tab.page.clock.run_for(11_000)
    tab.until(lambda: tab.page.locator(".card").count() == len(cards), "the new cards")
    assert tab.page.evaluate("document.activeElement.getAttribute('href')") == focused
