"""Model cards one click away, for what makes pixels and what predicts; the switch copes with many networks."""

from __future__ import annotations

import json

import pytest

from tests.browser.tab import Tab, api_json
from tests.train.hand_made import write_run
from tests.versions import FakeNetwork
from train.publish import Wish, publish

NEAR = "#x=2200&y=1200&z=1&l=none"
SCORES = [
    {"slide": "BS12", "tiles": 40, "bicubic": {"psnr": 32.432, "ssim": 0.954},
     "lanczos": {"psnr": 32.818, "ssim": 0.957}, "sr-fake": {"psnr": 33.894, "ssim": 0.9645},
     "gain": {"psnr": 1.462, "ssim": 0.0105}},
]  # fmt: skip
SR_FAKE = {
    "format": 1, "name": "sr-fake", "kind": "sr", "scale": 2, "halo": 24, "multiple": 2, "mpp_range": [0.4, 0.62],
    "sha256": FakeNetwork().sha256, "parameters": 1234567, "architecture": "sr-joint", "licence": "MIT",
    "data": [{"set": "tiles", "slides": [f"slide-{n}" for n in range(12)], "licence": "CC BY 4.0", "credit": "A lab"}],
    "scores": SCORES, "training": {"steps": 24000, "commit": "4ad6d76"}, "notes": "Not a medical device.",
}  # fmt: skip


@pytest.fixture
def models(tab, site):
    """The server's models, with the card of the site's own network among them."""
    listed = tab.page.request.get(f"{site.url}/api/models").json()["models"] + [SR_FAKE]
    tab.page.route("**/api/models", lambda route: route.fulfill(json={"models": listed}))
    return listed


def card(tab: Tab):
    tab.page.locator("#model .model-name").wait_for()
    return tab.page.get_by_role("dialog", name="Model card")


def row(tab: Tab, name: str) -> str:
    return tab.page.locator("#model dt", has_text=name).first.locator("+ dd").inner_text()


def test_the_badge_names_the_model_and_opens_its_card(tab, site, models):
    tab.view(site.liver, f"{NEAR}&s=sr-fake")
    badge = tab.page.get_by_role("button", name="Synthesised · sr-fake abababababab")
    badge.focus()
    tab.page.keyboard.press("Enter")
    shown = card(tab)
    assert shown.locator(".model-name").inner_text().split() == ["sr-fake", "super-resolution", "×2"]
    assert row(tab, "Parameters") == "1,234,567" and row(tab, "SHA-256") == SR_FAKE["sha256"]
    assert row(tab, "Made for") == "0.4–0.62 µm per stored pixel · this slide: 0.5, fits"
    assert row(tab, "Looks around") == "24 stored px on each side of a tile or window"
    assert row(tab, "tiles") == (
        "12 slides: slide-0, slide-1, slide-2, slide-3, slide-4, slide-5, slide-6, slide-7 and 4 more · "
        "licence: CC BY 4.0 · A lab"
    )
    cells = [each.inner_text() for each in shown.locator(".scores tbody td").all()]
    assert cells == ["32.43 dB\n0.9540", "32.82 dB\n0.9570", "33.89 dB\n0.9645", "+1.46 dB\n+0.0105"]
    assert shown.get_by_text("Not a medical device.").is_visible()
    tab.page.keyboard.press("Escape")
    assert shown.is_hidden() and tab.page.evaluate("document.activeElement.id") == "badge"


def test_one_key_shows_the_card_of_the_source_in_use_and_the_list_any_other(tab, site, models):
    tab.view(site.liver, f"{NEAR}&s=bicubic")
    tab.press("k", settle=False)
    assert card(tab).locator(".model-name").inner_text().startswith("bicubic")
    card(tab).get_by_label("Model").select_option("nuclei-fast")
    assert card(tab).locator(".model-name").inner_text().startswith("nuclei-fast")
    heads = tab.page.locator("#model .scores thead th").all_inner_texts()
    assert heads[:5] == ["Measured on", "Dice", "AJI", "PQ", "DQ"]
    groups = tab.page.locator("#model-choice optgroup")
    assert [each.get_attribute("label") for each in groups.all()] == ["×40 pixels", "Predictions"]
    upscalers = groups.first.locator("option").all_inner_texts()
    assert {"bicubic", "sr-fast", "sr-fake"} <= set(upscalers) and "nuclei-fast" not in upscalers
    tab.press("Escape")
    tab.go(f"{NEAR}&s=stored").press("k", settle=False)
    assert card(tab).locator(".model-name").inner_text().startswith("sr-fake"), "what ×40 would be made by"
    tab.press("Escape")


def test_a_model_that_is_gone_and_a_list_that_does_not_come_are_said_in_words(tab, site):
    tab.view(site.liver, f"{NEAR}&s=sr-fake")
    tab.press("k", settle=False)
    tab.page.get_by_text("There is no card of sr-fake: its files are no longer at hand.").wait_for()
    tab.press("Escape")
    tab.page.route("**/api/models", lambda route: route.fulfill(status=500, json={"title": "x", "detail": "No disk."}))
    tab.press("k", settle=False)
    tab.page.get_by_text("The models are not known: No disk.").wait_for()
    tab.press("Escape")
    tab.provoked("500")


def test_the_predict_panel_lists_predictors_only_and_opens_their_cards(panel_tab, panel_site):
    tab = panel_tab.view(panel_site.liver, NEAR)
    tab.press("j", settle=False)
    tab.page.get_by_role("button", name="Card of tissue-fast").click()
    assert card(tab).locator(".model-name").inner_text().startswith("tissue-fast")
    tab.press("Escape")
    names = tab.page.locator(".model strong").all_inner_texts()
    assert "tissue-fast" in names and not {"bicubic", "sr-fast"} & set(names)


def more_networks(slide):
    """The slide's network under four names more."""
    at = next(n for n, each in enumerate(slide["sources"]) if each["kind"] == "sr")
    networks = [
        {**slide["sources"][at], "source": f"own-{n}", "label": f"Super-resolution ×40 (own-{n})"} for n in range(4)
    ]
    slide["sources"][at + 1 : at + 1] = networks


def test_many_networks_share_one_button_and_a_list_and_the_address_keeps_the_choice(open_tab, site):
    tab = open_tab(size=(1280, 800))
    api_json(tab, more_networks)
    tab.view(site.liver, NEAR)
    assert [each.inner_text() for each in tab.page.locator(".source").all()] == ["Stored", "Bicubic", "SR", "Auto"]
    choice = tab.page.get_by_label("Super-resolution model")
    choice.select_option("own-2")
    tab.settle()
    assert tab.source == "own-2" and tab.state["s"] == "own-2"
    tab.page.locator("#stage").focus()
    assert tab.press("s").source == "own-3"
    tab.go(f"{NEAR}&s=own-1")
    assert (tab.source, choice.input_value()) == ("own-1", "own-1")
    tab.page.locator(".source", has_text="Stored").click()
    tab.page.locator(".source", has_text="SR").click()
    assert tab.settle().source == "own-1", "the button goes back to the network of the list"
    bar = tab.page.locator(".topbar").bounding_box()
    assert bar["height"] < 60 and tab.page.evaluate("document.documentElement.scrollWidth") == 1280


def test_two_networks_share_a_list_on_a_narrow_screen(open_tab, site):
    tab = open_tab(size=(420, 800))
    api_json(tab, more_networks)
    tab.view(site.liver, NEAR)
    tab.page.get_by_label("Super-resolution model").select_option("own-0")
    assert tab.settle().source == "own-0"
    bar = tab.page.locator("#sources").bounding_box()
    assert bar["x"] >= 0 and bar["x"] + bar["width"] <= 420


def test_a_long_card_scrolls_inside_on_a_narrow_screen(open_tab, site):
    tab = open_tab(size=(420, 800))
    tab.page.route(
        "**/api/models",
        lambda route: route.fulfill(body=json.dumps({"models": [SR_FAKE]}), content_type="application/json"),
    )
    tab.view(site.liver, f"{NEAR}&s=sr-fake").press("k", settle=False)
    card(tab)
    body = tab.page.locator("#model-body")
    assert body.evaluate("e => e.scrollWidth <= e.clientWidth && e.scrollHeight > e.clientHeight")


CASES = [
    ("kindText({kind: 'bicubic', scale: 2})", "interpolation ×2, nothing learnt"),
    ("scoreTable({name: 'x', scores: []})", None),
    (
        "scoreTable({name: 'x', scores: [{slide: 'a', x: {psnr: 30}}]}).rows",
        [{"name": "a", "more": "", "cells": ["30.00 dB\n"]}],
    ),
    (
        "scoreTable({name: 'x', scores: [{set: 'a', words: 'weak', patches: 12, recall: 0.5, ece: null}]})",
        {
            "caption": "Measured on data it was not trained on",
            "head": ["Measured on", "recall"],
            "rows": [{"name": "a", "more": "weak; 12 patches", "cells": ["0.500"]}],
        },
    ),
    ("trainingRows({training: {steps: 10, stages: [1], minutes: 61.2}})", [["Steps", "10"], ["Minutes", "61"]]),
    ("dataRows({data: [{set: 's', patches: 1200, labels: 'weak'}]})", [["s", "1,200 patches · labels: weak"]]),
    (
        "factRows({kind: 'sr', scale: 2, mpp_range: [0.4, 0.6], sha256: 'ab', degradation: {jpeg: '5/7'}}, 1)",
        [
            ["Does", "super-resolution ×2"],
            ["Made for", "0.4–0.6 µm per stored pixel · this slide: 1, does not fit"],
            ["Trained for", "JPEG 5/7"],
            ["SHA-256", "ab"],
        ],
    ),
    ("isUpscaler({kind: 'sr'})", True),
    ("isUpscaler({kind: 'patch'})", False),
]


@pytest.mark.parametrize(("body", "value"), CASES)
def test_words_of_a_card(tab, site, body, value):
    tab.page.goto(f"{site.url}/")
    assert tab.module("modelwords", f"return m.{body}") == value


def shown_models(tab: Tab) -> list[str]:
    """Names that the predict panel offers."""
    return tab.page.locator(".model strong").all_inner_texts()


def test_a_model_published_while_the_page_is_open_is_offered_when_the_panel_opens_again(
    panel_tab, panel_site, tmp_path
):
    tab = panel_tab.view(panel_site.liver, NEAR)
    tab.press("j", settle=False)
    tab.page.get_by_role("radio", name="tissue-fast").check()
    assert "violet" not in shown_models(tab)
    tab.press("j", settle=False)
    publish(write_run(tmp_path / "violet"), panel_site.library.root, Wish("violet", title="Violet tissue"))
    tab.press("j", settle=False)
    row = tab.page.locator(".model", has_text="violet")
    row.wait_for()
    assert row.locator(".quiet").all_inner_texts() == [
        "Violet tissue", "areas, pixel by pixel: Tumour", "learnt from drawn truth",
    ]  # fmt: skip
    assert tab.page.get_by_role("radio", name="tissue-fast").is_checked(), "what was chosen stays chosen"
    tab.page.get_by_role("button", name="Card of violet").click()
    assert row_of_sheet(tab, "Title") == "Violet tissue" and row_of_sheet(tab, "Learnt from") == "drawn truth"
    assert "violet" in tab.page.locator("#model-choice option").all_inner_texts()
    tab.press("Escape")


def row_of_sheet(tab: Tab, name: str) -> str:
    card(tab)
    return row(tab, name)


def test_a_model_for_research_only_says_so_and_is_never_chosen_by_itself(open_tab, site):
    free = {
        "name": "z-free", "kind": "patch", "classes": [{"name": "A", "color": None}], "mpp": 0.5, "sha256": "ab",
        "mpp_range": [0.4, 0.62], "licence": "MIT", "research_only": False, "label_kinds": ["hand"],
    }  # fmt: skip
    nc = {**free, "name": "a-nc", "licence": "CC BY-NC-SA 4.0", "research_only": True}
    second = {**free, "name": "b-second", "better": "z-free"}
    tab, offered = open_tab(), [nc, second, free]
    tab.page.route("**/api/models", lambda route: route.fulfill(json={"models": offered}))
    tab.view(site.liver, NEAR)
    tab.press("j", settle=False)
    tab.page.get_by_role("radio", name="z-free").wait_for()
    assert (
        shown_models(tab) == ["z-free", "b-second", "a-nc"]
        and tab.page.get_by_role("radio", name="z-free").is_checked()
    )
    assert tab.page.get_by_text("Research only: CC BY-NC-SA 4.0").is_visible()
    tab.page.get_by_role("button", name="Card of a-nc").click()
    assert row_of_sheet(tab, "Licence") == ("CC BY-NC-SA 4.0 · for research only: never chosen by itself")
    assert "a-nc (research only)" in tab.page.locator("#model-choice option").all_inner_texts()
    tab.press("Escape")
    offered[:] = [nc]
    tab.press("j", settle=False).press("j", settle=False)
    tab.page.get_by_text("Choose a model.").wait_for()
    assert tab.page.get_by_role("button", name="Predict the slide").is_disabled()
    tab.page.get_by_role("radio", name="a-nc").check()
    assert tab.page.get_by_role("button", name="Predict the slide").is_enabled()
