"""A field of squares as a layer, and the stage with its overlay alone on the page, in the hand of a test."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely

from tests.browser.site import Site
from tests.browser.tab import Tab
from tests.versions import add_slide
from wsi_ml.geometry import Size
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import Layer, NewLayer
from wsi_ml.layers.store import LayerStore

FIELD = Size(6144, 6144)
PITCH = 192
SIDE = 96
ACROSS = FIELD.width // PITCH
COLORS = {"A": "#d01010", "B": "#1010d0"}

MAIN = """
import { fetchSlide } from "/static/js/api.js";
import { Overlay } from "/static/js/overlay.js";
import { Stage } from "/static/js/stage.js";
const card = await fetchSlide(document.body.dataset.slide);
document.getElementById("opening").hidden = true;
const stage = new Stage(document.getElementById("stage"), card);
const report = () => stage.viewer.element.setAttribute("aria-busy", String(!stage.isComplete()));
for (const name of ["change", "frame"]) stage.addEventListener(name, report);
stage.addEventListener("open", () => {
  stage.fit(true);
  Object.assign(window, { stage, overlay: new Overlay(stage) });
});
"""


def squares() -> FeatureBatch:
    """A square of SIDE in the middle of each cell of PITCH, row by row; classes A, B in turn; scores rising to 1."""
    y, x = np.mgrid[:ACROSS, :ACROSS].reshape(2, -1) * PITCH + (PITCH - SIDE) / 2
    count = ACROSS * ACROSS
    scores = np.floor((np.arange(count) + 1) / count * 10_000 + 0.5) / 10_000
    return FeatureBatch(shapely.box(x, y, x + SIDE, y + SIDE), (np.arange(count) % 2).astype(np.uint16), scores)


def publish(site: Site, slide: str, name: str, batch: FeatureBatch, kind: str = "prediction") -> Layer:
    """Publish a layer of classes A and B in COLORS on a slide of FIELD."""
    root = site.library.root
    staged = root / "work" / f"{name}.features"
    staged.parent.mkdir(exist_ok=True)
    with FeaturesWriter(staged, list(COLORS), FIELD) as writer:
        writer.add(batch)
        facts = writer.finish()
    version = site.library.slide(slide).current
    return LayerStore(root).publish_file(NewLayer(slide, version, name, kind), staged, facts, COLORS)


def make_field(site: Site, name: str) -> tuple[str, Layer]:
    """A slide of FIELD with the squares as its layer."""
    slide = add_slide(site.library, name, FIELD, seed=7)[0]
    return slide, publish(site, slide, "Squares", squares())


def serve_script(tab: Tab, name: str, change: Callable[[str], str]):
    """Serve one of our modules as `change` makes it of the real one."""

    def answer(route):
        route.fulfill(body=change(route.fetch().text()), content_type="text/javascript")

    tab.page.route(f"**/static/js/{name}.js", answer)


class Drawn:
    """The stage and overlay of a slide in a tab, without panels."""

    def __init__(self, tab: Tab, slide: str, **options: float):
        """`options` stand in for those of layerview.js."""
        self.tab = tab
        self.page = tab.page
        serve_script(tab, "viewer", lambda _: MAIN)
        serve_script(tab, "layerview", lambda text: _with_options(text, options))
        self.page.goto("about:blank")
        self.page.goto(f"{tab.site.url}/slides/{slide}")
        tab.until(lambda: self.page.evaluate("window.overlay !== undefined"), "the overlay")
        self.settle()

    def settle(self) -> Drawn:
        self.tab.settle()
        return self

    def call(self, script: str, *arguments):
        """Value of a function body with `overlay`, `stage` and the arguments `a`; afterwards all is drawn."""
        value = self.page.evaluate(f"(a) => {{ {script} }}", list(arguments))
        self.settle()
        return value

    def look(self, x: float, y: float, z: float, r: float = 0, m: int = 0) -> Drawn:
        self.call(
            "stage.look({ centerX: a[0], centerY: a[1], scale: a[2], degrees: a[3], mirrored: a[4] }, true)",
            x, y, z, r, bool(m),
        )  # fmt: skip
        return self

    def paint(self, half_width: int = 150, half_height: int = 150) -> np.ndarray:
        """What the overlay alone adds: pixels with it less pixels without it, RGB."""
        shown = self.tab.pixels(half_width, half_height).astype(int)
        hide = "document.querySelectorAll('.overlay').forEach((each) => { each.style.visibility = a[0]; })"
        self.page.evaluate(f"(a) => {{ {hide} }}", ["hidden"])
        bare = self.tab.pixels(half_width, half_height).astype(int)
        self.page.evaluate(f"(a) => {{ {hide} }}", [""])
        return shown - bare


def _with_options(source: str, options: dict[str, float]) -> str:
    for name, value in options.items():
        before, found, after = source.partition(f"\n  {name}: ")
        assert found, f"layerview.js has no option {name}"
        source = f"{before}{found}{value},{after[after.index(chr(10)) :]}"
    return source
