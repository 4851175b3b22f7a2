"""The overlay on real pixels: thresholds, classes, styles, counts, reading, the map far out and comparison."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser.drawn import ACROSS, FIELD, MAIN, PITCH, SIDE, Drawn, make_field, publish, serve_script, squares
from tests.browser.tab import Tab
from wsi_ml.layers.batch import FeatureBatch

MIDDLE = FIELD.width / 2
ID = "[...overlay.layers.keys()][0]"
AT = """const box = document.getElementById('stage').getBoundingClientRect();
  const at = (x, y) => overlay.at(box.width / 2 + x, box.height / 2 + y);"""


@pytest.fixture(scope="module")
def field(running_site):
    return make_field(running_site, "field")


@pytest.fixture(scope="module")
def lasting(chromium, running_site, field):
    tab = Tab(chromium, running_site)
    drawn = Drawn(tab, field[0])
    yield drawn
    tab.page.context.close()
    tab.check()


@pytest.fixture
def drawn(lasting):
    """The field of squares close by, in its first state; made once."""
    lasting.call("""overlay.setComparison(null);
      overlay.mark(null);
      overlay.setOpacity(0.6);
      for (const [id, layer] of overlay.layers) {
        layer.hidden.clear();
        layer.colors.clear();
        Object.assign(layer, { style: "both", threshold: 0 });
        overlay.showLayer(id, true);
      }""")
    return lasting.look(MIDDLE, MIDDLE, 0.5)


def squares_drawn(paint: np.ndarray, z: float = 0.5, channel: int = 0) -> np.ndarray:
    """Mean change of each whole square in a picture around MIDDLE, as rows of squares."""
    half = paint.shape[0] / 2
    count = int(half / (PITCH * z)) * 2
    values = np.zeros((count, count))
    for row in range(count):
        for column in range(count):
            x, y = ((np.array([column, row]) - count / 2 + 0.5) * PITCH * z + half).astype(int)
            reach = int(SIDE * z / 2) - 3
            values[row, column] = paint[y - reach : y + reach, x - reach : x + reach, channel].mean()
    return values


def is_drawn(paint: np.ndarray) -> np.ndarray:
    return np.max([np.abs(squares_drawn(paint, channel=channel)) for channel in range(3)], axis=0) > 3


def test_squares_lie_where_they_are_in_both_classes(drawn):
    paint = drawn.paint(192, 192)
    assert is_drawn(paint).all() and is_drawn(paint).shape == (4, 4)
    blue_less_red = squares_drawn(paint, channel=2) - squares_drawn(paint, channel=0)
    assert (blue_less_red[:, 1::2] > 15).all() and (blue_less_red[:, ::2] < -15).all()
    gaps = np.abs(paint[:, 188:196]).max(-1)
    assert gaps[:3].max() <= 3, "between the squares nothing is drawn"


@pytest.mark.parametrize("threshold", [0.5, 0.52, 1])
def test_a_threshold_leaves_out_what_scores_less(drawn, threshold):
    drawn.call(f"overlay.setThreshold({ID}, a[0])", threshold)
    first = (ACROSS // 2 - 2) * ACROSS + ACROSS // 2 - 2
    numbers = first + np.arange(4)[:, None] * ACROSS + np.arange(4)
    steps = np.floor((numbers + 1) / ACROSS**2 * 10_000 + 0.5)
    np.testing.assert_array_equal(is_drawn(drawn.paint(192, 192)), steps >= threshold * 10_000)


def test_classes_colours_and_layers_are_switched(drawn):
    drawn.call(f'overlay.showClass({ID}, "A", false)')
    assert is_drawn(drawn.paint(192, 192)).tolist() == [[False, True, False, True]] * 4
    drawn.call(f'overlay.setClassColor({ID}, "B", "#00ff00")')
    green = drawn.paint(192, 192)
    assert (squares_drawn(green, channel=1)[:, 1::2] > squares_drawn(green, channel=2)[:, 1::2] + 10).all()
    assert drawn.call(f'return [overlay.colorOf({ID}, "A"), overlay.colorOf({ID}, "B")]') == ["#d01010", "#00ff00"]
    drawn.call(f'overlay.setClassColor({ID}, "B", null); overlay.showLayer({ID}, false)')
    assert np.abs(drawn.paint(192, 192)).max() == 0


def test_styles_fill_outline_or_both(drawn):
    strength = {}
    for style in ("fill", "outline", "both"):
        drawn.call(f"overlay.setStyle({ID}, a[0])", style)
        paint = np.abs(drawn.paint(96, 96)).max(-1)
        inside, line = paint[32:64, 32:64].mean(), paint[32:64, 23:25].mean()
        strength[style] = (inside, line)
    assert strength["outline"][0] == 0 and strength["outline"][1] > 20
    assert strength["fill"][0] > 1.5 * strength["both"][0] > 10
    assert strength["both"][1] > 1.3 * strength["both"][0]


def test_opacity_of_one_layer_and_of_all(drawn):
    full = np.abs(drawn.call("overlay.setOpacity(1)") or drawn.paint(96, 96)).mean()
    drawn.call(f"overlay.setLayerOpacity({ID}, 0.5)")
    half = np.abs(drawn.paint(96, 96)).mean()
    drawn.call("overlay.setOpacity(0)")
    assert np.abs(drawn.paint(96, 96)).max() == 0
    assert 0.4 < half / full < 0.75


def test_reading_gives_the_feature_and_only_what_is_shown(drawn):
    script = AT + "return at(a[0], a[1])"
    found = drawn.call(script, 48, 48)
    number = (ACROSS // 2) * ACROSS + ACROSS // 2
    corner = (ACROSS // 2) * PITCH + (PITCH - SIDE) / 2
    assert found["feature"] == {
        "number": number, "className": "A", "score": round((number + 1) / ACROSS**2 * 10_000) / 10_000, "area": SIDE**2,
        "name": "", "box": [corner, corner, corner + SIDE, corner + SIDE],
    }  # fmt: skip
    assert found["layer"]["name"] == "Squares" and "state" not in found
    assert drawn.call(script, 0, 0) is None
    drawn.call(f"overlay.setThreshold({ID}, 0.6)")
    assert drawn.call(script, 48, 48) is None
    drawn.call(f'overlay.setThreshold({ID}, 0); overlay.showClass({ID}, "A", false)')
    assert drawn.call(script, 48, 48) is None
    drawn.look(MIDDLE, MIDDLE, 0.5, r=90, m=1)
    assert drawn.call(script, 48, 48) is None and drawn.call(script, 48, -48)["feature"]["className"] == "B"


def test_a_marked_feature_stands_out_and_one_that_is_not_there_shows_its_box(drawn):
    before = drawn.paint(96, 96)
    drawn.call(AT + "overlay.mark(at(48, 48))")
    marked = drawn.paint(96, 96) - before
    assert np.abs(marked[110:180, 118:122]).max() > 60 and np.abs(marked[135:153, 135:153]).max() == 0
    drawn.call("""const { layer } = [...overlay.layers.values()][0];
      overlay.mark({ feature: { number: 999999, box: [3072, 3072, 3172, 3172] }, layer })""")
    box = drawn.paint(96, 96) - before
    assert np.abs(box[100:140, 94:98]).max() > 60 and np.abs(box[60:90, 60:90]).max() == 0


def test_counts_of_the_view(drawn):
    counts = f"const c = overlay.visibleCounts({ID}); return [c.complete, Object.fromEntries(c.classes)]"
    width, height = drawn.tab.stage["width"], drawn.tab.stage["height"]

    def expected(z: float, least: float = 0) -> dict:
        middles = (np.arange(ACROSS) + 0.5) * PITCH - MIDDLE
        x, y = np.abs(middles) * z <= width / 2, np.abs(middles) * z <= height / 2
        scores = np.floor((np.arange(ACROSS**2) + 1) / ACROSS**2 * 10_000 + 0.5).reshape(ACROSS, ACROSS)
        seen = y[:, None] & x[None] & (scores >= 10_000 * least)
        found = [int(seen[:, at::2].sum()) for at in (0, 1)]
        return {name: {"count": count, "area": count * SIDE**2} for name, count in zip("AB", found, strict=True)}

    assert drawn.call(counts) == [True, expected(0.5)]
    drawn.call(f'overlay.setThreshold({ID}, 0.5); overlay.showClass({ID}, "A", false)')
    assert drawn.call(counts) == [True, {"B": expected(0.5, 0.5)["B"]}]


# -- far out ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far(chromium, running_site, field):
    """The same field where more than 300 squares are drawn as a map."""
    tab = Tab(chromium, running_site)
    drawn = Drawn(tab, field[0], exactCount=300, fewCount=100)
    yield drawn
    tab.page.context.close()
    tab.check()


STATE = f"const s = overlay.layers.get({ID}).state; return [s.mode, s.loading, s.error]"


def test_far_out_a_map_is_drawn_and_close_by_the_features(far):
    far.look(MIDDLE, MIDDLE, 0.1)
    assert far.call(STATE) == ["summary", False, ""]
    smooth = far.paint(150, 150)
    far.look(MIDDLE, MIDDLE, 0.5)
    assert far.call(STATE) == ["exact", False, ""]
    assert is_drawn(far.paint(192, 192)).all()
    changes = np.abs(np.diff(smooth, axis=0)).max()
    assert np.abs(smooth).mean() > 4 and changes < 25, "a calm picture without edges"


def test_the_change_over_shows_no_jump_of_colour(far):
    """Mean change of the picture by exact features and by the map, of the same view."""
    far.look(MIDDLE, MIDDLE, 0.06)
    means = {}
    for mode, limit in (("summary", 1), ("exact", 10**6)):
        far.call(
            f"overlay.layers.get({ID}).options.exactCount = a[0]; overlay.fetch(); overlay.changed()",
            limit,
        )
        far.tab.until(lambda mode=mode: far.call(STATE) == [mode, False, ""], mode)
        means[mode] = far.paint(150, 150).mean((0, 1))
    far.call(f"overlay.layers.get({ID}).options.exactCount = 300; overlay.fetch()")
    assert np.abs(means["exact"]).max() > 4
    assert np.abs(means["exact"] - means["summary"]).max() < 0.15 * np.abs(means["exact"]).max() + 0.5


def test_a_threshold_works_on_the_map_and_its_counts_are_those_of_the_features(far):
    far.look(MIDDLE, MIDDLE, 0.05)
    counts = f"const c = overlay.visibleCounts({ID}); return [c.complete, Object.fromEntries(c.classes)]"
    every = {name: {"count": ACROSS**2 // 2, "area": ACROSS**2 // 2 * SIDE**2} for name in "AB"}
    assert far.call(counts) == [True, every]
    before = np.abs(far.paint(150, 120)).max(-1)
    far.call(f"overlay.setThreshold({ID}, 0.5)")
    after = np.abs(far.paint(150, 120)).max(-1)
    half = ACROSS**2 // 2
    assert far.call(counts)[1]["A"]["count"] == pytest.approx(half / 2, abs=1)
    assert before[:100].mean() > 4 and after[:100].max() <= 1, "the upper half scores less"
    np.testing.assert_array_equal(after[-100:], before[-100:])
    far.call(f"overlay.setThreshold({ID}, 0)")


def test_what_to_draw_does_not_flicker_at_the_limit(far):
    """At the limit of 300 it changes; back from 301 to 390 it stays."""
    wish = f"""const l = overlay.layers.get({ID}); const b = a[0] / 2;
      l.mode = a[1]; return l.wish([{MIDDLE} - b, {MIDDLE} - b, {MIDDLE} + b, {MIDDLE} + b])"""
    sides = np.sqrt(np.array([100, 2000])) * PITCH
    assert [far.call(wish, sides[0], mode) for mode in ("exact", "summary", None)] == ["exact"] * 3
    assert [far.call(wish, sides[1], mode) for mode in ("exact", "summary", None)] == ["summary"] * 3
    between = far.call(f"""const l = overlay.layers.get({ID});
      l.options.exactCount = Math.ceil(l.data.weigh([0, 0, 6144, 6144]).count / 1.2);
      const wishes = ["exact", "summary", null].map((mode) => {{ l.mode = mode; return l.wish([0, 0, 6144, 6144]); }});
      l.options.exactCount = 300; return wishes""")
    assert between == ["exact", "summary", "summary"]


# -- comparison ------------------------------------------------------------------------------------------------------

COMPARE = """const ids = [...overlay.layers.keys()];
  overlay.setComparison({ truth: ids[0], prediction: ids[1], iou: 0.5, sameClass: a[1] ?? false, pairs: {
    truth: Uint32Array.from(a[0], (each) => each[0]), prediction: Uint32Array.from(a[0], (each) => each[1]),
    iou: Float32Array.from(a[0], (each) => each[2]) } });"""


@pytest.fixture(scope="module")
def compared(chromium, running_site):
    """The squares as truth and every second column of them as prediction, scores halved."""
    slide, _ = make_field(running_site, "compared field")
    every = squares()
    kept = np.arange(len(every)) % 2 == 0
    found = FeatureBatch(every.geometries[kept], every.class_numbers[kept], every.scores[kept] / 2)
    publish(running_site, slide, "Found", found)
    tab = Tab(chromium, running_site)
    yield Drawn(tab, slide)
    tab.page.context.close()
    tab.check()


def test_comparison_colours_what_agrees_what_is_missed_and_what_is_false(compared):
    drawn = compared.look(MIDDLE, MIDDLE, 0.5)
    pairs = [[2 * number, number, 1.0] for number in range(ACROSS**2 // 2)]
    drawn.call(COMPARE, pairs)
    agreed = drawn.paint(192, 192)
    blueness = squares_drawn(agreed, channel=2) - squares_drawn(agreed, channel=0)
    assert (blueness[:, ::2] > 30).all(), "TP: filled blue"
    assert (np.abs(squares_drawn(agreed)[:, 1::2]) < 3).all(), "FN: an outline alone"
    state = AT + "return at(a[0], 48)?.state"
    assert [drawn.call(state, x) for x in (48, 144)] == ["tp", "fn"]
    edge = drawn.tab.pixels(192, 192)[124:164, 120].astype(int)
    is_yellow = edge[:, :2].min(-1) - edge[:, 2] > 60
    assert np.abs(np.diff(is_yellow.astype(int))).sum() >= 6, "dashed"
    assert edge[~is_yellow].mean() < 90, "with dark gaps"
    drawn.call(COMPARE, [each for each in pairs if each[0] % 4])
    edge = drawn.tab.pixels(192, 192)[230:250, 216].astype(int)
    assert np.abs(np.median(edge, axis=0) - [0xD5, 0x5E, 0x00]).max() < 40, "FP: a solid outline"
    assert np.abs(squares_drawn(drawn.paint(192, 192))[2, 2]) < 25, "hardly filled"
    states = "return [...overlay.layers.keys()].map((id) => Array.from(overlay.comparison.states(id).slice(264, 268)))"
    assert drawn.call(states) == [[3, 3, 1, 3], [2, 1, 2, 1]]
    drawn.call("overlay.setComparison(null)")


def test_comparison_follows_the_threshold(compared):
    drawn = compared.look(MIDDLE, MIDDLE, 0.5)
    pairs = [[2 * number, number, 1.0] for number in range(ACROSS**2 // 2)]
    drawn.call(COMPARE, pairs)
    states = """const [truth, found] = [...overlay.layers.keys()].map((id) => overlay.comparison.states(id));
      const tally = (states) => [0, 1, 2, 3].map((state) => states.reduce((sum, each) => sum + (each === state), 0));
      return [tally(truth), tally(found)]"""
    count = ACROSS**2
    assert drawn.call(states) == [[0, count // 2, 0, count // 2], [0, count // 2, 0, 0]]
    drawn.call("overlay.setThreshold([...overlay.layers.keys()][1], 0.25)")
    scores = np.floor((np.arange(count)[::2] + 1) / count / 2 * 10_000 + 0.5)
    kept = int((scores >= 2500).sum())
    assert abs(kept - count // 4) <= 1
    truth, found = drawn.call(states)
    assert found == [count // 2 - kept, kept, 0, 0] and truth == [0, kept, 0, count - kept]
    drawn.call('overlay.showClass([...overlay.layers.keys()][1], "A", false)')
    assert drawn.call(states)[0] == [0, 0, 0, count], "no prediction is left"
    drawn.call('overlay.setComparison(null); overlay.showClass([...overlay.layers.keys()][1], "A", true)')


# -- keeping up with the slide ---------------------------------------------------------------------------------------

SHEET = """const { Sheet, SHEET_OPTIONS } = await import('/static/js/sheet.js');
  const usual = { ...SHEET_OPTIONS };
  Object.assign(SHEET_OPTIONS, a[0]);
  const parent = document.createElement("div");
  document.body.append(parent);
  let view = { centerX: 500, centerY: 500, scale: 1, degrees: 0, mirrored: false, width: 600, height: 400 };
  let drawings = 0;
  const painter = { *paint() { drawings += 1; yield; yield; } };
  const sheet = new Sheet(parent, painter, (v) => v, () => view, () => true);
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  sheet.renew();
  while (!sheet.isSettled()) await frame();
  const look = (x) => { view = { ...view, centerX: x }; sheet.follow(); };
  const finish = () => { parent.remove(); Object.assign(SHEET_OPTIONS, usual); };
"""


def test_a_costly_drawing_is_carried_along_with_a_rim_and_renewed_by_slices(drawn):
    """Every drawing counts as costly here, and a frame has time for one of its three steps."""
    body = """
        sheet.stale = true;
        look(510);
        const places = [[sheet.front.style.transform, drawings, sheet.isSettled()]];
        look(520); look(530);
        places.push([sheet.front.style.transform, drawings, sheet.isSettled()]);
        while (!sheet.isSettled()) await frame();
        places.push([sheet.front.style.transform, drawings, sheet.isSettled()]);
        const rim = sheet.painted.rim;
        finish();
        return { places, rim };"""
    found = drawn.page.evaluate(f"async (a) => {{ {SHEET} {body} }}", [{"cheapMs": -1, "movingMs": 0, "margin": 0.12}])
    assert found["rim"] == [72, 48]
    assert found["places"] == [
        ["matrix(1, 0, 0, 1, -82, -48)", 2, False], ["matrix(1, 0, 0, 1, -92, -48)", 2, False],
        ["matrix(1, 0, 0, 1, -72, -48)", 3, True],
    ]  # fmt: skip


def test_a_cheap_drawing_is_made_anew_in_the_same_frame(drawn):
    body = """
        const done = [510, 520, 530].map((x) => {
          look(x);
          return [drawings, sheet.isSettled(), sheet.front.style.transform];
        });
        finish();
        return done;"""
    options = {"cheapMs": 1e9, "movingMs": 1e9, "standingMs": 1e9}
    found = drawn.page.evaluate(f"async (a) => {{ {SHEET} {body} }}", [options])
    assert found == [[2 + i, True, "matrix(1, 0, 0, 1, 0, 0)"] for i in range(3)]


def test_nothing_is_fetched_for_a_hidden_layer_or_twice(open_tab, field):
    tab = open_tab()
    asked = []
    tab.page.on("request", lambda request: asked.append(request.url) if "/blocks/" in request.url else None)
    drawn = Drawn(tab, field[0])
    first = len(asked)
    assert first == len(set(asked)) > 1
    drawn.call(f"overlay.showLayer({ID}, false)")
    drawn.look(1000, 1000, 0.5).look(MIDDLE, MIDDLE, 0.1)
    drawn.call(f"overlay.showLayer({ID}, true)")
    assert len(asked) == first


def test_blocks_that_fail_come_when_the_server_is_back(open_tab, field):
    tab = open_tab()
    tab.page.route("**/blocks/*", lambda route: route.fulfill(status=503, body="{}", content_type="application/json"))
    serve_script(tab, "layerdata", lambda text: text.replace("longestWaitMs: 10_000", "longestWaitMs: 100"))
    serve_script(tab, "viewer", lambda _: MAIN)
    tab.page.goto(f"{tab.site.url}/slides/{field[0]}")
    error = "[...(window.overlay?.layers.values() ?? [])].map((each) => each.state.error).join()"
    tab.until(lambda: tab.page.evaluate(error) == "The server answered 503.", "words on what is wrong")
    tab.page.unroute("**/blocks/*")
    tab.settle()
    assert tab.page.evaluate(f"overlay.layers.get({ID}).state") == {"mode": "exact", "loading": False, "error": ""}
    tab.provoked("503")


def test_what_left_the_view_is_aborted_and_the_middle_comes_first(open_tab, field):
    tab = open_tab()
    slide = field[0]
    drawn = Drawn(tab, slide)
    found = drawn.page.evaluate("""async () => {
      const { LayerData } = await import('/static/js/layerdata.js');
      const layer = [...overlay.layers.values()][0].layer;
      const data = new LayerData(stage.card.id, layer.id, { limit: 2 });
      await data.open();
      const asked = []; const aborted = [];
      const real = window.fetch;
      window.fetch = (url, options) => new Promise((resolve, reject) => {
        const number = Number(url.split('/').pop());
        asked.push(number);
        options.signal.addEventListener('abort', () => {
          aborted.push(number);
          reject(new DOMException('', 'AbortError'));
        });
      });
      data.need([0, 0, 6144, 6144]);
      const middle = [...asked];
      data.need([0, 0, 500, 500]);
      await new Promise((resolve) => setTimeout(resolve, 20));
      const then = asked.slice(middle.length);
      data.need(null);
      window.fetch = real;
      await new Promise((resolve) => setTimeout(resolve, 20));
      const boxes = (numbers) => numbers.map((number) => data.entries[number].box);
      return { middle: boxes(middle), aborted, first: middle, then: boxes(then), active: data.active };
    }""")
    assert len(found["middle"]) == 2, "no more than the limit at once"
    assert all(box[0] <= MIDDLE + 64 and box[2] >= MIDDLE - PITCH for box in found["middle"])
    assert set(found["first"]) <= set(found["aborted"]) and found["active"] == 0
    assert found["then"] and all(box[0] <= 500 and box[1] <= 500 for box in found["then"])


def test_blocks_out_of_view_make_room_when_there_are_too_many(drawn):
    kept = drawn.page.evaluate("""async () => {
      const { LayerData } = await import('/static/js/layerdata.js');
      const layer = [...overlay.layers.values()][0].layer;
      const data = new LayerData(stage.card.id, layer.id, { keepBytes: 1 });
      const dropped = [];
      data.addEventListener('drop', (event) => dropped.push(event.detail.count));
      await data.open();
      const until = async (test) => { while (!test()) await new Promise((resolve) => setTimeout(resolve, 10)); };
      data.need([0, 0, 500, 500]); await until(() => data.covers([0, 0, 500, 500]));
      const first = data.bytes;
      data.need([5600, 5600, 6000, 6000]); await until(() => data.covers([5600, 5600, 6000, 6000]));
      data.need([5600, 5600, 6000, 6000]);
      const there = [data.covers([0, 0, 500, 500]), data.covers([5600, 5600, 6000, 6000])];
      data.close();
      return { first, there, dropped: dropped.length, bytes: data.bytes };
    }""")
    assert kept["first"] > 1000 and kept["there"] == [False, True] and kept["dropped"] >= 2 and kept["bytes"] == 0
