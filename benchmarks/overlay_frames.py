"""Frames of the viewer with 10⁴ to 10⁶ nuclei above the slide, beside one canvas path, and one SVG path, per nucleus.

Headless Chromium without a graphics card on a real server: the canvas painter as it is used there, and WebGL in
software, a lower bound of what a card does. A frame is the time between two animation frames while the slide moves.

Run: python -m benchmarks.overlay_frames [--nuclei 10000 100000 1000000] [--frames 60]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import ocular_server, table, write_result
from benchmarks.drawn_nuclei import add_slide, publish, side_for
from wsi_ml.geometry import Size
from wsi_ml.slides.library import Library

WIDTH, HEIGHT = 1600, 1000
FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--enable-precise-memory-info",
]  # fmt: skip
SOFTWARE_GL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
PRETEND_CARD = """
  const getContext = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    return getContext.call(this, kind, { ...options, failIfMajorPerformanceCaveat: false });
  };
  const getParameter = WebGL2RenderingContext.prototype.getParameter;
  WebGL2RenderingContext.prototype.getParameter = function (name) {
    return name === 0x9246 ? "A graphics card" : getParameter.call(this, name);
  };
"""
MAIN = """
import { fetchSlide } from "/static/js/api.js";
import { Overlay } from "/static/js/overlay.js";
import { Stage } from "/static/js/stage.js";
const stage = new Stage(document.getElementById("stage"), await fetchSlide(document.body.dataset.slide));
document.getElementById("opening").hidden = true;
stage.addEventListener("open", () => {
  stage.fit(true);
  Object.assign(window, { stage, overlay: new Overlay(stage) });
});
"""
TOOLS = """
window.frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
window.settle = async () => {
  const still = () => document.querySelector(".marks")?.dataset.drawn === "true" && stage.isComplete();
  for (let calm = 0; calm < 6; calm = still() ? calm + 1 : 0) await frame();
};
window.timed = async (count, step) => {
  const times = [];
  let last = await frame();
  for (let at = 0; at < count; at++) {
    step(at);
    const now = await frame();
    times.push(now - last);
    last = now;
  }
  return times;
};
"""
PAN = """const from = stage.view(false);
  return timed(a.frames, (at) => stage.look({ centerX: from.centerX + (12 * (at + 1)) / from.scale }, true));"""
ZOOM = """const from = stage.view(false);
  return timed(a.frames, (at) => stage.look({ scale: from.scale * 1.012 ** (at + 1) }, true));"""
SLIDE_THRESHOLD = """const id = [...overlay.layers.keys()][0];
  const times = [];
  for (let at = 0; at < a.frames; at++) {
    const began = performance.now();
    overlay.setThreshold(id, (at % 90) / 100);
    await frame();
    while (!overlay.sheet.isSettled()) await frame();
    if (overlay.sheet.painter.gl) overlay.sheet.painter.gl.finish();
    times.push(performance.now() - began);
  }
  overlay.setThreshold(id, 0);
  return times;"""
PEER = """
  const { ringsOf } = await import("/static/js/blocks.js");
  const { viewMatrix, boxAround, visibleCorners } = await import("/static/js/geometry.js");
  const layer = [...overlay.layers.values()][0];
  const seen = boxAround(visibleCorners(stage.view()));
  const shapes = layer.data.blocks(seen).flatMap((block) => Array.from({ length: block.count }, (_, at) => (
    { rings: ringsOf(block, at), color: layer.colorOf(layer.classes[block.classes[at]]) })));
  for (const canvas of document.querySelectorAll(".overlay")) canvas.style.visibility = "hidden";
  const from = stage.view(false);
  const move = (at) => {
    stage.look({ centerX: from.centerX + (12 * (at + 1)) / from.scale }, true);
    return viewMatrix(stage.view());
  };
"""
PEER_CANVAS = (
    PEER
    + """
  const canvas = Object.assign(document.createElement("canvas"), { width: innerWidth, height: innerHeight });
  canvas.style.cssText = "position:fixed;inset:0";
  document.body.append(canvas);
  const context = canvas.getContext("2d");
  const times = await timed(a.frames, (at) => {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(...move(at));
    context.lineWidth = 1.5 / stage.view().scale;
    for (const { rings, color } of shapes) {
      context.beginPath();
      for (const ring of rings) {
        ring.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
        context.closePath();
      }
      context.fillStyle = context.strokeStyle = color;
      context.globalAlpha = 0.18;
      context.fill();
      context.globalAlpha = 0.9;
      context.stroke();
    }
    context.getImageData(0, 0, 1, 1);
  });
  canvas.remove();
  return { times, shapes: shapes.length };"""
)
PEER_SVG = (
    PEER
    + """
  const name = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(name, "svg");
  svg.setAttribute("style", "position:fixed;inset:0;width:100%;height:100%");
  const group = document.createElementNS(name, "g");
  for (const { rings, color } of shapes) {
    const path = document.createElementNS(name, "path");
    path.setAttribute("d", rings.map((ring) => `M${ring.map((each) => each.join(" ")).join("L")}Z`).join(""));
    for (const [key, value] of Object.entries({ fill: color, "fill-opacity": 0.18, stroke: color, "stroke-width": 1.5,
      "vector-effect": "non-scaling-stroke" })) path.setAttribute(key, value);
    group.append(path);
  }
  svg.append(group);
  document.body.append(svg);
  await frame();
  const times = await timed(a.frames, (at) => group.setAttribute("transform", `matrix(${move(at).join(" ")})`));
  svg.remove();
  return { times, shapes: shapes.length };"""
)
PEER_LIMIT = 40_000
"""Shapes in view beyond which the peers, at seconds a frame, are not asked."""


def main() -> None:
    """Measure and write benchmarks/results/overlay_frames.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nuclei", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--print", action="store_true", help="print the table instead of writing it")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        library = Library.create(Path(folder) / "library")
        slides = {count: _make(library, count) for count in options.nuclei}
        with ocular_server(library.root) as url:
            for painter in ("canvas", "WebGL in software"):
                frames = options.frames if painter == "canvas" else min(options.frames, 6)
                for count, slide in slides.items():
                    with _page(url, slide, painter) as page:
                        rows += _measure(page, painter, count, frames)
    body = table(rows) + "\n\n" + GOALS
    if options.print:
        parser.exit(message=body + "\n")
    write_result("overlay_frames", "Frames with nuclei above the slide", "python -m benchmarks.overlay_frames", body)


GOALS = (
    f"Stage of {WIDTH} × {HEIGHT} px. “pan” and “zoom”: milliseconds between frames while the slide moves in every "
    "frame; “threshold”: from a new threshold to its drawing. Goals: panning ≤ 50 ms in software, ≤ 16 ms on a card."
)


def _make(library: Library, count: int) -> str:
    side = side_for(count)
    slide, version = add_slide(library, f"nuclei-{count}", Size(side, side))
    publish(library.root, slide, version, Size(side, side), count, "Nuclei")
    return slide


@contextmanager
def _page(url: str, slide: str, painter: str) -> Iterator[Any]:
    """A page with the stage and its overlay alone, in a browser of its own."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    on_card = painter != "canvas"
    flags = FLAGS + (SOFTWARE_GL if on_card else ["--disable-gpu"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(600_000)
        if on_card:
            page.add_init_script(PRETEND_CARD)
            page.route("**/static/js/osd.js", _slide_by_canvas)
        page.route("**/static/js/viewer.js", lambda route: route.fulfill(body=MAIN, content_type="text/javascript"))
        page.goto(f"{url}/slides/{slide}")
        while not page.evaluate("window.overlay !== undefined"):
            page.wait_for_timeout(50)
        page.evaluate(TOOLS)
        yield page
        browser.close()


def _slide_by_canvas(route: Any) -> None:
    """The slide drawn as without a card, so that only the overlay's WebGL is measured."""
    script = route.fetch().text()
    changed = script.replace('hasFastWebgl() ? ["webgl", "canvas"] : "canvas"', '"canvas"')
    if changed == script:
        raise SystemExit("osd.js no longer chooses the drawer as this benchmark knows it.")
    route.fulfill(body=changed, content_type="text/javascript")


def _measure(page: Any, painter: str, count: int, frames: int) -> list[dict[str, object]]:
    """Rows of close, middle and far views; peers beside the canvas painter."""
    rows = []
    for view, scale in _views(page):
        page.evaluate(
            "async (z) => { const c = stage.card.base.width / 2; "
            "stage.look({ centerX: c, centerY: c, scale: z }, true); await settle(); }",
            scale,
        )
        row: dict[str, object] = {"nuclei": count, "painter": painter, "view": view} | _facts(page)
        for name, script in (("pan", PAN), ("zoom", ZOOM), ("threshold", SLIDE_THRESHOLD)):
            row |= _figures(name, _run(page, script, frames))
            page.evaluate("settle()")
        row["heap MB"] = round(page.evaluate("performance.memory.usedJSHeapSize") / 1e6)
        for name, script in (("canvas paths", PEER_CANVAS), ("SVG paths", PEER_SVG)):
            asked = painter == "canvas" and row["drawn as"] == "exact" and int(str(row["in view"])) <= PEER_LIMIT
            row[f"{name} p50 ms"] = _p50(_run(page, script, min(frames, 8))["times"]) if asked else "–"
        page.evaluate("for (const each of document.querySelectorAll('.overlay')) each.style.visibility = ''")
        rows.append(row)
    return rows


def _views(page: Any) -> list[tuple[str, float]]:
    """Close: ×20; middle: ×5; far: the whole slide; and, where it is larger, as far as 100,000 nuclei are in view."""
    fit = page.evaluate("stage.view(false).scale")
    crowd = page.evaluate(
        """() => { const layer = [...overlay.layers.values()][0]; const { width, height } = stage.view();
             return Math.sqrt((width * height) / (100000 * (layer.base.width ** 2 / layer.layer.count))); }"""
    )
    views = [("close", 0.5), ("middle", 0.125), ("10⁵ in view", crowd), ("far", fit)]
    return [(name, scale) for name, scale in views if name == "far" or scale > fit]


def _facts(page: Any) -> dict[str, object]:
    script = """() => { const [id, layer] = [...overlay.layers][0]; let count = 0;
      for (const each of overlay.visibleCounts(id).classes.values()) count += each.count;
      return [layer.state.mode, count]; }"""
    mode, count = page.evaluate(script)
    return {"drawn as": mode, "in view": int(count)}


def _run(page: Any, script: str, frames: int) -> Any:
    return page.evaluate(f"async (a) => {{ {script} }}", {"frames": frames})


def _figures(name: str, times: list[float]) -> dict[str, object]:
    return {f"{name} p50 ms": _p50(times), f"{name} p95 ms": round(statistics.quantiles(times, n=20)[-1], 1)}


def _p50(times: list[float]) -> float:
    return round(statistics.median(times), 1)


if __name__ == "__main__":
    main()
