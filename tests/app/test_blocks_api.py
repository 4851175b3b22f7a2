"""Blocks, summary and removal of layers over HTTP; features of layers that are kept in a file."""

from __future__ import annotations

import gzip
import json
import struct
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
import shapely
from flask import Flask

from app import errors, layers
from tests.layers.shapes import mixed_batch
from tests.versions import add_slide
from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.layers.blocks import decode_block
from wsi_ml.layers.columns import area_units
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.file_features import feature_uuid
from wsi_ml.layers.layer import NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.layers.summary import score_bins
from wsi_ml.slides.library import Library

SUMMARY = "application/vnd.ocular.summary"
BATCH = mixed_batch(seed=21, size=(5000, 3000), count=900)


def publish(root, slide_id, version):
    path = root / "staged.features"
    with FeaturesWriter(path, ("a", "b", "c"), Size(5000, 3000)) as writer:
        writer.add(BATCH)
        facts = writer.finish()
    return LayerStore(root).publish_file(NewLayer(slide_id, version, "nuclei", "prediction"), path, facts, {})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(client, address of the layers, prediction in a file, truth in the database)."""
    root = tmp_path_factory.mktemp("library")
    library = Library.create(root)
    slide_id, version, _ = add_slide(library, "one", Size(2500, 1500))
    store = LayerStore(root)
    layer = publish(root, slide_id, version)
    squares = [
        Feature(shapely.box(n, n, n + 5.3, n + 5), f"00000000-0000-4000-8000-{n:012}", "gland") for n in range(9)
    ]
    truth = store.publish(NewLayer(slide_id, version, "truth", "truth"), squares)
    app = Flask("test")
    app.extensions["ocular"] = SimpleNamespace(library=library, layers=store)
    app.register_blueprint(layers.bp)
    errors.register(app)
    yield app.test_client(), f"/api/slides/{slide_id}/layers", layer, truth
    assert store.check() == []


def test_layers_say_whether_they_have_scores(site):
    client, address, layer, truth = site
    facts = {each["id"]: each for each in client.get(address).json["layers"]}
    assert (facts[layer.id]["scored"], facts[truth.id]["scored"]) == (True, False)
    assert facts[layer.id]["unit_area"] == 1 / 512
    area = sum(each["area_um2"] for each in facts[layer.id]["classes"])
    assert area == pytest.approx(shapely.area(BATCH.geometries).sum() * 0.0625, rel=1e-9)


def test_blocks_are_listed_with_their_boxes(site):
    client, address, layer, truth = site
    answer = client.get(f"{address}/{layer.id}/blocks")
    assert answer.mimetype == "application/json" and "immutable" in answer.headers["Cache-Control"]
    found = answer.json
    assert (found["unit"], found["count"], found["classes"]) == (16, 900, ["a", "b", "c"])
    assert sum(block["count"] for block in found["blocks"]) == 900
    file = client.application.extensions["ocular"].layers.features_file(layer.id)
    for block, facts in zip(found["blocks"], file.blocks, strict=True):
        assert all(type(edge) is int for edge in block["box"]) and block["bytes"] == facts.length
        x0, y0, x1, y1 = block["box"]
        assert 0 <= facts.box.x0 - x0 < 1 and 0 <= facts.box.y0 - y0 < 1
        assert 0 <= x1 - facts.box.x1 < 1 and 0 <= y1 - facts.box.y1 < 1
    assert found["summary"]["side"] == 128
    assert [(each["level"], each["columns"], each["rows"]) for each in found["summary"]["levels"]] == [
        (0, 40, 24), (1, 20, 12), (2, 10, 6), (3, 5, 3), (4, 3, 2), (5, 2, 1), (6, 1, 1),
    ]  # fmt: skip
    assert all(each["entries"] > 200 for each in found["summary"]["levels"])
    copy = client.get(f"{address}/{truth.id}/blocks").json
    assert (copy["count"], copy["classes"], len(copy["blocks"])) == (9, ["gland"], 1)
    assert copy["blocks"][0]["box"] == [0, 0, 14, 13]


def test_a_block_is_served_as_it_is_stored(site):
    client, address, layer, _ = site
    file = client.application.extensions["ocular"].layers.features_file(layer.id)
    seen = set()
    for number in range(len(file.blocks)):
        path = f"{address}/{layer.id}/blocks/{number}"
        packed = client.get(path, headers={"Accept-Encoding": "gzip, br"})
        assert packed.data == file.block_gzip(number) and packed.headers["Content-Encoding"] == "gzip"
        assert packed.mimetype == "application/octet-stream" and packed.headers["Vary"] == "Accept-Encoding"
        plain = client.get(path)
        assert plain.data == gzip.decompress(packed.data) and "Content-Encoding" not in plain.headers
        assert plain.headers["ETag"] != packed.headers["ETag"]
        seen |= set(decode_block(plain.data).numbers.tolist())
    assert seen == set(range(900))
    again = client.get(path, headers={"If-None-Match": packed.headers["ETag"], "Accept-Encoding": "gzip"})
    assert (again.status_code, again.data) == (304, b"")


def test_the_top_of_the_summary_is_the_whole_slide(site):
    client, address, layer, _ = site
    found = client.get(f"{address}/{layer.id}/summary").json
    assert {key: found[key] for key in ("level", "side", "columns", "rows", "unit_area")} == {
        "level": 6, "side": 8192, "columns": 1, "rows": 1, "unit_area": 1 / 512,
    }  # fmt: skip
    columns = client.application.extensions["ocular"].layers.features_file(layer.id)
    parts = [columns.block(n) for n in range(len(columns.blocks))]
    exact = {}
    for part in parts:
        for class_number, score_bin, area in zip(
            part.class_numbers.tolist(), score_bins(part.scores).tolist(), area_units(part).tolist(), strict=True
        ):
            before = exact.get((class_number, score_bin), (0, 0))
            exact[(class_number, score_bin)] = (before[0] + area, before[1] + 1)
    assert {(e[2], e[3]): (e[4], e[5]) for e in found["entries"]} == exact
    assert all(entry[:2] == [0, 0] for entry in found["entries"]) and found["classes"] == ["a", "b", "c"]


def test_levels_and_boxes_of_the_summary(site):
    client, address, layer, _ = site
    path = f"{address}/{layer.id}/summary"
    every = client.get(f"{path}?level=2").json["entries"]
    assert sum(entry[5] for entry in every) == 900
    some = client.get(f"{path}?level=2&bbox=512,512,1536,1024").json["entries"]
    assert some == [entry for entry in every if entry[0] in (1, 2) and entry[1] == 1] and len(some) > 5
    assert client.get(f"{path}?level=2&bbox=9000,9000,9001,9001").json["entries"] == []


def test_the_summary_in_binary(site):
    client, address, layer, _ = site
    path = f"{address}/{layer.id}/summary?level=1"
    rows = client.get(path).json["entries"]
    answer = client.get(path, headers={"Accept": SUMMARY})
    assert answer.mimetype == SUMMARY and {"Accept", "Accept-Encoding"} <= set(answer.headers["Vary"].split(", "))
    data = answer.data
    assert data[:4] == b"OCS1"
    count, level, side = struct.unpack_from("<3I", data, 4)
    assert (count, level, side) == (len(rows), 1, 256)
    place, columns = 16, []
    for _ in range(4):
        columns.append(np.frombuffer(data, "<u2", count, place))
        place += -(-2 * count // 4) * 4
    columns.append(np.frombuffer(data, "<u4", count, place))
    place = -(-(place + 4 * count) // 8) * 8
    areas = np.frombuffer(data, "<f8", count, place)
    assert place + 8 * count == len(data)
    column, row, class_number, score_bin, counts = columns
    again = np.stack([column, row, class_number, score_bin, areas, counts], axis=1).astype(int).tolist()
    assert again == rows


@pytest.mark.parametrize(
    ("query", "word"),
    [("level=7", "level"), ("level=-1", "level"), ("level=x", "level"), ("bbox=1,2", "bbox"), ("limit=5", "limit")],
)
def test_bad_summary_parameters_are_problems(site, query, word):
    client, address, layer, _ = site
    answer = client.get(f"{address}/{layer.id}/summary?{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request") and word in answer.json["detail"]


def test_too_many_entries_are_a_problem_that_says_what_to_do(site, monkeypatch):
    client, address, layer, _ = site
    monkeypatch.setattr(layers, "MAX_ENTRIES", 100)
    answer = client.get(f"{address}/{layer.id}/summary?level=0")
    assert answer.status_code == 400 and "ask a higher level or a smaller box" in answer.json["detail"]


@pytest.mark.parametrize("path", ["blocks/99", "blocks/-1", "blocks/x", "nothing"])
def test_unknown_addresses(site, path):
    client, address, layer, _ = site
    assert client.get(f"{address}/{layer.id}/{path}").status_code == 404
    for part in ("blocks", "blocks/0", "summary"):
        answer = client.get(f"{address}/nolayer/{part}")
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_layer")


def test_features_of_a_file_are_largest_first_with_fixed_decimals(site):
    client, address, layer, _ = site
    answer = client.get(f"{address}/{layer.id}/features?limit=40")
    found = answer.json
    assert (found["total"], found["truncated"], len(found["features"])) == (900, True, 40)
    areas = [shapely.from_geojson(json.dumps(each["geometry"])).area for each in found["features"]]
    assert areas == sorted(areas, reverse=True)
    numbers = np.lexsort((np.arange(900), -shapely.area(BATCH.geometries).astype(np.float32)))[:40]
    assert [each["id"] for each in found["features"]] == [feature_uuid(layer.id, number) for number in numbers]
    for coordinate in shapely.get_coordinates(
        [shapely.from_geojson(json.dumps(e["geometry"])) for e in found["features"]]
    ).flat:
        assert coordinate * 16 == int(coordinate * 16)
    first = found["features"][0]
    assert first["properties"]["objectType"] == "annotation" and first["geometry"]["type"] == "Polygon"


def test_class_score_and_box_filter_the_features_of_a_file(site):
    client, address, layer, _ = site
    query = f"{address}/{layer.id}/features"
    scores, bounds = BATCH.scores, shapely.bounds(BATCH.geometries)
    kept = (
        (np.isnan(scores) | (scores >= 0.5))
        & (BATCH.class_numbers == 1)
        & (bounds[:, 0] <= 1000)
        & (bounds[:, 1] <= 800)
    )
    assert client.get(f"{query}?bbox=0,0,1000,800&class=b&min_score=0.5").json["total"] == kept.sum() > 3
    assert client.get(f"{query}?class=nothing").json["total"] == 0


def test_answers_are_packed_as_the_client_likes_best(site):
    client, address, layer, _ = site
    path = f"{address}/{layer.id}/features"
    plain = client.get(path).data

    def unpacked(accepted):
        answer = client.get(path, headers={"Accept-Encoding": accepted})
        packing = answer.headers.get("Content-Encoding")
        data = {"gzip": gzip.decompress, "zstd": imagecodecs.zstd_decode, None: bytes}[packing](answer.data)
        assert data == plain
        return packing, answer.headers["ETag"]

    found = {accepted: unpacked(accepted) for accepted in ("gzip, deflate, br, zstd", "zstd", "gzip", "identity", "*")}
    assert [packing for packing, _ in found.values()] == ["zstd", "zstd", "gzip", None, "gzip"]
    assert len({etag for _, etag in found.values()}) == 3
    assert unpacked("zstd;q=0.5, gzip")[0] == "gzip" and unpacked("zstd;q=0, gzip;q=0")[0] is None


def test_only_predictions_are_removed(site):
    client, address, layer, truth = site
    state = client.application.extensions["ocular"]
    extra = publish(state.library.root, layer.slide_id, layer.version)
    assert client.get(f"{address}/{extra.id}/blocks/0").status_code == 200
    answer = client.delete(f"{address}/{extra.id}")
    assert (answer.status_code, answer.data) == (204, b"")
    for path in ("", "/blocks", "/blocks/0", "/features", "/summary"):
        assert client.get(f"{address}/{extra.id}{path}").json["code"] == "unknown_layer"
    assert client.delete(f"{address}/{extra.id}").status_code == 404
    assert not state.layers.files.path(extra.id).exists()
    refused = client.delete(f"{address}/{truth.id}")
    assert (refused.status_code, refused.json["code"]) == (409, "conflict") and "“truth”" in refused.json["detail"]
    assert client.get(f"{address}/{truth.id}").status_code == 200
