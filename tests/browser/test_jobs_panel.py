"""The predict panel: a click ends as a layer on screen, without a reload, and whatever goes wrong is said in words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.browser.reviewed import LYMPHOCYTE, PREDICTION, TUMOUR, Worker, add_bare_slide, heard, note, square
from tests.browser.tab import Tab

VIEW = "#x=248&y=340&z=1&s=stored"


@pytest.fixture
def slide(panel_site):
    return add_bare_slide(panel_site)


@pytest.fixture
def worker(panel_site):
    """A worker over an empty queue."""
    worker = Worker(panel_site)
    for job in worker.queue.jobs(state="queued"):
        worker.queue.cancel(job.id)
    return worker


def open_panel(tab: Tab) -> Tab:
    tab.press("j", settle=False)
    tab.page.get_by_role("radio").first.wait_for()
    return tab


def choose(tab: Tab, model: str) -> None:
    tab.page.get_by_role("radio", name=re.compile(rf"^{model} (single|areas|heat)")).check()


def press(tab: Tab, name: str) -> None:
    tab.page.get_by_role("button", name=name, exact=True).click()


def jobs_of(tab: Tab, slide: str) -> list[dict]:
    return tab.page.request.get(f"{tab.site.url}/api/jobs?slide={slide}").json()["jobs"]


def row(tab: Tab, text: str):
    return tab.page.locator(".job", has_text=text)


def test_a_click_ends_as_a_layer_on_screen_without_a_reload(panel_tab, slide, worker):
    tab = open_panel(panel_tab.view(slide, VIEW))
    bare = tab.pixels(60, 60)
    tab.page.evaluate("window.sameDocument = true")
    choose(tab, "nuclei-fast")
    press(tab, "Predict the slide")
    row(tab, "nuclei-fast · whole slide").get_by_text("next in the queue").wait_for()
    job = worker.take()
    worker.progress(job, 30, 120)
    bar = tab.page.get_by_role("progressbar", name="nuclei-fast · whole slide")
    tab.until(lambda: bar.evaluate("each => each.value") == 25, "a quarter")
    assert row(tab, "25 % of 120 windows").is_visible()
    worker.finish(job)
    heard(tab, "nuclei-fast, whole slide: done, 11 features.")
    tab.settle()
    tab.until(lambda: np.abs(tab.pixels(60, 60).astype(int) - bare).mean() > 2, "the layer's pixels")
    assert tab.page.evaluate("window.sameDocument")
    assert not bar.is_visible()
    tab.press("l")
    assert tab.page.get_by_role("heading", name="Predictions · nuclei-fast").is_visible()
    assert tab.page.get_by_role("checkbox", name=TUMOUR, exact=True).is_visible(), "a new layer is unfolded"


def test_a_job_of_another_tab_is_followed_too(panel_tab, open_tab, panel_site, slide, worker):
    tab = panel_tab.view(slide, VIEW)
    order = {"kind": "predict", "slide": slide, "model": "tissue"}
    assert tab.page.request.post(f"{panel_site.url}/api/jobs", data=order).status == 201
    open_panel(tab)
    row(tab, "tissue · whole slide").wait_for()
    worker.finish(worker.take(), PREDICTION[:1])
    heard(tab, "tissue, whole slide: done, 1 feature.")


def test_a_failure_is_said_in_words_and_can_be_tried_again(panel_tab, slide, worker):
    tab = open_panel(panel_tab.view(slide, VIEW))
    choose(tab, "nuclei-fast")
    press(tab, "Predict the slide")
    tab.until(lambda: jobs_of(tab, slide), "the job")
    worker.queue.fail(worker.take(), "The model ran out of memory; a smaller batch helps.")
    tab.until(lambda: "failed. The model ran out of memory; a smaller batch helps." in note(tab), "the word")
    assert row(tab, "failed: The model ran out of memory; a smaller batch helps.").is_visible()
    again = row(tab, "failed:").get_by_role("button")
    assert again.inner_text() == "Try again"
    again.click()
    row(tab, "next in the queue").wait_for()
    assert [job["state"] for job in jobs_of(tab, slide)] == ["queued", "failed"]


def test_a_waiting_and_a_running_job_are_cancelled(panel_tab, slide, worker):
    tab = open_panel(panel_tab.view(slide, VIEW))
    for model in ("nuclei-fast", "tissue"):
        choose(tab, model)
        press(tab, "Predict the slide")
        row(tab, f"{model} · whole slide").wait_for()
    running = worker.take()
    row(tab, "starting").wait_for()
    assert row(tab, "tissue · whole slide").get_by_text("next in the queue").is_visible()
    tab.page.get_by_role("button", name="Cancel: tissue · whole slide").click()
    row(tab, "tissue").get_by_text("cancelled").wait_for()
    tab.page.get_by_role("button", name="Cancel: nuclei-fast · whole slide").click()
    row(tab, "nuclei-fast").get_by_text("stopping …").wait_for()
    worker.queue.stopped(running)
    heard(tab, "nuclei-fast, whole slide: cancelled.")
    assert [job["state"] for job in jobs_of(tab, slide)] == ["cancelled", "cancelled"]


def test_a_preview_comes_first_and_goes_with_the_slides_layer(panel_tab, slide, worker):
    tab = open_panel(panel_tab.view(slide, "#x=300&y=350&z=2&s=stored"))
    choose(tab, "nuclei-fast")
    press(tab, "Predict the slide")
    tab.press("Escape", "p")
    tab.until(lambda: len(jobs_of(tab, slide)) == 2, "both jobs")
    preview = jobs_of(tab, slide)[0]
    assert preview["preview"] and preview["lane"] == "quick"
    stage = tab.stage
    x0, y0, x1, y1 = preview["region"]
    assert (x0, y0) == (0, 350 - stage["height"] / 4) and (x1, y1) == (620, 350 + stage["height"] / 4)
    worker.finish(worker.take("quick"), [square(300, 350, 80, TUMOUR, 0.9)])
    tab.until(lambda: re.match("nuclei-fast, preview of 155 × 94 µm: done, 1 feature.", note(tab)), "the preview")
    tab.press("l")
    assert tab.page.locator(".run", has_text="preview of 155 × 94 µm").is_visible()
    worker.finish(worker.take(), [square(300, 350, 80, LYMPHOCYTE, 0.9)])
    heard(tab, "nuclei-fast, whole slide: done, 1 feature.")
    assert tab.page.locator(".run", has_text="preview of").count() == 0, "the preview is gone"
    assert tab.page.get_by_role("checkbox", name=LYMPHOCYTE, exact=True).count() == 1


def test_a_view_that_is_too_large_for_a_preview_says_so(chromium, panel_site):
    from tests.versions import add_slide
    from wsi_ml.geometry import Size

    slide = add_slide(panel_site.library, "large", Size(9001, 9002))[0]
    tab = Tab(chromium, panel_site, size=(700, 700))
    open_panel(tab.view(slide))
    assert tab.page.get_by_role("button", name="Preview here").is_disabled()
    assert tab.page.get_by_text("For a preview zoom in to 2.05 × 2.05 mm or less.").is_visible()
    tab.press("p", settle=False)
    heard(tab, "Zoom in for a preview: the view is too large.")
    tab.press("6")
    assert tab.page.get_by_role("button", name="Preview here").is_enabled()
    tab.page.context.close()
    tab.check()


def test_models_that_do_not_fit_are_listed_last_and_with_the_reason(panel_tab, panel_site):
    card = {"kind": "dense", "classes": [{"name": "Tissue", "color": None}], "background": [], "mpp": 0.5}
    models = [{**card, "name": "fine", "mpp_range": [0.4, 0.62]}, {**card, "name": "wide", "mpp_range": [0.1, 4]}]
    panel_tab.page.route("**/api/models", lambda route: route.fulfill(json={"models": models}))
    tab = open_panel(panel_tab.view(panel_site.coarse))
    listed = tab.page.locator(".model").all_inner_texts()
    assert [each.split("\n")[0] for each in listed] == ["wide", "fine"]
    assert "Needs 0.4–0.62 µm/px; this slide has 1 µm/px." in listed[1] and "Needs" not in listed[0]
    radios = tab.page.locator(".model input")
    assert [(each.is_checked(), each.is_disabled()) for each in radios.all()] == [(True, False), (False, True)]


def test_without_a_model_that_fits_nothing_can_be_started(panel_tab, panel_site):
    model = {"name": "fine", "kind": "dense", "classes": [], "mpp": 0.5, "mpp_range": [0.4, 0.62]}
    panel_tab.page.route("**/api/models", lambda route: route.fulfill(json={"models": [model]}))
    tab = open_panel(panel_tab.view(panel_site.coarse))
    assert tab.page.get_by_text("No model fits this slide.").is_visible()
    for name in ("Predict the slide", "Predict this view", "Preview here"):
        assert tab.page.get_by_role("button", name=name).is_disabled()
    tab.press("p", settle=False)
    heard(tab, "No model fits this slide.")


def test_a_refused_order_says_why(panel_tab, slide):
    tab = open_panel(panel_tab.view(slide, VIEW))
    problem = {"title": "x", "detail": "The queue is full; come back later."}
    tab.page.route("**/api/jobs", lambda route: route.fulfill(status=503, json=problem))
    press(tab, "Predict the slide")
    tab.page.get_by_role("alert").get_by_text("Not started: The queue is full; come back later.").wait_for()
    tab.provoked("503")


def test_a_server_that_is_gone_is_said_and_asked_again(panel_tab, slide):
    tab = open_panel(panel_tab.view(slide, VIEW))
    tab.page.route("**/api/jobs?*", lambda route: route.abort("connectionrefused"))
    for _ in range(2):
        tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        tab.frames()
    words = tab.page.get_by_text("The state of the jobs is not known: The server does not answer. Asking again.")
    words.wait_for()
    tab.page.unroute("**/api/jobs?*")
    words.wait_for(state="hidden")
    tab.provoked("ERR_CONNECTION_REFUSED")


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_asks_nothing_and_an_unchanged_list_is_not_sent_again(panel_tab, slide, worker):
    tab = open_panel(panel_tab.view(slide, VIEW))
    answers = []
    tab.page.on("response", lambda response: answers.append(response.status) if "/api/jobs?" in response.url else None)
    press(tab, "Predict the slide")
    tab.until(lambda: 304 in answers, "an answer without a body")
    tab.page.evaluate(HIDE, True)
    tab.page.wait_for_timeout(300)
    answers.clear()
    worker.finish(worker.take())
    tab.page.wait_for_timeout(2500)
    assert answers == []
    tab.page.evaluate(HIDE, False)
    tab.until(lambda: "done, 11 features." in note(tab), "what happened meanwhile")


def test_the_focus_stays_while_the_list_runs(panel_tab, slide, worker):
    tab = open_panel(panel_tab.view(slide, VIEW))
    choose(tab, "nuclei-fast")
    press(tab, "Predict the slide")
    tab.page.get_by_role("button", name="Cancel: nuclei-fast · whole slide").focus()
    job = worker.take()
    for done in (10, 20):
        worker.progress(job, done, 100)
        row(tab, f"{done} % of 100 windows").wait_for()
    order = {"kind": "predict", "slide": slide, "model": "tissue"}
    tab.page.request.post(f"{tab.site.url}/api/jobs", data=order)
    row(tab, "tissue · whole slide").wait_for()
    assert tab.page.evaluate("document.activeElement.ariaLabel") == "Cancel: nuclei-fast · whole slide"
    assert tab.page.locator(".job strong").all_inner_texts() == ["tissue · whole slide", "nuclei-fast · whole slide"]


def test_a_finished_region_can_be_gone_to(panel_tab, slide, worker):
    tab = open_panel(panel_tab.view(slide, "#x=1800&y=1200&z=4&s=stored"))
    choose(tab, "nuclei-fast")
    press(tab, "Predict this view")
    tab.until(lambda: jobs_of(tab, slide), "the job")
    worker.finish(worker.take("quick"), PREDICTION[:1])
    tab.go("#x=300&y=300&z=0.5&s=stored")
    tab.page.get_by_role("button", name="Show: nuclei-fast").click()
    tab.settle()
    view = tab.state
    region = jobs_of(tab, slide)[0]["region"]
    # In the middle of what the panel leaves free.
    middle = float(view["x"]) - (1280 - (1280 - 352 - 12)) / 2 / float(view["z"])
    assert middle == pytest.approx((region[0] + region[2]) / 2, abs=3)
