"""The pure modules behind the panels, called in the browser with exact numbers."""

from __future__ import annotations

import pytest

from tests.browser.tab import Tab


@pytest.fixture(scope="module")
def module(chromium, running_site):
    """Calls a function body with `m`, one of our modules, and `a`, the arguments."""
    tab = Tab(chromium, running_site)
    tab.page.goto(running_site.url)
    yield tab.module
    tab.page.context.close()
    tab.check()


SUMMARY = {
    "classes": ["Gland", "Nucleus", "Stroma"],
    "unit_area": 1 / 512,
    # column, row, class, bin, area, count; the second row of Nucleus lies in another cell
    "entries": [
        [0, 0, 1, 100, 512 * 10, 1], [0, 0, 1, 50, 512 * 20, 2], [0, 1, 1, 49, 512 * 30, 3],
        [0, 0, 0, 255, 512 * 400, 4],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("threshold", "count", "area"), [
    (0, 6, 60), (0.49, 6, 60), (0.5, 3, 30), (0.51, 1, 10), (1, 1, 10), (0.29, 6, 60), (0.57, 1, 10),
])  # fmt: skip
def test_sums_at_a_threshold_are_those_of_the_bins_from_it_on(module, threshold, count, area):
    body = "return Object.fromEntries(m.sumsAt(m.tallyOf(a[0]), a[1]))"
    sums = module("classsums", body, SUMMARY, threshold)
    assert sums["Nucleus"] == {"count": count, "area": area}
    assert sums["Gland"] == {"count": 4, "area": 400}, "what has no score is never dropped"
    assert sums["Stroma"] == {"count": 0, "area": 0}


def test_all_classes_together_and_the_histogram(module):
    body = """const tallies = m.tallyOf(a[0]);
      const bars = m.histogramOf(tallies);
      return [m.together(m.sumsAt(tallies, 0.5).values()), bars.length, bars[49], bars[50], bars[100],
        m.histogramOf(tallies, (name) => name === 'Gland').every((each) => each === 0)]"""
    assert module("classsums", body, SUMMARY) == [{"count": 7, "area": 430}, 101, 3, 2, 1, True]


def test_bars_are_as_high_as_the_root_of_their_count(module):
    body = "return [m.barsPath([0, 4, 1], 0, 3), m.barsPath([0, 4, 1], 2, 3), m.barsPath([0, 0], 0, 2)]"
    assert module("classsums", body) == ["M1 1v-1h1v1zM2 1v-0.5h1v0.5z", "M2 1v-0.5h1v0.5z", ""]


def layer(name: str, kind: str, created: str = "2026-11-01T10:00:00+00:00", /, **provenance) -> dict:
    classes = [{"name": "Gland" if kind == "annotation" else name}]
    same = {"id": name, "name": name, "kind": kind, "created": created, "version": "v"}
    return {**same, "classes": classes, "provenance": provenance}


LAYERS = [
    layer("old", "prediction", "2026-11-01T10:00:00+00:00", model="a", region=None, preview=False),
    layer("hand", "truth"), layer("other", "prediction", model="b"), layer("mine", "annotation"),
    layer("new", "prediction", "2026-11-02T10:00:00+00:00", model="a"), layer("foreign", "prediction"),
]  # fmt: skip


def test_layers_are_grouped_by_kind_and_model_the_newest_run_first(module):
    groups = module("layerfacts", "return m.groupLayers(a[0])", LAYERS)
    assert [(group["title"], [each["name"] for each in group["layers"]]) for group in groups] == [
        ("Ground truth", ["hand"]), ("Annotations", ["mine"]), ("Predictions · a", ["new", "old"]),
        ("Predictions · imported", ["foreign"]), ("Predictions · b", ["other"]),
    ]  # fmt: skip


def test_a_layer_made_by_a_model_says_so_also_as_a_reference(module):
    made = [layer("p", "prediction"), layer("t", "truth", model="a"), layer("t", "truth"), layer("n", "annotation")]
    assert module("layerfacts", "return a[0].map(m.isModelOutput)", made) == [True, True, False, False]


@pytest.mark.parametrize(("region", "preview", "mpp", "text"), [
    (None, False, 0.25, "whole slide"), ([0, 0, 4000, 2000], False, 0.25, "region of 1 × 0.5 mm"),
    ([100, 100, 8100, 4900], True, 0.25, "preview of 2 × 1.2 mm"),
    ([0, 0, 40, 30], False, None, "region of 40 × 30 px"),
])  # fmt: skip
def test_words_for_the_part_that_was_computed(module, region, preview, mpp, text):
    assert module("layerfacts", "return m.regionText(...a)", region, preview, mpp) == text


def test_provenance_tells_model_weights_parameters_and_time(module):
    made = layer("p", "prediction", model="tissue", kind="dense", model_sha256="ab" * 32, seconds=200.4, windows=1234,
                 parameters={"threshold": 0.5, "tissue": "otsu"}, region=None, preview=False, started="x")  # fmt: skip
    rows = dict(module("layerfacts", "return m.provenanceRows(a[0], 0.25)", made))
    assert rows["Model"] == "tissue (dense)" and rows["Weights, SHA-256"] == "ab" * 32
    assert rows["Parameters"] == "threshold 0.5 · tissue otsu" and rows["Took"] == "3 min 20 s"
    assert rows["Windows"] == "1,234" and rows["Computed on"] == "whole slide"
    report = {"format": "GeoJSON", "losses": [{"what": "z coordinates", "count": 3}], "repairs": []}
    rows = dict(module("layerfacts", "return m.provenanceRows(a[0], 0.25)", layer("t", "truth", report=report)))
    assert rows["Not kept"] == "z coordinates (×3)" and "Repaired" not in rows


def test_durations(module):
    texts = module("layerfacts", "return a.map(m.durationText)", 0.25, 42.4, 60, 200, 3599.6, 7500)
    assert texts == ["250 ms", "42 s", "1 min 0 s", "3 min 20 s", "1 h 0 min", "2 h 5 min"]


JOB = {"id": "j", "model": "tissue", "region": None, "preview": False, "state": "queued", "position": 1, "tries": 0,
       "progress": None, "reason": None, "layer": None, "started": None, "finished": None}  # fmt: skip
START = "2026-11-21T10:00:00+00:00"


@pytest.mark.parametrize(("change", "text"), [
    ({}, "next in the queue"), ({"position": 3}, "waiting, 2 before it"), ({"position": None}, "waiting"),
    ({"tries": 1, "reason": "It was killed."}, "next in the queue · try 2 of 3. It was killed."),
    ({"state": "running", "started": START, "tries": 1}, "starting"),
    ({"state": "running", "started": START, "tries": 1, "progress": {"done": 0, "total": 2000, "unit": "windows"}},
     "0 % of 2,000 windows"),
    ({"state": "running", "started": START, "tries": 2, "progress": {"done": 500, "total": 2000, "unit": "windows"}},
     "25 % of 2,000 windows · about 1 min 30 s left · try 2 of 3"),
    ({"state": "running", "started": START, "tries": 1, "progress": {"done": 1999, "total": 2000, "unit": "windows"}},
     "99 % of 2,000 windows · about 1 s left"),
    ({"state": "running", "started": START, "tries": 1, "cancelling": True}, "stopping …"),
    ({"state": "done", "started": START, "finished": "2026-11-21T10:00:42+00:00"}, "done in 42 s"),
    ({"state": "failed", "reason": "The model ran out of memory."}, "failed: The model ran out of memory."),
    ({"state": "cancelled"}, "cancelled"),
])  # fmt: skip
def test_states_of_jobs_in_words(module, change, text):
    body = "return m.stateText(a[0], Date.parse(a[1]) + 30000)"
    assert module("jobwords", body, {**JOB, **change}, START) == text


def test_what_is_said_when_a_job_has_ended(module):
    jobs = [{**JOB, "state": "done"}, {**JOB, "state": "failed", "reason": "No tissue."}, {**JOB, "state": "cancelled"}]
    texts = module("jobwords", "return a[0].map((job) => m.endText(job, 0.25, 1234))", jobs)
    assert texts == [
        "tissue, whole slide: done, 1,234 features.", "tissue, whole slide: failed. No tissue.",
        "tissue, whole slide: cancelled.",
    ]  # fmt: skip


@pytest.mark.parametrize(("mpp", "reason"), [
    (0.5, None), (0.4, None), (0.6, None), (0.61, "Needs 0.4–0.6 µm/px; this slide has 0.61 µm/px."),
    (1.0, "Needs 0.4–0.6 µm/px; this slide has 1 µm/px."),
    (None, "Needs 0.4–0.6 µm/px; the pixel size of this slide is unknown."),
])  # fmt: skip
def test_a_model_fits_a_slide_by_its_pixel_size(module, mpp, reason):
    assert module("jobwords", "return m.whyNot({ mpp_range: [0.4, 0.6] }, a[0])", mpp) == reason


def test_the_region_of_a_view_is_whole_pixels_on_the_slide(module):
    boxes = [[-5.5, 10.2, 100.4, 50], [900, 10, 1200, 5000], [1001, 0, 1100, 10], [-10, -10, 0, 0]]
    regions = module("jobwords", "return a[0].map((box) => m.regionOf(box, { width: 1000, height: 800 }))", boxes)
    assert regions == [[0, 10, 101, 50], [900, 10, 1000, 800], None, None]
    body = "return [m.isQuick([0, 0, 8192, 8192]), m.isQuick([0, 0, 8193, 8192])]"
    assert module("jobwords", body) == [True, False]


ROW = {"precision": [0.5, 0.75, None], "recall": [1, 0.5, 0]}


def test_curve_points_path_and_table(module):
    body = """const points = m.pointsOf([0, 0.5, 1], a[0]);
      const at = [0.6, 1].map((threshold) => m.pointAt(points, threshold));
      return [points, m.curvePath(points), ...at, m.pointNear(points, 0.9, 0.4)]"""
    points, path, at, last, near = module("curve", body, ROW)
    assert points == [[0, 0.5, 1], [0.5, 0.75, 0.5], [1, None, 0]]
    assert path == "M1 0.5L0.5 0.25"
    assert at == last == {"threshold": 0.5, "precision": 0.75, "recall": 0.5}
    assert near["threshold"] == 0
    assert module("curve", "return [m.curvePath([]), m.pointAt([], 0), m.pointsOf([0], undefined)]") == ["", None, []]


def test_the_table_of_a_curve_has_tenths_and_the_threshold(module):
    points = "Array.from({ length: 101 }, (_, at) => [at / 100, 1, 1])"
    body = f"return m.tablePoints({points}, a[0]).map((point) => point[0])"
    tenths = [at / 10 for at in range(11)]
    assert module("curve", body, 0.3) == tenths
    assert module("curve", body, 0.57) == sorted([*tenths, 0.57])


def test_measures_and_matches_in_words(module):
    body = """return [m.measureText(null), m.measureText(0), m.measureText(0.98765),
      m.countsText({ tp: 1200, fp: 45, fn: 6 }, false), m.countsText({ tp: 1, fp: 2, fn: 3 }, true),
      m.errorText({ kind: 'fp', class: 'Tumour', score: 0.914, area_um2: 45 }, false),
      m.errorText({ kind: 'fn', class: 'Tumour', score: null, area_um2: 1234.5 }, true)]"""
    assert module("comparewords", body) == [
        "–", "0.000", "0.988", "1,200 matched · 45 false positive · 6 missed",
        "1 both · 2 only in the prediction · 3 only in the reference",
        "false positive · Tumour · score 0.91 · 45 µm²", "only in the reference · Tumour · 1,235 µm²",
    ]  # fmt: skip


def test_the_first_choice_is_the_truth_and_the_newest_prediction_of_its_classes(module):
    body = "return a.map(m.firstChoice)"
    alike = [each | {"classes": [{"name": "Gland"}]} if each["name"] in ("hand", "old") else each for each in LAYERS]
    runs = [LAYERS[0], LAYERS[4]]
    assert module("comparewords", body, LAYERS, alike, runs, LAYERS[1:2], LAYERS[:1], []) == [
        {"truth": "hand", "prediction": "new"}, {"truth": "hand", "prediction": "old"},
        {"truth": "old", "prediction": "new"}, None, None, None,
    ]  # fmt: skip


def test_pairs_are_read_as_they_are_packed(module):
    import struct

    packed = b"OCP1" + struct.pack("<I2I2I2f", 2, 7, 8, 5, 4_000_000_000, 0.75, 0.5)
    body = """const bytes = Uint8Array.from(a[0]).buffer;
      const pairs = m.readPairs(bytes);
      return [[...pairs.truth], [...pairs.prediction], [...pairs.iou]]"""
    assert module("comparewords", body, list(packed)) == [[7, 8], [5, 4_000_000_000], [0.75, 0.5]]


@pytest.mark.parametrize(("side", "scale", "expected"), [
    (100, 1, 1), (100, 0.4, 0.4), (100, 0.1, 1), (2000, 1, 0.06), (20, 1, 1), (20, 0.5, 1),
])  # fmt: skip
def test_the_scale_to_read_a_feature_stays_where_it_will_do(module, side, scale, expected):
    view = {"scale": scale, "width": 1000, "height": 600}
    assert module("comparewords", "return m.readingScale([10, 10, 10 + a[0], 12], a[1])", side, view) == expected


STATE = {
    "x": 6200.25, "y": 0.125, "z": 0.123456789, "rotation": 95.5, "mirrored": True, "source": "sr-fast",
    "layers": ["a", "b"], "opacity": 0.35, "hidden": [{"layer": "a", "name": "Tumour & <b> #2"}],
    "opacities": [{"layer": "b", "value": 0.9}], "thresholds": [{"layer": "a", "value": 0.55}],
    "styles": [{"layer": "a", "value": "outline"}],
    "colors": [{"layer": "b", "name": "ä ö", "color": "#0a0b0c"}],
    "compare": {"truth": "a", "prediction": "b", "iou": 0.25, "sameClass": False, "wholeSlide": True, "colored": False},
}  # fmt: skip
PLAIN = {"truth": "a", "prediction": "b", "iou": 0.5, "sameClass": True, "wholeSlide": False, "colored": True}


@pytest.mark.parametrize("change", [{}, {"compare": PLAIN}, {"compare": None, "colors": [], "styles": []}])
def test_thresholds_styles_and_the_comparison_survive_the_address(module, change):
    state = {**STATE, **change}
    assert module("viewstate", "return m.decodeState('#' + m.encodeState(a[0]))", state) == state


@pytest.mark.parametrize("nonsense", [
    "#t=a&a=b&f=a+dashes&k=a+red+Tumour&c=only-one", "#t=a+x&a=a+&k=a+00ff0+Tumour&f=outline&k=a+00ff00",
])  # fmt: skip
def test_nonsense_about_layers_is_left_out(module, nonsense):
    default, decoded = module("viewstate", "return [m.DEFAULT_STATE, m.decodeState(a[0])]", nonsense)
    assert decoded == default


def test_values_beyond_the_range_come_to_its_end_and_a_senseless_overlap_to_the_usual_one(module):
    decoded = module("viewstate", "return m.decodeState('#t=a+7&a=b+-1&c=x+y+9+any')")
    assert decoded["thresholds"] == [{"layer": "a", "value": 1}]
    assert decoded["opacities"] == [{"layer": "b", "value": 0}]
    assert decoded["compare"] == {**PLAIN, "truth": "x", "prediction": "y", "sameClass": False}
