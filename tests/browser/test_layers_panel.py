"""The layers panel: what is switched, moved and coloured there is what is drawn, counted and exported."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.browser.reviewed import LYMPHOCYTE, TUMOUR, add_bare_slide, add_reviewed, heard, note, publish, square

AT_TUMOUR = "#x=248&y=340&z=1&s=stored"
"""The first tumour, with its prediction 8 px beside it, in the middle of the stage."""


@pytest.fixture
def case(panel_site):
    return add_reviewed(panel_site)


def layer(tab, name: str):
    """The panel's section of a layer."""
    return tab.page.get_by_role("region", name=name, exact=True)


def numbers(tab, name: str, class_name: str) -> list[str]:
    """Count and area in view and on the slide, as the panel writes them."""
    row = layer(tab, name).locator("tr", has=tab.page.get_by_role("checkbox", name=class_name, exact=True))
    return row.locator(".count, .area").all_inner_texts()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_a_class_switched_off_is_gone_from_the_pixels_and_not_from_the_counts(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR + f"&l={case.truth}")
    drawn = tab.pixels(60, 60)
    tab.press("l")
    before = numbers(tab, "Drawn by Dr. A.", TUMOUR)
    layer(tab, "Drawn by Dr. A.").get_by_role("checkbox", name=TUMOUR, exact=True).uncheck()
    without = tab.settle().pixels(60, 60)
    bare = tab.press("h").pixels(60, 60)
    assert difference(drawn, bare) > 2 and difference(without, bare) == 0
    assert before[0] == "3" and before[2:] == ["6", "2,400 µm²"]
    assert numbers(tab, "Drawn by Dr. A.", TUMOUR)[2:] == ["6", "2,400 µm²"]


def test_the_threshold_moves_pixels_counts_and_areas_at_once(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR + f"&l={case.prediction}").press("l")
    section = layer(tab, "Nuclei of May")
    field = section.get_by_label("Score ≥")
    assert numbers(tab, "Nuclei of May", TUMOUR)[2:] == ["7", "2,500 µm²"]
    drawn = tab.pixels(60, 60)
    field.fill("0.5")
    tab.until(lambda: numbers(tab, "Nuclei of May", TUMOUR)[2] == "6", "the tumours at 0.5")
    # Six of 80 px; the small one of the wrong class has 0.55.
    assert numbers(tab, "Nuclei of May", TUMOUR)[3] == "2,100 µm²"
    assert numbers(tab, "Nuclei of May", LYMPHOCYTE)[2:] == ["2", "200 µm²"]
    assert section.locator(".count-all").inner_text() == "8 of 11"
    assert difference(tab.settle().pixels(60, 60), drawn) == 0, "0.95 is kept"
    section.get_by_label("Score threshold of Nuclei of May").fill("96")
    tab.until(lambda: numbers(tab, "Nuclei of May", TUMOUR) == ["0", "", "0", ""], "no tumours at 0.96")
    assert field.input_value() == "0.96"
    assert difference(tab.settle().pixels(60, 60), drawn) > 2


def test_a_threshold_keeps_a_score_that_equals_it(panel_tab, case):
    tab = panel_tab.view(case.slide, f"#x=1200&y=800&z=0.5&l={case.prediction}").press("l")
    for value, count in (("0.55", "6"), ("0.56", "5"), ("0.45", "7"), ("0.46", "6")):
        layer(tab, "Nuclei of May").get_by_label("Score ≥").fill(value)
        tab.until(lambda count=count: numbers(tab, "Nuclei of May", TUMOUR)[2] == count, f"{count} at {value}")
        assert numbers(tab, "Nuclei of May", TUMOUR)[0] == count, "in view is all of the slide"


def test_counts_in_view_are_those_of_the_view(panel_tab, case):
    tab = panel_tab.view(case.slide, f"#x=1200&y=920&z=0.5&l={case.truth}").press("l")
    tab.until(lambda: numbers(tab, "Drawn by Dr. A.", LYMPHOCYTE)[0] == "4", "the whole slide")
    tab.go(f"#x=500&y=920&z=1&l={case.truth}")
    # 1280 CSS px wide at ×40: from −140 to 1140, and 700 high: from about 550.
    tab.until(lambda: numbers(tab, "Drawn by Dr. A.", LYMPHOCYTE) == ["4", "400 µm²"] * 2, "four")
    tab.go(f"#x=200&y=920&z=2&l={case.truth}")
    tab.until(lambda: numbers(tab, "Drawn by Dr. A.", LYMPHOCYTE)[:2] == ["2", "200 µm²"], "two of them")
    assert numbers(tab, "Drawn by Dr. A.", TUMOUR)[0] == "0"


@pytest.mark.parametrize("way", ["double-click", "only"])
def test_one_class_alone_and_all_again(panel_tab, case, way):
    tab = panel_tab.view(case.slide, AT_TUMOUR).press("l")
    section = layer(tab, "Nuclei of May")
    boxes = [section.get_by_role("checkbox", name=name, exact=True) for name in (LYMPHOCYTE, TUMOUR)]

    def alone():
        if way == "double-click":
            section.locator(".class-name", has_text=TUMOUR).dblclick()
        else:
            section.get_by_role("button", name=re.compile("Show (only Tumour|all classes)")).last.click()

    alone()
    assert [box.is_checked() for box in boxes] == [False, True]
    alone()
    assert [box.is_checked() for box in boxes] == [True, True]


def test_a_colour_is_changed_kept_in_the_address_and_taken_back(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR + f"&l={case.truth}&o=1").press("l")
    before = tab.pixels(20, 20)
    layer(tab, "Drawn by Dr. A.").get_by_label(f"Colour of {TUMOUR}").fill("#ff00ff")
    red, green, blue = tab.settle().pixels(20, 20).reshape(-1, 3).mean(0) - before.reshape(-1, 3).mean(0)
    assert red > 5 and blue > 5 and green < 0
    assert tab.state["k"] == f"{case.truth}+ff00ff+{TUMOUR}"
    layer(tab, "Drawn by Dr. A.").get_by_role("button", name="Reset colours").click()
    assert difference(tab.settle().pixels(20, 20), before) == 0
    assert "k" not in tab.state


def test_outline_fill_and_opacity_of_one_layer(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR + f"&l={case.truth}").press("l")
    section = layer(tab, "Drawn by Dr. A.")
    filled, edge = tab.pixels(10, 10), tab.pixels(60, 60)
    section.get_by_text("Outline", exact=True).click()
    outlined = tab.settle().pixels(10, 10)
    assert difference(filled, outlined) > 2, "no fill in the middle"
    section.get_by_text("Fill", exact=True).click()
    assert difference(tab.settle().pixels(10, 10), outlined) > 2 and difference(tab.pixels(60, 60), edge) > 0.1
    section.get_by_text("Both", exact=True).click()
    section.get_by_label("Opacity of Drawn by Dr. A.").fill("0")
    tab.settle()
    assert tab.state["a"] == f"{case.truth}+0"
    bare = tab.press("h").pixels(60, 60)
    tab.press("h")
    layer(tab, "Nuclei of May").get_by_role("checkbox", name="Nuclei of May").uncheck()
    assert difference(tab.settle().pixels(60, 60), bare) == 0


def test_the_export_holds_what_is_shown(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR + f"&t={case.prediction}+0.5").press("l")
    section = layer(tab, "Nuclei of May")
    section.get_by_role("button", name="Export").click()
    words = section.get_by_text("of 11 features")
    tab.until(lambda: words.inner_text() == "8 of 11 features: score ≥ 0.50", "the count at the threshold")
    section.get_by_role("checkbox", name=LYMPHOCYTE, exact=True).uncheck()
    assert words.inner_text() == "6 of 11 features: 1 of 2 classes, score ≥ 0.50"
    section.get_by_text("×20", exact=True).click()
    link = section.get_by_role("link", name="Download").get_attribute("href")
    features = tab.page.request.get(f"{tab.site.url}{link}").json()
    features = features["features"] if isinstance(features, dict) else features
    assert len(features) == 6
    assert {each["properties"]["classification"]["name"] for each in features} == {TUMOUR}
    corners = np.concatenate([each["geometry"]["coordinates"][0] for each in features])
    assert corners.min(0).tolist() == [104, 150], "the first tumour, in pixels of the stored plane"
    section.get_by_role("button", name="What is lost?").click()
    section.get_by_text("Nothing is lost.").wait_for()
    section.get_by_text("ASAP", exact=True).click()
    assert section.get_by_text("Nothing is lost.").count() == 0, "that was of another file"
    section.get_by_role("button", name="What is lost?").click()
    section.get_by_text(re.compile(r"Not in the file: .*score.* \(×6\)")).wait_for()


def test_a_prediction_is_deleted_only_when_that_is_said_twice(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR).press("l")
    assert layer(tab, "Drawn by Dr. A.").get_by_role("button", name="Delete").count() == 0, "truth stays"
    section = layer(tab, "Nuclei of May")
    section.get_by_role("button", name="Delete").click()
    section.get_by_role("button", name="Keep").click()
    assert not section.get_by_text("for everybody").is_visible()
    section.get_by_role("button", name="Delete").click()
    section.get_by_role("button", name="Delete").last.click()
    section.wait_for(state="detached")
    heard(tab, "Nuclei of May was deleted.")
    assert tab.page.evaluate("document.activeElement.id") == "layers-title"
    layers = tab.page.request.get(f"{tab.site.url}/api/slides/{case.slide}/layers").json()["layers"]
    assert [each["id"] for each in layers] == [case.truth]


def test_a_layer_that_cannot_be_deleted_says_why(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR).press("l")
    problem = {"title": "Conflict", "detail": "Someone holds it."}
    tab.page.route("**/layers/*", lambda route: route.fulfill(status=409, json=problem))
    section = layer(tab, "Nuclei of May")
    section.get_by_role("button", name="Delete").click()
    section.get_by_role("button", name="Delete").last.click()
    section.get_by_text("Not deleted: Someone holds it.").wait_for()
    tab.provoked("409")


def test_where_a_layer_comes_from_is_one_click_away(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR).press("l")
    section = layer(tab, "Nuclei of May")
    section.get_by_role("button", name="About").click()
    text = section.locator("dl").inner_text()
    for fact in ("nuclei-test (instance)", "cd" * 32, "whole slide", "threshold 0.5", "13 s", case.prediction):
        assert fact in text
    assert section.get_by_text("Predictions · nuclei-test").count() == 0
    assert tab.page.get_by_role("heading", name="Predictions · nuclei-test").is_visible()


def test_keys_move_threshold_and_style_and_say_so(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR + f"&l={case.prediction}")
    filled = tab.pixels(10, 10)
    tab.press(">", ">", ">")
    heard(tab, "Nuclei of May: score ≥ 0.15, 3 in view.")
    assert tab.state["t"] == f"{case.prediction}+0.15"
    tab.press("<")
    tab.until(lambda: "0.10" in note(tab), "the threshold before")
    tab.press("o")
    heard(tab, "Layers drawn as outline.")
    assert difference(tab.pixels(10, 10), filled) > 2


def test_a_pointer_reads_class_score_area_id_and_layer(panel_tab, case):
    tab = panel_tab.view(case.slide, AT_TUMOUR + f"&l={case.prediction}")
    box = tab.stage
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    reading = tab.page.locator("#reading")
    reading.wait_for()
    assert reading.inner_text().split("\n")[0] == "Tumour · score 0.95 · 400 µm²"
    assert re.fullmatch("Nuclei of May · (no. 0|[0-9a-f-]{36})", reading.inner_text().strip().split("\n")[-1])
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = reading.bounding_box()
    tab.press("ArrowRight")
    after = reading.bounding_box()
    assert after["x"] == pytest.approx(before["x"] - 80, abs=2), "what is pinned goes with its feature"
    for _ in range(20):
        tab.press(">", settle=False)
    assert not reading.is_visible(), "what is dropped by the threshold is not read any more"


def many_layers(site) -> str:
    """A slide with twelve layers, ten of them of thirty classes."""
    slide = add_bare_slide(site)
    names = [f"Class {at:02d} of a tissue with a rather long name" for at in range(30)]
    publish(site, slide, "Ground truth of the challenge, second edition, revised by the panel", "truth",
            [square(100, 100, 50, "Tumour")])  # fmt: skip
    publish(site, slide, "Notes", "annotation", [square(300, 100, 50, "Note")])
    for run in range(10):
        features = [square(40 * at, 100 * run, 30, name, at / 30) for at, name in enumerate(names)]
        publish(site, slide, f"Run {run}", "prediction", features, model=f"model-{run % 2}")
    return slide


@pytest.mark.parametrize("size", [(1280, 800), (390, 700)])
def test_twelve_layers_of_thirty_classes_stay_usable(chromium, panel_site, size):
    from tests.browser.tab import Tab

    tab = Tab(chromium, panel_site, size=size)
    tab.view(many_layers(panel_site)).press("l")
    page = tab.page
    body = page.locator("#layers-body")
    assert page.get_by_role("checkbox", name="Run 9").is_visible()
    layer(tab, "Run 9").get_by_role("button", name="Details of Run 9").click()
    assert body.evaluate("each => each.scrollWidth <= each.clientWidth"), "nothing sticks out sideways"
    last = layer(tab, "Run 9").get_by_role("checkbox", name="Class 29", exact=False)
    last.scroll_into_view_if_needed()
    tab.frames()
    head, panel = layer(tab, "Run 9").locator(".layer-head").bounding_box(), page.locator("#layers").bounding_box()
    assert panel["y"] < head["y"] < panel["y"] + 80, "the head of the layer stays in sight"
    assert page.locator("#layers-title").is_visible()
    assert panel["y"] + panel["height"] <= size[1] and panel["x"] + panel["width"] <= size[0]
    last.uncheck()
    assert last.is_checked() is False
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == list(size)
    tab.page.context.close()
    tab.check()
