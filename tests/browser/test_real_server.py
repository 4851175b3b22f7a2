"""The page on the real thing: `ocular serve` with its async front, its engine and the network that ships."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.browser.tab import Tab
from tests.versions import add_slide
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.library import Library
from wsi_ml.sr import open_upscaler


class Served:
    """What a Tab needs to know of a server."""

    def __init__(self, url: str):
        self.url = url


def wait_for(url: str, seconds: float = 30):
    """Wait until something answers; the address is printed before the first worker listens."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except urllib.error.URLError:
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)


@pytest.fixture
def served(tmp_path):
    """Address of `ocular serve` over a library of one slide, the slide's id and its library."""
    library = Library.create(tmp_path / "library")
    slide_id = add_slide(library, "liver", Size(3001, 2003))[0]
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "serve",
        "--library",
        str(library.root),
        "--port",
        "0",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = iter(process.stdout.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        wait_for(f"{url}/healthz")
        yield Served(url), slide_id, library
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.mark.slow
def test_synthesised_pixels_are_the_networks(chromium, served):
    site, slide_id, library = served
    tab = Tab(chromium, site)
    tab.view(slide_id, "#x=1500&y=1000&z=1&s=sr-fast")
    upscaler = open_upscaler("sr-fast")
    assert tab.badge == f"Synthesised · sr-fast {upscaler.card.sha256[:12]}"
    stored = library.pyramid(slide_id).region(Region(600, 350, 300, 300))
    expected = upscaler(stored)[150:450, 150:450]
    assert np.abs(tab.pixels().astype(int) - expected).mean() < 1.5, "but for the JPEG of the tile"
    tab.press("5")
    assert tab.badge is None
    shown = tab.pixels()
    assert np.abs(shown.astype(int) - library.pyramid(slide_id).region(Region(600, 350, 300, 300))).max() <= 3
    tab.page.context.close()
    tab.check()


@pytest.mark.slow
def test_a_prediction_by_click_is_computed_by_a_worker_and_shown(chromium, served):
    site, slide_id, _ = served
    tab = Tab(chromium, site).view(slide_id, "#x=1500&y=1000&z=0.5&s=stored")
    bare = tab.pixels()
    tab.press("j", settle=False)
    tab.page.get_by_role("radio", name=re.compile("^tissue areas")).check()
    tab.page.get_by_role("button", name="Predict the slide").click()
    done = re.compile(r"tissue, whole slide: done, [\d,]+ features?\.")
    tab.until(lambda: done.fullmatch(tab.page.locator("#note").inner_text()), "the layer", seconds=120)
    tab.until(lambda: np.abs(tab.settle().pixels().astype(int) - bare).mean() > 2, "its pixels")
    tab.press("l")
    tab.page.get_by_role("button", name="About").click()
    assert "tissue (dense)" in tab.page.locator("#layers dl").inner_text()
    tab.page.context.close()
    tab.check()
