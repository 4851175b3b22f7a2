"""The compare panel: its numbers are the API's, its colours the matches, its errors are found one after the other."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.browser.reviewed import (
    LARGE,
    LYMPHOCYTE,
    PREDICTION,
    PROVENANCE,
    SMALL,
    TUMOUR,
    Worker,
    add_bare_slide,
    add_reviewed,
    heard,
    note,
    publish,
    square,
)
from tests.browser.tab import Tab
from tests.browser.test_viewer import LUMINANCE

ALL = "#x=1200&y=800&z=0.5&s=stored"
MEASURES = ("dice", "iou", "precision", "recall", "f1", "pq")
TP, FP, FN = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xF0, 0xE4, 0x42)


@pytest.fixture
def case(panel_site):
    return add_reviewed(panel_site)


def compare(tab: Tab) -> Tab:
    """Open the panel and wait for its table."""
    tab.press("m", settle=False)
    return measured(tab)


def measured(tab: Tab) -> Tab:
    tab.page.locator(".measures[aria-busy=false]").wait_for()
    return tab


def table(tab: Tab) -> dict[str, list[str]]:
    """What the table shows: counts in words and six measures by class."""
    measured(tab)
    groups = tab.page.locator(".measures tbody").all()
    return {
        group.locator(".measured").inner_text(): [
            group.locator(".quiet").inner_text(), *group.locator("td").all_inner_texts(),
        ] for group in groups
    }  # fmt: skip


def expected(tab: Tab, case, **query) -> dict[str, list[str]]:
    """The same of the API's answer."""
    values = {"truth": case.truth, "prediction": case.prediction, "iou": 0.5, "classes": "match", **query}
    address = "&".join(f"{name}={value}" for name, value in values.items())
    answer = tab.page.request.get(f"{tab.site.url}/api/slides/{case.slide}/compare?{address}").json()
    rows = {"All classes": answer["overall"], **answer["classes"]}
    return {
        name: [
            f"{row['tp']} matched · {row['fp']} false positive · {row['fn']} missed",
            *("–" if row[key] is None else f"{row[key]:.3f}" for key in MEASURES),
        ] for name, row in rows.items()
    }  # fmt: skip


def near(pixels: np.ndarray, color: tuple[int, int, int], slack: int = 30) -> int:
    """Pixels of about a colour."""
    return int((np.abs(pixels.astype(int) - color).max(-1) <= slack).sum())


def test_the_table_is_the_apis_for_view_and_slide_at_the_threshold(panel_tab, case):
    tab = compare(panel_tab.view(case.slide, ALL))
    tab.page.get_by_text("Whole slide", exact=True).click()
    tab.until(lambda: table(tab) == expected(tab, case, min_score=0), "the whole slide at 0")
    assert table(tab)[TUMOUR][0] == "4 matched · 3 false positive · 2 missed"
    tab.page.locator("#compare").get_by_label("Score ≥").fill("0.5")
    tab.until(lambda: table(tab) == expected(tab, case, min_score=0.5), "the whole slide at 0.5")
    assert table(tab)[LYMPHOCYTE][0] == "2 matched · 0 false positive · 2 missed"
    tab.go(f"#x=500&y=340&z=1&s=stored&t={case.prediction}+0.5&c={case.truth}+{case.prediction}")
    box = f"0,0,1140,{340 + round(tab.stage['height'] / 2)}"
    tab.until(lambda: table(tab) == expected(tab, case, min_score=0.5, bbox=box), "the view at 0.5")
    assert table(tab)["All classes"][0] == "3 matched · 0 false positive · 0 missed"


def test_overlap_and_classes_decide_what_matches(panel_tab, case):
    tab = compare(panel_tab.view(case.slide, ALL))
    tab.page.get_by_text("Whole slide", exact=True).click()
    tab.page.get_by_text("0.25", exact=True).click()
    tab.until(lambda: table(tab) == expected(tab, case, iou=0.25), "matches above ¼")
    assert table(tab)[TUMOUR][0].startswith("5 matched")
    tab.page.get_by_label("Only within a class").uncheck()
    tab.until(lambda: table(tab) == expected(tab, case, iou=0.25, classes="any"), "matches of any class")
    assert table(tab)["All classes"][0] == "9 matched · 2 false positive · 1 missed"
    assert tab.state["c"] == f"{case.truth}+{case.prediction}+0.25+any+slide"


def test_matches_have_their_colours_and_v_takes_them_back(panel_tab, case):
    tab = panel_tab.view(case.slide, f"#x=1480&y=340&z=2&s=stored&o=1&c={case.truth}+{case.prediction}")
    legend = tab.page.locator("#legend")
    legend.wait_for()
    assert legend.inner_text().split("\n") == ["matched", "false positive", "missed"]
    tab.until(lambda: near(tab.settle().pixels(160, 160), FP) > 500, "the false positive's outline")
    assert near(tab.pixels(160, 160), FN) > 100, "the missed truth's dashes"
    tab.go(f"#x=244&y=340&z=2&s=stored&o=1&c={case.truth}+{case.prediction}")
    matched = tab.pixels(60, 60)
    tab.press("v")
    heard(tab, "Coloured by class.")
    assert not legend.is_visible()
    by_class = tab.pixels(60, 60)
    blue = [int(np.abs(each.astype(int) - TP).sum(-1).mean()) for each in (matched, by_class)]
    assert blue[0] < blue[1] - 60
    tab.press("v")
    heard(tab, "Coloured by match.")
    assert legend.is_visible()
    assert tab.page.locator("#compare").is_visible() is False


def test_the_threshold_changes_what_is_missed(panel_tab, case):
    tab = panel_tab.view(case.slide, f"#x=1148&y=340&z=2&s=stored&o=1&c={case.truth}+{case.prediction}")
    tab.page.locator("#legend").wait_for()
    assert near(tab.settle().pixels(120, 120), FN) < 20
    for _ in range(14):
        tab.press(">", settle=False)
    tab.settle()
    assert near(tab.pixels(120, 120), FN) > 100, "its prediction has 0.65"


def test_errors_are_gone_through_by_score_and_by_size(panel_tab, case):
    tab = panel_tab.view(case.slide, f"{ALL}&c={case.truth}+{case.prediction}&t={case.prediction}+0.5")
    tab.press("d")
    reading = tab.page.locator("#reading")
    heard(tab, "1 of 6: false positive · Tumour · score 0.90 · 400 µm²")
    assert reading.inner_text().startswith("Tumour · score 0.90 · 400 µm² · false positive")
    view = tab.state
    assert (float(view["x"]), float(view["y"])) == pytest.approx((1440 + LARGE / 2, 300 + LARGE / 2), abs=2)
    tab.press("d")
    heard(tab, "2 of 6: false positive · Tumour · score 0.55 · 100 µm²")
    tab.press("Shift+D", "Shift+D")
    heard(tab, "6 of 6: missed · Lymphocyte · 100 µm²")
    compare(tab)
    tab.page.get_by_text("By size", exact=True).click()
    place = tab.page.locator(".error-place")
    for words in ("1 of 6: false positive · Tumour · score 0.90", "2 of 6: missed · Tumour · 400 µm²"):
        tab.page.get_by_role("button", name="Next", exact=True).click()
        tab.until(lambda words=words: words in place.inner_text(), words)
    tab.settle()
    view = tab.state
    free = 1280 - 352 - 12
    assert float(view["x"]) - (1280 - free) / 2 / float(view["z"]) == pytest.approx(1400 + LARGE / 2, abs=2)


def test_errors_of_a_class_that_is_off_are_passed_over(panel_tab, case):
    hidden = f"&h={case.truth}+{TUMOUR}&h={case.prediction}+{TUMOUR}"
    tab = panel_tab.view(case.slide, f"{ALL}&c={case.truth}+{case.prediction}&t={case.prediction}+0.5{hidden}")
    tab.press("d")
    heard(tab, "1 of 2: missed · Lymphocyte · 100 µm²")
    tab.press("d", "d")
    tab.until(lambda: note(tab).startswith("1 of 2"), "the first again")


def test_no_errors_and_nothing_to_compare_are_said(panel_tab, panel_site):
    slide = add_bare_slide(panel_site)
    same = [square(300, 300, SMALL, TUMOUR)]
    publish(panel_site, slide, "One", "truth", same)
    tab = panel_tab.view(slide, ALL).press("d")
    heard(tab, "Nothing to compare: a reference and a prediction are needed.")
    tab.press("m", settle=False)
    assert tab.page.get_by_text("Two layers are needed").is_visible()
    publish(panel_site, slide, "Two", "prediction", same)
    tab.view(slide, ALL).press("d")
    heard(tab, "No errors at this threshold.")
    compare(tab)
    assert table(tab)["All classes"] == ["1 matched · 0 false positive · 0 missed", *["1.000"] * 6]
    assert "AJI 1.000" in tab.page.locator("#compare").inner_text()


def test_a_model_as_reference_is_called_agreement(panel_tab, panel_site):
    slide = add_bare_slide(panel_site)
    older = publish(panel_site, slide, "Model A", "prediction", PREDICTION[:4], **PROVENANCE)
    newer = publish(panel_site, slide, "Model B", "prediction", PREDICTION[1:5], **PROVENANCE)
    tab = compare(panel_tab.view(slide, f"{ALL}&c={older.id}+{newer.id}"))
    text = tab.page.locator("#compare").inner_text()
    assert "Agreement with a model: the reference is a model's output, not the truth." in text
    assert "false positive" not in text and "missed" not in text
    assert table(tab)["All classes"][0] == "3 both · 1 only in the prediction · 1 only in the reference"


def test_the_curve_shows_the_threshold_and_sets_it(panel_tab, case):
    tab = compare(panel_tab.view(case.slide, f"{ALL}&t={case.prediction}+0.6"))
    area = tab.page.locator(".curve-area")
    area.wait_for()
    query = f"truth={case.truth}&prediction={case.prediction}&classes=match"
    curve = tab.page.request.get(f"{tab.site.url}/api/slides/{case.slide}/compare/curve?{query}").json()
    precision, recall = curve["overall"]["precision"][60], curve["overall"]["recall"][60]
    words = f"At 0.60: precision {precision:.3f}, recall {recall:.3f}. Average precision"
    assert f"{words} {curve['overall']['average_precision']:.3f}." in tab.page.locator(".curve").inner_text()
    dot, plot = tab.page.locator(".curve-dot").bounding_box(), area.bounding_box()
    at = ((dot["x"] + dot["width"] / 2 - plot["x"]) / plot["width"], (dot["y"] + dot["height"] / 2 - plot["y"]))
    assert at == pytest.approx((recall, (1 - precision) * plot["height"]), abs=1.5)
    tab.page.get_by_role("button", name="As a table").click()
    rows = [re.split(r"\s+", each.strip()) for each in tab.page.locator(".points tbody tr").all_inner_texts()]
    points = zip(curve["overall"]["precision"][::10], curve["overall"]["recall"][::10], strict=True)
    words = [["–" if value is None else f"{value:.3f}" for value in point] for point in points]
    assert rows == [[f"{at / 10:.2f}", *point] for at, point in enumerate(words)]
    tab.page.get_by_label("Class of the curve").select_option(LYMPHOCYTE)
    assert f"{curve['classes'][LYMPHOCYTE]['average_precision']:.3f}" in tab.page.locator(".curve").inner_text()
    tab.page.get_by_label("Class of the curve").select_option("")
    area.click(position={"x": plot["width"] * curve["overall"]["recall"][0], "y": plot["height"] * 0.3})
    field = tab.page.locator("#compare").get_by_label("Score ≥")
    tab.until(lambda: float(field.input_value()) < 0.6, "the threshold of that place")


def test_a_comparison_that_fails_says_why(panel_tab, case):
    tab = panel_tab.view(case.slide, ALL)
    problem = {"title": "x", "detail": "The layers are too large to compare."}
    tab.page.route("**/compare?*", lambda route: route.fulfill(status=422, json=problem))
    tab.press("m", settle=False)
    tab.page.get_by_text("Not compared: The layers are too large to compare.").wait_for()
    tab.provoked("422")


def test_the_address_brings_back_threshold_and_comparison(panel_tab, chromium, case):
    tab = panel_tab.view(case.slide, f"#x=1480&y=340&z=2&s=stored&c={case.truth}+{case.prediction}")
    tab.page.locator("#legend").wait_for()
    tab.press(*[">"] * 8)
    state = tab.state
    assert state["t"] == f"{case.prediction}+0.4" and state["c"] == f"{case.truth}+{case.prediction}"
    again = Tab(chromium, tab.site, size=(1280, 800)).view(case.slide, "#" + tab.page.url.partition("#")[2])
    again.page.locator("#legend").wait_for()
    heard(tab, "")
    assert again.state == state
    assert np.abs(again.settle().pixels(150, 150).astype(int) - tab.settle().pixels(150, 150)).max() <= 2
    again.page.context.close()
    again.check()


def test_from_prediction_to_the_next_error_by_keyboard_alone(panel_tab, panel_site):
    slide = add_bare_slide(panel_site)
    publish(panel_site, slide, "By hand", "truth", [square(200, 300, LARGE, TUMOUR), square(900, 300, LARGE, TUMOUR)])
    worker = Worker(panel_site)
    for job in worker.queue.jobs(state="queued"):
        worker.queue.cancel(job.id)
    tab = panel_tab.view(slide, ALL)
    keyboard = tab.page.keyboard
    tab.press("j", settle=False)
    tab.page.get_by_role("radio").first.wait_for()
    for _ in range(40):  # the list of models may still be made anew, which takes the focus away
        keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.textContent") == "Predict the slide":
            break
    keyboard.press("Enter")
    tab.until(lambda: "started" in note(tab), "the word that it began")
    job = worker.take()
    worker.finish(job, [square(200, 300, LARGE, TUMOUR, 0.9), square(1500, 900, LARGE, TUMOUR, 0.6)])
    tab.until(lambda: "done, 2 features." in note(tab), "the layer")
    keyboard.press("m")
    measured(tab)
    tab.until(lambda: table(tab)["All classes"][0] == "1 matched · 1 false positive · 1 missed", "the measures")
    keyboard.press("d")
    tab.until(lambda: note(tab).startswith("1 of 2: false positive · Tumour · score 0.60"), "the first error")
    for _ in range(13):
        keyboard.press(">")
    tab.until(lambda: "score ≥ 0.65" in note(tab), "the threshold")
    tab.settle()
    keyboard.press("d")
    heard(tab, "1 of 1: missed · Tumour · 400 µm²")
    keyboard.press("Escape")
    assert not tab.page.locator("#compare").is_visible()
    assert tab.page.evaluate("document.activeElement.id") == "stage"


@pytest.mark.parametrize("key", ["l", "m"])
def test_text_of_the_panels_stands_out_from_its_ground(panel_tab, case, key):
    tab = panel_tab.view(case.slide, f"{ALL}&t={case.prediction}+0.5")
    tab.press(key)
    for name in ("About", "Export", "Delete", "As a table"):
        for each in tab.page.get_by_role("button", name=name, exact=True).all():
            each.click()
    found = tab.page.evaluate(LUMINANCE)
    assert len(found) > 50
    assert [each for each in found if each[1] < 4.5] == []


def test_on_a_narrow_screen_the_error_is_above_the_panel(chromium, panel_site, case):
    tab = Tab(chromium, panel_site, size=(390, 760))
    tab.view(case.slide, f"{ALL}&c={case.truth}+{case.prediction}&t={case.prediction}+0.5")
    compare(tab).press("d")
    view, stage = tab.state, tab.stage
    middle = np.array([1440 + LARGE / 2, 300 + LARGE / 2])
    on_stage = tab.to_screen([middle], view)[0] + [stage["width"] / 2, stage["height"] / 2]
    assert 0 < on_stage[0] < 390 and 0 < on_stage[1] + stage["y"] < tab.page.locator("#compare").bounding_box()["y"]
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.page.locator("#compare-body").evaluate("each => each.scrollWidth <= each.clientWidth")
    tab.page.context.close()
    tab.check()
