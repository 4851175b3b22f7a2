"""The pure modules, called in the browser with exact numbers; and every module parses."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.browser.tab import Tab
from tests.conftest import PROJECT_ROOT

VIEW = {"centerX": 100, "centerY": 50, "scale": 2, "degrees": 0, "mirrored": False, "width": 400, "height": 300}


@pytest.fixture(scope="module")
def module(chromium, running_site):
    """Calls a function body with `m`, one of our modules, and `a`, the arguments."""
    tab = Tab(chromium, running_site)
    tab.page.goto(running_site.url)
    yield tab.module
    tab.page.context.close()
    tab.check()


@pytest.mark.parametrize(("change", "point", "expected"), [
    ({}, (100, 50), (200, 150)), ({}, (101, 50), (202, 150)), ({"degrees": 90}, (101, 50), (200, 152)),
    ({"degrees": 180}, (101, 52), (198, 146)), ({"degrees": -90}, (101, 50), (200, 148)),
    ({"mirrored": True}, (101, 50), (198, 150)), ({"degrees": 90, "mirrored": True}, (100, 51), (202, 150)),
    ({"degrees": 30}, (110, 50), (200 + 20 * 3**0.5 / 2, 160)),
])  # fmt: skip
def test_base_plane_to_screen_and_back(module, change, point, expected):
    body = "const s = m.apply(m.viewMatrix(a[0]), ...a[1]); return [s, m.apply(m.invert(m.viewMatrix(a[0])), ...s)];"
    there, back = module("geometry", body, {**VIEW, **change}, point)
    assert there == pytest.approx(expected, abs=1e-12)
    assert back == pytest.approx(point, abs=1e-12)


def test_composed_maps_are_one_after_the_other(module):
    body = "return [m.apply(m.compose(a[0], a[1]), 3, 4), m.apply(a[0], ...m.apply(a[1], 3, 4))]"
    one, other = module("geometry", body, [1, 2, 3, 4, 5, 6], [0, 1, -1, 0, 7, 8])
    assert one == other == [41, 56]


def test_a_box_in_the_empty_corner_of_a_turned_view_is_not_visible(module):
    """The view is a diamond around (100, 50) with half diagonals of (400 + 300) / 2 / 2 / √2 ≈ 123.7 px."""
    view = {**VIEW, "degrees": 45}
    boxes = [[95, 45, 105, 55], [190, 140, 200, 150], [210, 40, 220, 60], [224, 40, 260, 60], [175, 125, 200, 150]]
    assert module("geometry", "return a[1].map((box) => m.boxIsVisible(box, a[0]))", view, boxes) == [
        True, False, True, False, False,
    ]  # fmt: skip


def test_a_box_that_only_touches_the_view_is_not_visible(module):
    boxes = [[-100, 0, 0, 100], [-100, 0, 0.5, 100], [200, 0, 300, 100], [199.5, 0, 300, 100], [0, -100, 200, -25]]
    assert module("geometry", "return a[1].map((box) => m.boxIsVisible(box, a[0]))", VIEW, boxes) == [
        False, True, False, True, False,
    ]  # fmt: skip


def test_snapping_moves_by_less_than_a_pixel_and_only_where_pixels_can_meet(module):
    views = [
        {**VIEW, "scale": 0.5, "centerX": 100.7}, {**VIEW, "scale": 0.5, "centerX": 100.7, "width": 401},
        {**VIEW, "scale": 0.5, "centerX": 100.7, "degrees": 30}, {**VIEW, "scale": 0.51, "centerX": 100.7},
    ]  # fmt: skip
    shifts = module("geometry", "return a[0].map((view) => m.snapShift(view, 2, 1))", views)
    assert shifts == [pytest.approx(each, abs=1e-9) for each in ([-0.7, 0], [0.3, 0], [0, 0], [0, 0])]


@pytest.mark.parametrize(("um_per_pixel", "room", "um", "label"), [
    (0.25, 160, 20, "20 µm"), (0.5, 160, 50, "50 µm"), (0.499, 160, 50, "50 µm"), (10, 160, 1000, "1 mm"),
    (0.0625, 160, 10, "10 µm"), (0.003, 160, 0.2, "200 nm"), (1, 100, 100, "100 µm"),
])  # fmt: skip
def test_scale_bar_choice(module, um_per_pixel, room, um, label):
    bar = module("scale", "return m.scaleBar(...a)", um_per_pixel, room)
    assert bar["um"] == pytest.approx(um) and bar["label"] == label
    assert bar["pixels"] == pytest.approx(um / um_per_pixel) and bar["pixels"] <= room


def test_words_for_areas_and_powers(module):
    texts = module(
        "scale", "return [...[12.345, 1234.5, 12345].map(m.areaText), ...[27.25, 1.25, 40, 0.625].map(m.powerText)]"
    )
    assert texts == ["12.3 µm²", "1,235 µm²", "0.0123 mm²", "×27.3", "×1.25", "×40", "×0.625"]


STATE = {
    "x": 6200.25, "y": 0.125, "z": 0.123456789, "rotation": 95.5, "mirrored": True, "source": "sr-fast",
    "layers": ["a", "b"], "opacity": 0.35,
    "opacities": [], "thresholds": [], "styles": [], "colors": [], "compare": None,
    "hidden": [{"layer": "a", "name": "Tumour & <b> #2"}, {"layer": "b", "name": "ä ö"}],
}  # fmt: skip


@pytest.mark.parametrize(
    "change", [{}, {"layers": []}, {"layers": None, "hidden": [], "source": None, "mirrored": False}]
)
def test_view_state_round_trip(module, change):
    state = {**STATE, **change}
    assert module("viewstate", "return m.decodeState('#' + m.encodeState(a[0]))", state) == state


def test_view_state_of_nonsense_is_the_default(module):
    default, decoded = module(
        "viewstate", "return [m.DEFAULT_STATE, a.map(m.decodeState)]", "", "#", "#x=1&y=&z=2", "#r=x&o=&h=q"
    )
    assert decoded == [default] * 4


@pytest.mark.parametrize(("header", "text", "synthesised"), [
    ("stored", "stored", False), ("scan", "scan", False), ("bicubic", "bicubic", True),
    ("sr; model=sr-fast; sha256=0123456789ab", "sr-fast 0123456789ab", True),
    ("bicubic; fallback-for=sr-fast; reason=model_bad_output", "bicubic in place of sr-fast", True),
    ("unknown", "origin not stated", True), ("", "", True), ("something new", "something new", True),
])  # fmt: skip
def test_provenance(module, header, text, synthesised):
    body = "const p = m.parseProvenance(a[0]); return [m.provenanceText(p), p.synthesised]"
    assert module("provenance", body, header) == [text, synthesised]


def test_badge_names_every_origin_once(module):
    headers = ["stored", "sr; model=a; sha256=1", "sr; model=a; sha256=1", "bicubic; fallback-for=a; reason=x"]
    body = "return [m.badge(a[0].map(m.parseProvenance)), m.badge([m.parseProvenance('stored')]), m.badge([])]"
    assert module("provenance", body, headers) == [
        {"text": "Synthesised · a 1 + bicubic in place of a", "waiting": True}, None, None,
    ]  # fmt: skip


def test_tiles_of_odd_planes_lie_where_their_pixels_are(module):
    """A plane of 1025 × 513: level 11 is the plane, level 10 has 513 × 257 px, the last past the plane."""
    grid = {"width": 1025, "height": 513, "side": 512, "top": 11}
    body = "return [[11, 2, 1], [10, 1, 0], [9, 0, 0]].map((tile) => m.tileBox(a[0], ...tile))"
    assert module("tilesource", body, grid) == [[1024, 512, 1025, 513], [1024, 0, 1026, 514], [0, 0, 1028, 516]]
    levels = module(
        "tilesource", "return a.map((side) => m.topLevel({ width: side, height: 1 }))", 1, 2, 3, 512, 513, 1025
    )
    assert levels == [0, 1, 2, 9, 10, 11]


def test_modules_parse():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    parse = "for (const path of process.argv.slice(1)) new vm.SourceTextModule(fs.readFileSync(path, 'utf8'));"
    paths = sorted((PROJECT_ROOT / "static" / "js").glob("*.js"))
    command = [node, "--experimental-vm-modules", "--no-warnings", "-e", parse, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(paths) > 20
