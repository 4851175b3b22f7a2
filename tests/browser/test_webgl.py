"""The drawer that a machine with a graphics card uses shows the same pixels as the one used everywhere else here."""

from __future__ import annotations

import numpy as np

from tests.browser.tab import CHROMIUM_FLAGS, Tab
from wsi_ml.geometry import Region

PRETEND_GRAPHICS_CARD = """
  const getContext = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    const seen = document.documentElement.dataset;
    if (kind.startsWith("webgl")) seen.webgl = Number(seen.webgl ?? 0) + 1;
    return getContext.call(this, kind, { ...options, failIfMajorPerformanceCaveat: false });
  };
  const getParameter = WebGL2RenderingContext.prototype.getParameter;
  WebGL2RenderingContext.prototype.getParameter = function (name) {
    return name === 0x9246 ? "A graphics card" : getParameter.call(this, name);
  };
"""
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


def test_webgl_shows_the_files_pixels(chromium, chromium_path, site):
    flags = [flag for flag in CHROMIUM_FLAGS if flag != "--disable-gpu"] + FLAGS
    browser = chromium.browser_type.launch(executable_path=chromium_path, args=flags)
    tab = Tab(browser, site, size=(800, 348))
    tab.page.add_init_script(PRETEND_GRAPHICS_CARD)
    tab.view(site.liver, "#x=2200&y=1200&z=0.5&l=none&s=sr-fake")
    contexts = int(tab.page.evaluate("document.documentElement.dataset.webgl"))
    stored = site.pyramid(site.liver).region(Region(1060, 560, 80, 80))
    assert np.abs(tab.pixels(40, 40).astype(int) - stored).max() <= 3
    tab.press("+", settle=False)
    tab.until(lambda: tab.badge == "Synthesised · sr-fake abababababab", "synthesised tiles")
    tab.page.evaluate("location.hash = location.hash.replace('sr-fake', 'stored')")
    tab.until(lambda: tab.badge is None, "stored tiles only")
    tab.overlook("GPU stall")
    browser.close()
    tab.check()
    assert contexts > 1, "one was a look at the card, the others draw"
