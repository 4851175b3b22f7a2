import json

import numpy as np
import orjson
import pytest
import shapely

from tests.formats.outlines import HOLE, SQUARE, losses, read, refused, square, write
from wsi_ml.formats import coco, darwin, outlines_json
from wsi_ml.formats.feature import UNCLASSIFIED, Feature

UUID = "c5badd12-d986-4fd7-8926-74d209f672c3"
BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]


def test_msu_list_of_classes():
    text = orjson.dumps([{"class": "TUM", "vertices": SQUARE}, {"class": "ZZ", "vertices": SQUARE, "more": 1}])
    found, report = read(text)
    assert [(each.class_name, each.class_color) for each in found] == [("TUM", "#21439c"), ("ZZ", None)]
    assert shapely.get_coordinates(found[0].geometry).tolist() == SQUARE
    assert losses(report) == {"“more” of the outline": 1} and report.format == outlines_json.MSU
    open_ring = orjson.dumps([{"class": "TUM", "vertices": SQUARE}, {"class": "AT", "vertices": SQUARE[:-1]}])
    assert refused(open_ring).startswith(
        "Feature 1 (counted from 0), ring 0: the ring is not closed: it starts at (10,"
    )
    found, report = read(open_ring, repair=True)
    assert found[1].geometry.area == 100 and report.repairs["open ring closed"].features == [1]


def test_msu_objects_have_open_rings():
    text = orjson.dumps({"objects": [{"id": 7, "points": SQUARE[:-1]}, {"points": SQUARE}], "image": "x"})
    found, report = read(text)
    assert [(each.name, each.class_name, each.geometry.area) for each in found] == [
        ("7", UNCLASSIFIED, 100),
        (None, UNCLASSIFIED, 100),
    ]
    assert losses(report) == {"“image” of the file": 1}
    assert "Feature 0 (counted from 0), ring 0: the outline crosses itself at (5, 5)" in refused(
        orjson.dumps({"objects": [{"points": BOW_TIE[:-1]}]})
    )


def test_msu_is_written_closed():
    features = [
        Feature(shapely.Polygon(SQUARE, [HOLE]), UUID, "TUM", "#21439c", score=0.5),
        Feature(shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2.5, 0, 3, 1)]), UUID, "ZZ", "#010203"),
    ]
    text, report = write("msu", features)
    values = json.loads(text)
    assert [each["class"] for each in values] == ["TUM", "ZZ", "ZZ"]
    assert values[0]["vertices"][0] == values[0]["vertices"][-1]
    assert losses(report) == {
        "id (PATH-DT-MSU JSON has no place for it)": 2,
        "score (PATH-DT-MSU JSON has no place for it)": 1,
        "hole (PATH-DT-MSU JSON has none)": 1,
        "feature of several parts (each part is written on its own)": 1,
        "colour of a class (the classes’ own colours are implied)": 1,
    }
    assert [each.geometry.area for each in read(text)[0]] == [100, 1, 0.5]
    assert write("msu", [])[0] == b"[]\n"


def test_ncrf_lists_are_classes():
    text = orjson.dumps(
        {
            "positive": [{"name": "_0", "vertices": SQUARE[:-1]}, {"name": "_1", "vertices": square(30, 30, 2)[:-1]}],
            "negative": [{"name": "", "vertices": square(12, 12, 2)[:-1], "more": 1}],
            "rest": 1,
        }
    )
    found, report = read(text)
    assert [(each.class_name, each.name, each.geometry.area) for each in found] == [
        ("positive", "_0", 100),
        ("positive", "_1", 4),
        ("negative", None, 4),
    ]
    assert losses(report) == {"“rest” of the file": 1, "“more” of the outline": 1}
    assert refused(text.replace(b'"_1","vertices"', b'"_1","corners"')).startswith(
        "Feature 1 (counted from 0): it has no"
    )
    assert "“negative” of the file is not a list" in refused(b'{"positive": [], "negative": {}}')
    assert "“positive” twice" in refused(b'{"positive": [], "positive": []}')
    assert "Feature 0 (counted from 0) is not valid JSON" in refused(b'{"positive": [{"vertices": [[NaN, 1]]}]}')
    assert "“name” twice" in refused(b'{"positive": [{"name": "a", "name": "b", "vertices": [[1, 1]]}]}')


def points(ring):
    return [{"x": x, "y": y} for x, y in ring]


def darwin_file(*annotations, **members):
    return orjson.dumps({"version": "2.0", "item": {"name": "a"}, "annotations": list(annotations)} | members)


def test_darwin_shapes():
    inner = square(13, 13, 1)[:-1]
    rings = [points(ring) for ring in (HOLE[:-1], SQUARE[:-1], inner, square(50, 50, 4)[:-1])]
    found, report = read(
        darwin_file(
            {"id": UUID, "name": "a", "polygon": {"paths": rings}, "inference": {"confidence": 0.75}},
            {"id": "x", "name": "b", "polygon": orjson.dumps({"paths": rings[1:2]}).decode(), "bounding_box": {"x": 1}},
            {"name": "c", "bounding_box": {"x": 1, "y": 2, "w": 3, "h": 4.5}, "text": {"text": "seen"}},
            {"name": "d", "ellipse": {"center": {"x": 50, "y": 50}, "radius": {"x": 20, "y": 10}, "angle": 1.5707963}},
            {"name": "e", "keypoint": {"x": 1, "y": 2}},
            {"name": "f", "polygon": {"path": rings[1], "additional_paths": [rings[0]]}, "attributes": ["x"]},
            {"name": "g", "tag": {}},
            {"name": "h"},
        )
    )
    areas = [100 - 9 + 1 + 16, 100, 13.5, 628.3, 91]
    assert [each.geometry.area for each in found] == pytest.approx(areas, rel=1e-3)
    assert (found[0].uuid, found[0].score, found[2].name, found[0].class_name) == (UUID, 0.75, "seen", "a")
    assert found[3].geometry.bounds == pytest.approx((40, 30, 60, 70), abs=0.1)
    assert losses(report) == {
        "id that is not a UUID (a new one was given)": 1,
        "ellipse (a polygon of 256 corners is kept)": 1,
        "keypoint (layers hold polygons)": 1,
        "“attributes” of the annotation": 1,
        "tag (layers hold polygons)": 1,
        "annotation without a shape (layers hold polygons)": 1,
    }
    assert (report.format, report.read, report.kept) == (darwin.FORMAT, 8, 5)


def test_darwin_faults_are_named():
    good = {"name": "a", "bounding_box": {"x": 1, "y": 2, "w": 3, "h": 4}}
    for shape, words in (
        ({"polygon": {"paths": [points(BOW_TIE[:-1])]}}, ", ring 0: the outline crosses itself at (5, 5)"),
        ({"polygon": {"paths": [points(SQUARE[:-1]), points(square(15, 15, 20)[:-1])]}}, ""),
        ({"polygon": {"paths": "many"}}, "no list of at most"),
        ({"polygon": {"paths": [[{"x": 1}]]}}, "does not have the numbers x, y"),
        ({"polygon": "{"}, "is not valid JSON"),
        ({"bounding_box": {"x": True, "y": 2, "w": 3, "h": 4}}, "does not have the numbers x, y, w, h"),
        ({"bounding_box": {"x": 1, "y": 2, "w": 0, "h": 4}}, "no area"),
    ):
        sentence = refused(darwin_file(good, {"name": "b", **shape}))
        assert sentence.startswith("Feature 1 (counted from 0)") and words in sentence


def coco_file(*annotations, **members):
    categories = [{"id": 3, "name": "a", "color": "#FF0000"}, {"id": 5, "name": "b", "supercategory": "x"}]
    return orjson.dumps({"images": [{"id": 1}], "annotations": list(annotations), "categories": categories, **members})


def test_coco_is_read():
    flat = np.array(SQUARE[:-1]).ravel().tolist()
    overlapping = np.array(square(15, 15, 10)[:-1]).ravel().tolist()
    found, report = read(
        coco_file(
            {
                "id": 1,
                "category_id": 3,
                "segmentation": [flat],
                "score": 0.5,
                "attributes": {"uuid": UUID, "name": "n"},
            },
            {"id": 2, "category_id": 5, "segmentation": [flat, overlapping], "more": 1},
            {"id": 3, "category_id": 5, "segmentation": {"size": [1, 1], "counts": [1]}},
            {"id": 4, "category_id": 5, "segmentation": []},
        )
    )
    assert [each.geometry.area for each in found] == [100, 175]
    assert (found[0].class_name, found[0].class_color, found[0].score) == ("a", "#ff0000", 0.5)
    assert (found[0].uuid, found[0].name, found[1].class_color) == (UUID, "n", None)
    assert losses(report) == {
        "supercategory of a category": 1,
        "“more” of the annotation": 1,
        "run-length mask (layers hold polygons)": 1,
        "annotation without a segmentation (layers hold polygons)": 1,
    }
    assert (report.format, report.read, report.kept) == (coco.FORMAT, 4, 2)
    assert "category_id is of no category" in refused(coco_file({"category_id": 4, "segmentation": [flat]}))
    assert "exactly one image" in refused(coco_file(images=[{}, {}]))
    assert "not a list of numbers" in refused(coco_file({"category_id": 3, "segmentation": [[1, 2, 3]]}))
    assert "whole number" in refused(coco_file(categories=[{"id": "a"}]))


def test_coco_is_written_as_its_readers_take_it():
    holed = shapely.Polygon(SQUARE, [HOLE])
    features = [
        Feature(shapely.MultiPolygon([holed, shapely.box(40, 40, 41, 42)]), UUID, "b", "#0000ff", score=0.25),
        Feature(shapely.box(0.5, 0, 1, 1), UUID.replace("c5", "d5"), "a", name="n", metadata={"k": "v"}),
    ]
    text, report = write("coco", features)
    value = json.loads(text)
    assert value["images"] == [{"id": 1, "file_name": "a slide", "width": 1000, "height": 800}]
    assert [(each["id"], each["name"]) for each in value["categories"]] == [(1, "a"), (2, "b")]
    first = value["annotations"][0]
    assert (first["id"], first["image_id"], first["category_id"], first["iscrowd"]) == (1, 1, 2, 0)
    assert (first["area"], first["bbox"], first["score"]) == (100 - 9 + 2, [10, 10, 31, 32], 0.25)
    assert [len(ring) for ring in first["segmentation"]] == [8, 8] and len(first["holes"]) == 1
    assert losses(report) == {
        "hole (other programs fill it: COCO’s polygons have none)": 1,
        "metadata (COCO JSON has no place for it)": 1,
    }
    found, again = read(text)
    assert again.lossless
    for one, other in zip(found, features, strict=True):
        assert shapely.equals(one.geometry, other.geometry)
        assert (one.uuid, one.class_name, one.score, one.name) == (
            other.uuid,
            other.class_name,
            other.score,
            other.name,
        )
    assert json.loads(write("coco", [])[0])["annotations"] == []
