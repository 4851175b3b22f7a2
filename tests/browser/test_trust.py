"""A trust map in the viewer: words and shares of its legend, switches that draw, the note that it is not truth."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.browser.reviewed import BASE_SIZE, Worker, add_bare_slide, heard
from tests.browser.tab import Tab
from wsi_ml.formats.feature import Feature
from wsi_ml.inference.predictor import find_card
from wsi_ml.layers.layer import NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.sr.trust import CYCLE_BANDS, ESTIMATED_BANDS, FIDELITY_BANDS, Band

WHOLE = "#x=1200&y=800&z=0.4&s=stored"


def boxes(bands: tuple[Band, ...], shares: list[float]) -> list[Feature]:
    """The slide cut into upright strips, one a band."""
    edges = np.concatenate([[0], np.cumsum(shares)]) * BASE_SIZE.width
    return [
        Feature(shapely.box(left, 0, right, BASE_SIZE.height), str(at), band.name, score=0.9)
        for at, (band, left, right) in enumerate(zip(bands, edges[:-1], edges[1:], strict=True))
    ]


def publish(site, slide: str, compared: str, bands: tuple[Band, ...], shares: list[float]) -> str:
    """Publish a trust map of strips; gives its id."""
    told = find_card("trust-sr-fast")[0].about["trust"] | {
        "compared": compared, "bands": [{"name": b.name, "limits": b.limits, "words": b.words} for b in bands],
    }  # fmt: skip
    provenance = {"model": "trust-sr-fast", "model_sha256": told["upscaler_sha256"], "kind": "dense", "trust": told}
    new = NewLayer(slide, site.library.slide(slide).current, "trust-sr-fast", "prediction", provenance)
    return LayerStore(site.library.root).publish(new, boxes(bands, shares), BASE_SIZE).id


@pytest.fixture
def slide(panel_site) -> str:
    return add_bare_slide(panel_site)


def legend(tab: Tab):
    return tab.page.get_by_role("list", name="What the colours of trust-sr-fast mean")


def test_the_legend_says_what_was_compared_and_what_each_colour_means(panel_tab, panel_site, slide):
    publish(panel_site, slide, "scan", FIDELITY_BANDS, [0.5, 0.25, 0.15, 0.1])
    tab = panel_tab.view(slide, WHOLE).press("l")
    assert tab.page.get_by_role("heading", name="Trust map · sr-fast").is_visible()
    assert tab.page.get_by_role("note").inner_text() == "Compared with the scan, tile by tile."
    rows = legend(tab).get_by_role("listitem")
    assert [row.split("\n")[:2] for row in rows.all_inner_texts()] == [
        ["Matches the scan", "50 %"], ["Small differences", "25 %"], ["Do not judge fine detail here", "15 %"],
        ["Scan kept here", "10 %"],
    ]  # fmt: skip
    assert "SSIM 0.90 to 0.95" in rows.nth(1).inner_text()
    section = tab.page.get_by_role("region", name="trust-sr-fast", exact=True)
    assert section.get_by_label("Score ≥").count() == 0
    tab.page.get_by_text("How it was measured").click()
    assert tab.page.get_by_text("structural similarity (SSIM").count() == 0
    assert tab.page.get_by_text("Measured: mean difference to be expected").is_visible()
    assert tab.page.get_by_text("1 grey level is").count() == 0, "no band is in grey levels"


def test_a_map_without_a_scan_says_that_it_is_not_truth(panel_tab, panel_site, slide):
    publish(panel_site, slide, "stored", CYCLE_BANDS[:2], [0.9995, 0.0005])
    tab = panel_tab.view(slide, WHOLE).press("l")
    assert tab.page.get_by_role("note").inner_text() == "No scan at hand: shows self-consistency only, not truth."
    shares = [row.split("\n")[1] for row in legend(tab).get_by_role("listitem").all_inner_texts()]
    assert shares == ["99.9 %", "< 0.1 %"], "nothing is rounded to all or to nothing"


def test_an_estimate_says_that_it_is_one_and_how_it_held(panel_tab, panel_site, slide):
    publish(panel_site, slide, "estimated", ESTIMATED_BANDS, [0.4, 0.4, 0.15, 0.05])
    tab = panel_tab.view(slide, WHOLE).press("l")
    note = "No scan at hand: estimated from how much fine detail lies there, not compared with a scan."
    assert tab.page.get_by_role("note").inner_text() == note
    assert tab.page.get_by_text("1 grey level is 1/255 of the way from black to white.", exact=True).is_visible()
    rows = legend(tab).get_by_role("listitem").all_inner_texts()
    assert [row.split("\n")[:2] for row in rows] == [
        ["Little difference expected", "40 %"], ["Some difference expected", "40 %"],
        ["More difference expected", "15 %"], ["Contradicts the stored pixels", "5 %"],
    ]  # fmt: skip
    assert "estimated 2.5 to 3.5 grey levels" in rows[1]
    tab.page.get_by_text("How it was measured").click()
    assert tab.page.get_by_text("On 5 slides that it was not fitted on the estimate was off by").is_visible()


def test_how_an_estimate_held_in_words(panel_tab, panel_site, slide):
    tab = panel_tab.view(slide, WHOLE)
    slides = [{"off": 0.12, "correlation": 0.91}, {"off": 0.434, "correlation": 0.88}]
    texts = tab.module(
        "trust",
        "return a.map((told) => m.trustProof(told))",
        {"compared": "both-estimated", "held_out": slides},
        {"compared": "estimated", "held_out": slides[:1]},
        {"compared": "estimated"},
        {"compared": "stored", "held_out": slides},
    )
    ending = "(1 would be perfect, 0 useless)."
    assert texts == [
        "On 2 slides that it was not fitted on the estimate was off by 0.12 to 0.43 grey levels in the mean, and put "
        f"places in order with rank correlation 0.88 to 0.91 {ending}",
        "On 1 slide that it was not fitted on the estimate was off by 0.12 grey levels in the mean, and put places in "
        f"order with rank correlation 0.91 {ending}",
        "", "",
    ]  # fmt: skip


def test_a_band_switched_off_is_gone_from_the_pixels(panel_tab, panel_site, slide):
    publish(panel_site, slide, "scan", FIDELITY_BANDS[:2], [0.5, 0.5])
    tab = panel_tab.view(slide, WHOLE).press("l")
    drawn = tab.pixels(400, 300)
    legend(tab).get_by_role("checkbox", name="Small differences").uncheck()
    without = tab.settle().pixels(400, 300)
    bare = tab.press("h").pixels(400, 300)
    change = np.abs(drawn.astype(int) - without).max(axis=2) > 0
    tinted = np.abs(drawn.astype(int) - bare).max(axis=2) > 0
    assert 0.35 < change.mean() < 0.65 and tinted.mean() > 0.9
    assert np.abs(drawn.astype(int) - bare).mean() < 60, "tissue shows through"


def test_a_trust_map_is_ordered_like_any_prediction(panel_tab, panel_site, slide):
    worker = Worker(panel_site)
    for job in worker.queue.jobs(state="queued"):
        worker.queue.cancel(job.id)
    tab = panel_tab.view(slide, WHOLE).press("j", settle=False)
    choice = tab.page.get_by_role("radio", name="trust-sr-fast")
    choice.wait_for()
    assert tab.page.get_by_text("where sr-fast can be believed: against the scan").is_visible()
    choice.check()
    tab.page.get_by_role("button", name="Predict the slide", exact=True).click()
    tab.until(lambda: worker.queue.jobs(state="queued"), "the job")
    job = worker.take()
    assert (job.kind, job.model) == ("predict", "trust-sr-fast")
    layer = publish(panel_site, slide, "stored", CYCLE_BANDS[:1], [1.0])
    worker.queue.finish(job, layer)
    heard(tab, "trust-sr-fast, whole slide: done, 1 feature.")
    tab.press("l")
    assert legend(tab).get_by_role("listitem").count() == 1


def test_shares_in_words(panel_tab, panel_site, slide):
    tab = panel_tab.view(slide, WHOLE)
    body = "return a.map(m.shareText)"
    texts = tab.module("trust", body, 1, 0.9999, 0.995, 0.5, 0.0049, 0.0004)
    assert texts == ["100 %", "99.9 %", "99.5 %", "50 %", "0.5 %", "< 0.1 %"]
