"""The pure modules behind the overlay: they read what the server wrote, and what they draw has the area it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely

from tests.browser.tab import Tab
from wsi_ml.geometry import Size
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.blocks import unpack_block
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.features_format import summary_bytes
from wsi_ml.layers.features_writer import FeaturesWriter

SIZE = Size(3000, 2000)
RING = shapely.Polygon(
    [(500, 500), (900, 500), (900, 900), (500, 900)], [[(600, 600), (600, 800), (800, 800), (800, 600)]]
)
TWO = shapely.MultiPolygon([shapely.box(10.0625, 20.5, 30, 50), shapely.box(100, 20, 130, 50)])
BLOB = shapely.Point(1500, 1000).buffer(20.3)
FEATURES = [RING, TWO, BLOB]


@pytest.fixture(scope="module")
def module(chromium, running_site):
    """Calls a function body with `m`, one of our modules, and `a`, the arguments."""
    tab = Tab(chromium, running_site)
    tab.page.goto(running_site.url)
    yield tab.module
    tab.page.context.close()
    tab.check()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A features file of FEATURES: classes b, a, b, scores none, 0.25 and 1."""
    path = tmp_path_factory.mktemp("layer") / "layer.features"
    geometries = np.empty(3, object)
    geometries[:] = FEATURES
    with FeaturesWriter(path, ["a", "b"], SIZE) as writer:
        writer.add(FeatureBatch(geometries, np.array([1, 0, 1], np.uint16), np.array([np.nan, 0.25, 1], np.float32)))
        writer.finish()
    return FeaturesFile(path)


@pytest.fixture(scope="module")
def block(file) -> list[int]:
    assert len(file.blocks) == 1
    return list(unpack_block(file.block_gzip(0)))


def decoded(body: str) -> str:
    return f"const block = m.decodeBlock(new Uint8Array(a[0]).buffer); {body}"


def test_a_block_is_what_the_server_wrote(module, block):
    body = """const at = [0, 1, 2].map((number) => block.numbers.indexOf(number));
      return { classes: at.map((i) => block.classes[i]), scores: at.map((i) => block.scores[i]),
        areas: at.map((i) => block.areas[i]), rings: at.map((i) => m.ringsOf(block, i)),
        extents: at.map((i) => block.extents[i]), largest: block.largest }"""
    found = module("blocks", decoded(body), block)
    assert found["classes"] == [1, 0, 1]
    assert found["scores"] == [65535, 2500, 10000]
    assert found["areas"] == pytest.approx([each.area for each in FEATURES], rel=1e-3)
    assert found["extents"][:2] == [400, 119.9375] and found["largest"] == 400
    outline, hole = found["rings"][0]
    assert shapely.Polygon(outline, [hole]).equals(RING)
    assert [shapely.Polygon(ring).area for ring in found["rings"][1]] == [19.9375 * 29.5, 900]
    assert shapely.Polygon(found["rings"][2][0]).hausdorff_distance(BLOB) < 0.05


def test_rings_run_the_same_way_whichever_way_they_came(module, block):
    """Outlines clockwise on screen (positive area with y down), holes the other way."""
    body = "return Array.from(block.numbers, (number, at) => [number, m.ringsOf(block, at)])"
    rings = dict(module("blocks", decoded(body), block))
    areas = {number: [signed_area(ring) for ring in each] for number, each in rings.items()}
    assert areas[0] == [160000, -40000]
    assert all(area > 0 for area in areas[1] + areas[2])


def signed_area(ring: list) -> float:
    x, y = np.array([*ring, ring[0]], float).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@pytest.mark.parametrize("damage", [
    lambda data: data[:20], lambda data: data[:-4], lambda data: [0, *data[1:]], lambda data: [*data, 0, 0, 0, 0],
    lambda data: [*data[:4], 9, *data[5:]], lambda data: [*data[:120], 255, *data[121:]],
])  # fmt: skip
def test_a_damaged_block_is_refused(module, block, damage):
    body = """try { m.decodeBlock(new Uint8Array(a[0]).buffer); return "read"; }
      catch (error) { return error instanceof m.DamagedError ? "refused" : String(error); }"""
    assert module("blocks", body, damage(list(block))) == "refused"


def test_the_smallest_feature_under_a_point_is_meant(module, block):
    body = "return a[1].map(([x, y]) => block.numbers[m.featureAt(block, x, y, () => true)] ?? null)"
    points = [[550, 550], [700, 700], [20, 30], [115, 30], [60, 30], [1500, 1000], [1521, 1000], [0, 0]]
    assert module("blocks", decoded(body), block, points) == [0, None, 1, 1, None, 2, None, None]
    body = "return [1500, 20].map((x) => m.featureAt(block, x, x === 20 ? 30 : 1000, (at) => block.scores[at] < 5000))"
    found = module("blocks", decoded(body), block)
    assert found[0] == -1 and found[1] >= 0, "what is not shown is not meant"


@pytest.mark.parametrize("level", [0, 2])
def test_a_summary_is_what_the_server_wrote(module, file, level):
    entries = file.summary(level, None, 10_000)
    body = """const grid = m.decodeSummary(new Uint8Array(a[0]).buffer, [0, 0, 24, 16]);
      const whole = m.countCells(grid, 0, [-1, -1, 3001, 2001], 2);
      const kept = m.countCells(grid, 26, [-1, -1, 3001, 2001], 2);
      const part = m.countCells(grid, 0, [600, 600, 610, 610], 2);
      const [counts, areas, left] = [whole.counts, whole.areas, kept.counts].map((each) => Array.from(each));
      return [grid.side, counts, areas, whole.exact, left, part.exact]"""
    side, counts, areas, exact, kept, part_exact = module(
        "summary", body, list(summary_bytes(entries, level, 128 << level))
    )
    assert side == 128 << level
    assert counts == [1, 2] and kept == [0, 2], "a feature without a score stays at every threshold"
    assert areas == pytest.approx([TWO.area, RING.area + BLOB.area], rel=1e-3)
    assert exact is True and part_exact is False


def test_the_map_shows_each_class_by_its_share_of_the_cell(module, file):
    entries = list(summary_bytes(file.summary(0, None, 10_000), 0, 128))
    body = """const grid = m.decodeSummary(new Uint8Array(a[0]).buffer, [0, 0, 24, 16]);
      const tints = [{ red: 200, green: 0, blue: 0, alpha: 0.5 }, { red: 0, green: 0, blue: 250, alpha: 0.5 }];
      const made = m.picture(grid, 0, tints, { width: 3000, height: 2000 });
      const hidden = m.picture(grid, 0, [null, null], { width: 3000, height: 2000 });
      const at = (x, y) => Array.from(made.pixels.slice(4 * (y * made.width + x), 4 * (y * made.width + x) + 4));
      const anyHidden = hidden.pixels.some((each) => each > 0);
      return [made.width, made.height, made.box, at(5, 5), at(1, 1), at(0, 0), anyHidden]"""
    width, height, box, inside, corner, rim, any_hidden = module("summary", body, entries)
    assert (width, height, box) == (26, 18, [-128, -128, 3200, 2176])
    part = shapely.box(512, 512, 640, 640).intersection(RING).area / 128**2
    assert inside == [0, 0, 250, pytest.approx(255 * 0.5 * part, abs=1)]
    assert corner[0] == 200 and corner[3] == pytest.approx(
        255 * 0.5 * shapely.box(0, 0, 128, 128).intersection(TWO).area / 128**2, abs=1
    )
    assert rim == [0, 0, 0, 0] and any_hidden is False


def test_pairs_are_matched_by_falling_iou_once_each(module):
    """The first pair wins; what is dropped by the threshold leaves its truth feature to the next."""
    pairs = {"truth": [0, 0, 1, 2, 2], "prediction": [0, 1, 1, 2, 3], "iou": [0.9, 0.8, 0.7, 0.6, 0.5]}
    body = """const pairs = { truth: Uint32Array.from(a[0].truth), prediction: Uint32Array.from(a[0].prediction),
        iou: Float32Array.from(a[0].iou) };
      const rule = { iou: a[1], keepsTruth: () => true, keepsPrediction: (number) => !a[2].includes(number),
        agree: a[3] ? (one, other) => a[3][one] === other : undefined };
      const found = m.matchPairs(pairs, rule, 3, 4);
      return [Array.from(found.truth), Array.from(found.prediction)]"""
    assert module("matching", body, pairs, 0.5, []) == [[1, 1, 1], [1, 1, 1, 0]]
    assert module("matching", body, pairs, 0.5, [0]) == [[1, 0, 1], [0, 1, 1, 0]], "pair (0, 1) comes before (1, 1)"
    assert module("matching", body, pairs, 0.75, []) == [[1, 0, 0], [1, 0, 0, 0]]
    assert module("matching", body, pairs, 0.5, [2]) == [[1, 1, 0], [1, 1, 0, 0]], "an IoU of 0.5 is not above 0.5"
    assert module("matching", body, pairs, 0.4, [2], {"0": 1, "1": 9, "2": 3}) == [[1, 0, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize("turn", [(1, 0, 0, 1), (0.6, 0.8, -0.8, 0.6), (-1, 0, 0, 1), (0, 0.45, 0.45, 0)])
def test_the_rasteriser_covers_exactly_the_area(module, block, turn):
    """Sum of alphas = area · alpha, for a disc, and a ring whose hole stays clear; turned and mirrored alike."""
    zoom = abs(turn[0] * turn[3] - turn[1] * turn[2])
    body = """const { decodeBlock } = await import('/static/js/blocks.js');
      const block = decodeBlock(new Uint8Array(a[0]).buffer);
      const raster = new m.Raster();
      raster.begin(200, 200);
      const at = block.numbers.indexOf(a[1]);
      const [left, top, right, bottom] = block.boxes.slice(4 * at, 4 * at + 4);
      const [x, y] = [(left + right) / 2, (top + bottom) / 2];
      const [p, q, r, s] = a[2].map((each) => each * a[3]);
      const matrix = [p, q, r, s, 100.3 - p * x - r * y, 99.6 - q * x - s * y];
      raster.polygon(block, at, matrix, { fill: a[4], line: a[5], width: a[6] }, 0x0000ff);
      const pixels = new Uint8Array(raster.pixels.buffer);
      let sum = 0;
      for (let i = 3; i < pixels.length; i += 4) sum += pixels[i];
      const middle = 4 * (100 * 200 + 100);
      return [sum / 255, Array.from(pixels.slice(middle, middle + 4)), raster.sums.some((each) => each !== 0)]"""
    for number, zoomed, middle in ((2, 1.5, 204), (0, 0.15, 0)):
        feature, size = FEATURES[number], zoomed**2 * zoom
        filled, pixel, rest = module("raster", body, block, number, turn, zoomed, 0.8, 0, 0)
        assert filled == pytest.approx(0.8 * feature.area * size, rel=0.01)
        assert pixel[3] == pytest.approx(middle, abs=1) and rest is False
        outlined, _, _ = module("raster", body, block, number, turn, zoomed, 0.2, 0.9, 2)
        line = feature.length * math.sqrt(size) * 2
        inside = feature.area * size - line / 2
        assert outlined == pytest.approx(0.9 * line + 0.2 * inside, rel=0.03)


def test_dots_have_the_area_of_what_they_stand_for(module):
    body = """const raster = new m.Raster();
      return a[0].map(([x, y, side]) => {
        raster.begin(20, 20);
        raster.dot(x, y, side, 0.8, 0x112233);
        const pixels = new Uint8Array(raster.pixels.buffer);
        let sum = 0;
        for (let i = 3; i < pixels.length; i += 4) sum += pixels[i];
        return sum / 255;
      })"""
    dots = [[10, 10, 2], [10.3, 9.7, 2.5], [10.5, 10.5, 0.5], [0, 10, 2], [-5, 10, 2]]
    assert module("raster", body, dots) == pytest.approx([3.2, 5, 0.2, 1.6, 0], abs=0.02)


def test_overlapping_colours_are_laid_over_each_other(module):
    body = """const raster = new m.Raster();
      raster.begin(4, 4);
      raster.dot(2, 2, 4, 0.5, 0x0000ff);
      raster.dot(2, 2, 4, 0.5, 0xff0000);
      return Array.from(new Uint8Array(raster.pixels.buffer).slice(0, 4))"""
    assert module("raster", body) == pytest.approx([85, 0, 170, 191], abs=2)


def test_triangles_for_the_card_make_up_the_features(module, block):
    """Signed areas of fans and windings add up to the areas; only the disc is a star, each edge is there once."""
    body = """const { decodeBlock } = await import('/static/js/blocks.js');
      const block = decodeBlock(new Uint8Array(a[0]).buffer);
      const mesh = m.meshOf(block);
      const floats = new Float32Array(mesh.records);
      const shorts = new Uint16Array(mesh.records);
      const areas = (indices) => {
        const sums = {};
        for (let i = 0; i < indices.length; i += 3) {
          const [p, q, r] = [0, 1, 2].map((k) => [floats[4 * indices[i + k]], floats[4 * indices[i + k] + 1]]);
          const number = block.numbers[shorts[8 * indices[i] + 6]];
          sums[number] = (sums[number] ?? 0) + ((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])) / 2;
        }
        return sums;
      };
      let edges = 0;
      let length = 0;
      for (let i = 0; i + 1 < mesh.segments; i++) {
        if (shorts[8 * i + 7]) continue;
        edges += 1;
        length += Math.hypot(floats[4 * i + 4] - floats[4 * i], floats[4 * i + 5] - floats[4 * i + 1]);
      }
      const classes = mesh.ranges.map((each) => each.class).sort();
      return [areas(mesh.fans), areas(mesh.windings), edges, length, classes, mesh.table.length]"""
    fans, windings, edges, length, classes, table = module("mesh", body, block)
    assert fans == {"2": pytest.approx(BLOB.area, rel=1e-3)}
    assert windings == {"0": pytest.approx(120000), "1": pytest.approx(TWO.area)}
    assert edges == sum(shapely.get_num_coordinates(each) for each in FEATURES) - 5, "five rings, none closed twice"
    assert length == pytest.approx(sum(each.length for each in FEATURES), rel=1e-3)
    assert classes == [0, 1] and table == 4 * 64


def test_a_ring_that_goes_around_twice_is_not_taken_for_a_star(module):
    turns = np.linspace(0, 4 * np.pi, 41)[:-1]
    places = np.stack([np.cos(turns), np.sin(turns)], -1) * (10 + turns[:, None])
    body = """const places = Float32Array.from(a[0].flat());
      const block = { count: 1, rings: [0, 1], points: [0, places.length / 2], places, classes: [0], areas: [300],
        scores: [1], numbers: [0], boxes: [-30, -30, 30, 30], extents: [60] };
      const mesh = m.meshOf(block);
      return [mesh.fans.length, mesh.windings.length / 3]"""
    assert module("mesh", body, places.tolist()) == [0, 38]


def test_the_mean_colour_of_a_disc_stays_as_it_gets_smaller(module):
    """Fill and outline together give, at every diameter, the alpha that the map shows for it."""
    body = """return ["both", "outline", "fill"].map((style) => {
      const look = m.classLook("#102030", style, 0.6);
      const stroke = { fill: 0, line: 0, width: 0 };
      return [2, 5, 7, 9, 12, 20, 60].map((d) => {
        m.strokeFor(look, d, stroke);
        return [stroke.fill + (stroke.line * 4 * stroke.width) / d, m.meanAlpha(look, d)];
      });
    })"""
    for style in module("looks", body):
        for drawn, mapped in style:
            assert drawn == pytest.approx(mapped, abs=1e-9)


def test_a_frame_lies_on_the_screens_pixels(module):
    """At 1.25 device pixels per CSS pixel, with a rim of 12 %: corner, middle and rim in whole device pixels."""
    view = {"centerX": 50, "centerY": 40, "scale": 2, "degrees": 0, "mirrored": False, "width": 1001, "height": 703}
    frame = module("frame", "return m.frameOf(a[0], 1.25, 0.12)", view)
    assert frame["width"] == math.ceil(1001 * 1.25) + 2 * 150 and frame["height"] == math.ceil(703 * 1.25) + 2 * 105
    assert frame["rim"] == [120, 84]
    at_middle = [frame["matrix"][0] * 50 + frame["matrix"][4], frame["matrix"][3] * 40 + frame["matrix"][5]]
    assert at_middle == pytest.approx([150 + 1001 * 1.25 / 2, 105 + 703 * 1.25 / 2])
    assert frame["grown"]["width"] == 1001 + 240
