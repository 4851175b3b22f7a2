import gzip
import json
import math
import random
import re
import uuid

import orjson
import pytest
import shapely

from tests.conftest import PROJECT_ROOT
from tests.formats import outlines
from tests.formats.outlines import HOLE, SQUARE, collection, feature, square
from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats import files, geojson
from wsi_ml.formats.document import JsonDocument, open_document
from wsi_ml.formats.feature import UNCLASSIFIED
from wsi_ml.formats.qupath import OBJECT_TYPES
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Repairer
from wsi_ml.formats.values import NAME_LIMIT

UUID = "c5badd12-d986-4fd7-8926-74d209f672c3"


def read(text, repair=False):
    document = open_document(text)
    assert isinstance(document, JsonDocument)
    report = LossReport(geojson.FORMAT)
    return [found for _, found in geojson.read_features(document, Repairer(report, repair))], report


def refused(text):
    with pytest.raises(AnnotationFileError) as caught:
        read(text)
    return str(caught.value)


def test_new_qupath_feature_is_read_whole():
    found, report = read(
        collection(
            feature(
                [SQUARE, HOLE],
                id=UUID,
                properties={
                    "objectType": "detection",
                    "classification": {"name": "Tumor", "color": [200, 0, 10]},
                    "name": "focus 1",
                    "color": [0, 255, 0],
                    "isLocked": True,
                    "measurements": {"Area µm^2": 12.5, "Solidity": "NaN", "score": 0.75},
                    "metadata": {"reader": "A"},
                },
            )
        )
    )
    (one,) = found
    assert report.lossless and (report.read, report.kept) == (1, 1)
    assert (one.uuid, one.class_name, one.class_color, one.color) == (UUID, "Tumor", "#c8000a", "#00ff00")
    assert (one.object_type, one.name, one.locked, one.score) == ("detection", "focus 1", True, 0.75)
    assert one.measurements == {"Area µm^2": 12.5, "Solidity": "NaN"} and one.metadata == {"reader": "A"}
    assert one.geometry.area == 100 - 9 and len(one.geometry.interiors) == 1


def test_old_qupath_array_is_read():
    old = feature(
        [SQUARE],
        id="PathDetectionObject",
        properties={
            "classification": {"name": "Tumor", "colorRGB": -3670016},
            "isLocked": True,
            "measurements": [{"name": "Area", "value": 3}],
        },
    )
    (one,), report = read(orjson.dumps([old]))
    assert report.lossless
    assert (one.class_color, one.object_type, one.measurements) == ("#c80000", "detection", {"Area": 3})
    assert uuid.UUID(one.uuid).version == 4


def test_single_feature_bom_gzip_and_derived_classes(tmp_path):
    one = feature([SQUARE], properties={"classification": {"names": ["Tumor", "Positive"]}, "object_type": "cell"})
    path = tmp_path / "one.geojson.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + orjson.dumps(one)))
    (found,), _ = read(files.read_bytes(path))
    assert (found.class_name, found.object_type) == ("Tumor: Positive", "cell")


def test_what_is_not_kept_stands_in_the_report():
    found, report = read(
        collection(
            feature([1, 2], "Point"),
            feature([[0, 0], [1, 1]], "LineString"),
            {"type": "Feature", "geometry": None, "properties": None},
            feature([[[*point, 5] for point in SQUARE]], id="17", properties={"odd": 1, "color": "red"}),
            feature([SQUARE], nucleusGeometry={}, properties={"classification": None}),
        )
    )
    assert [each.class_name for each in found] == [UNCLASSIFIED] * 2
    assert {entry.what: entry.features for entry in report.losses.values()} == {
        "feature with a Point (layers hold polygons)": [0],
        "feature with a LineString (layers hold polygons)": [1],
        "feature with no geometry (layers hold polygons)": [2],
        "third coordinate (z) of points": [3],
        "property “odd”": [3],
        "id that is not a UUID (a new one was given)": [3],
        "color that is not three whole numbers 0 to 255": [3],
        "“nucleusGeometry” of the feature": [4],
    }
    assert (report.read, report.kept, report.lossless) == (5, 2, False)
    assert LossReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.lines()[1] == "lost: feature with a Point (layers hold polygons) (×1; features 0)"


BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
FINE = feature([SQUARE])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (feature([SQUARE[:-1]]), ["ring 0", "not closed", "(10, 10)", "(10, 20)", "Repeat (10, 10) at the end"]),
        (feature([SQUARE, HOLE[:-1]]), ["ring 1 (a hole)", "not closed", "(12, 12)"]),
        (feature([[[0, 0], [5, 5], [0, 0]]]), ["ring 0", "(0, 0)", "3 points", "at least 4"]),
        (feature([[]]), ["ring 0", "0 points"]),
        (feature([BOW_TIE]), ["ring 0", "crosses itself", "(5, 5)"]),
        (feature([SQUARE, square(30, 30, 5)]), ["ring 1 (a hole)", "hole lies outside", "(30, 30)"]),
        (feature([SQUARE, square(18, 12, 5)]), ["ring 1 (a hole)", "crosses itself", "(20, 17)"]),
        (feature([square(0, 0, 50), square(10, 10, 20), square(20, 20, 20)]), ["ring 2 (a hole)", "(20, 30)"]),
        (feature([square(0, 0, 50), square(10, 10, 20), square(12, 12, 4)]), ["ring 2", "inside another", "(12, 12)"]),
        (feature([[[0, 0], [5, 5], [9, 9], [0, 0]]]), ["ring 0", "no area", "(0, 0)"]),
        (feature([[SQUARE], [BOW_TIE]], "MultiPolygon"), ["polygon 1, ring 0", "crosses itself", "(5, 5)"]),
        (feature([[SQUARE], [square(15, 15, 9)]], "MultiPolygon"), ["polygon 1", "crosses itself", "(20, 15)"]),
        (feature([[[0, 0], [5, None], [9, 9], [0, 0]]]), ["ring 0, point 1", "[5, None]", "[x, y] in numbers"]),
        (feature([[[0, 0], [5, "4"], [9, 9], [0, 0]]]), ["ring 0, point 1"]),
        (feature([[[0, 0], [True, 4], [9, 9], [0, 0]]]), ["ring 0, point 1"]),
        (feature([[[0, 0], [1], [9, 9], [0, 0]]]), ["ring 0, point 1"]),
        (feature([[0, 0, 1, 1, 0, 0]]), ["ring 0, point 0"]),
        (feature([[[0, 0], [1, 0], [1, -1e308], [0, 0]]]), ["ring 0, point 2", "(1, -1e+308)", "on no slide"]),
        (feature([SQUARE], ["Polygon"]), ["not a Polygon or MultiPolygon"]),
        (feature({"a": 1}), ["list of at least one ring"]),
        (feature([], "MultiPolygon"), ["at least one polygon"]),
        (feature([SQUARE], "Circle"), ["“Circle”"]),
        ({"type": "Feature", "geometry": 7}, ["not a Polygon or MultiPolygon"]),
        ({"type": "Fature"}, ["not a GeoJSON Feature"]),
        ([1], ["not a GeoJSON Feature"]),
        (feature([SQUARE], properties=[1]), ["“properties” is not an object"]),
        (feature([SQUARE], properties={"name": "x" * 257}), ["“name”", "256 characters"]),
        (feature([SQUARE], properties={"classification": {"name": 5}}), ["“classification.name”"]),
        (feature([SQUARE], properties={"classification": [1]}), ["“classification”"]),
    ],
)
def test_each_fault_is_named_with_feature_ring_and_coordinate(bad, words):
    sentence = refused(collection(FINE, FINE, bad))
    assert sentence.startswith("Feature 2 (counted from 0)")
    assert [word for word in words if word not in sentence] == []


def test_damaged_files_are_refused_or_read_and_never_anything_else():
    good = collection(
        feature([SQUARE, HOLE], id=UUID, properties={"classification": {"name": 'a"b', "color": [1, 2, 3]}}),
        feature([[SQUARE], [square(40, 40, 5)]], "MultiPolygon", properties={"measurements": {"x": "NaN"}}),
    )
    tokens = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b'"',
        b"\\",
        b"null",
        b"NaN",
        b"1e308",
        b"9" * 30,
        b"\xff",
        b'"type":',
        b"[]",
    ]
    rng = random.Random(4)
    answers = set()
    for _ in range(1500):
        text = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 30)] = rng.choice(tokens)
        for repair in (False, True):
            try:
                found, _ = read(bytes(text), repair)
            except AnnotationFileError:
                answers.add("refused")
            else:
                answers.add("read")
                assert all(each.geometry.is_valid and each.geometry.area > 0 for each in found)
    assert answers == {"refused", "read"}


def test_an_id_used_twice_is_refused():
    assert "Feature 1" in outlines.refused(collection(feature([SQUARE], id=UUID), feature([SQUARE], id=UUID.upper())))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-" + "9" * 400])
def test_what_is_not_a_number_is_refused_in_its_feature(number):
    text = collection(FINE, feature([[["X", 1], *SQUARE]])).replace(b'"X"', number.encode())
    assert refused(text).startswith("Feature 1 (counted from 0) is not valid JSON")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xef\xbb\xbf", "not valid JSON"),
        (b"null", "not GeoJSON"),
        (b'{"positive": [{"vertices": [[1, 2]]}]}', "not GeoJSON"),
        (b'{"type": "FeatureCollection"}', "not GeoJSON"),
        (b'{"type": "FeatureCollection", "features": {}}', "not GeoJSON"),
        (b'{"type": "FeatureCollection", "features": [], "features": []}', "“features” twice"),
        ('{"type": "FeatureCollection"}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_files_that_are_not_geojson_are_refused(text, words):
    assert words in refused(text)


def test_repair_mends_and_lists():
    bad = [
        feature([SQUARE[:-1]]),
        feature([BOW_TIE]),
        feature([SQUARE, HOLE[:3]]),
        feature([[[0, 0], [5, 5], [9, 9], [0, 0]]]),
    ]
    found, report = read(collection(*bad, FINE), repair=True)
    assert [round(each.geometry.area, 9) for each in found] == [100, 50, 100 - 4.5, 100]
    assert found[1].geometry.geom_type == "MultiPolygon"
    assert all(each.geometry.is_valid for each in found)
    assert {entry.what: entry.features for entry in report.repairs.values()} == {
        "open ring closed": [0, 2],
        "the outline crosses itself: made valid": [1],
        "the polygon has no area: made valid": [3],
    }
    assert (report.read, report.kept) == (5, 4)


def test_limits_and_unreadable_files(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BYTE_LIMIT", 1000)
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(b" " * 100_000))
    cut_short = tmp_path / "cut.gz"
    cut_short.write_bytes(gzip.compress(collection(FINE))[:-20])
    for path, words in (
        (bomb, "larger than"),
        (cut_short, "damaged, cut short"),
        (tmp_path / "none.json", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(AnnotationFileError, match=words):
            files.read_bytes(path)


def test_writing_and_reading_again_keeps_everything():
    awkward = [[[0.1, 1 / 3], [1e-6, 50.000001], [99999.123456789, 7e4], [0.1, 1 / 3]]]
    first, _ = read(
        collection(
            feature(awkward, id=UUID, properties={"classification": {"name": "<b>é\u202e", "color": [1, 2, 3]}}),
            feature(
                [[SQUARE, HOLE], [square(30, 30, 3)]],
                "MultiPolygon",
                properties={"measurements": {"score": 0.5, "a": "Infinity"}, "isLocked": True, "name": "n"},
            ),
        )
    )
    colors = {"<b>é\u202e": "#010203", UNCLASSIFIED: "#777777"}
    text = b"".join(geojson.write_features(first, colors, total=2, truncated=False))
    assert orjson.loads(text)["total"] == 2
    second, report = read(text)
    assert {entry.what for entry in report.losses.values()} == {
        "“total” of the collection",
        "“truncated” of the collection",
    }
    assert second == first
    assert shapely.equals_exact(second[0].geometry, first[0].geometry, 0)


def test_written_features_obey_qupath():
    features, _ = read(
        collection(*[feature([square(n, n, 1)], properties={"classification": "A"}) for n in range(1500)])
    )
    text = b"".join(geojson.write_features(features, {"A": "#ff8000"}))
    values = orjson.loads(text)["features"]
    assert len(values) == 1500 and len({value["id"] for value in values}) == 1500
    for value in values:
        assert uuid.UUID(value["id"])
        assert value["properties"] == {
            "objectType": "annotation",
            "classification": {"name": "A", "color": [255, 128, 0]},
        }
        assert value["geometry"]["coordinates"][0][0] == value["geometry"]["coordinates"][0][-1]
    assert orjson.loads(b"".join(geojson.write_features([], {}))) == {"type": "FeatureCollection", "features": []}


def test_the_schema_in_the_docs_names_what_the_code_writes():
    schema = json.loads((PROJECT_ROOT / "docs" / "features.schema.json").read_bytes())["$defs"]["feature"]
    properties = schema["properties"]["properties"]["properties"]
    everything = {
        "objectType": "cell",
        "classification": {"name": "A", "color": [1, 2, 3]},
        "name": "n",
        "color": [3, 2, 1],
        "isLocked": True,
        "measurements": {"score": 0.5, "x": "NaN"},
        "metadata": {"k": "v"},
    }
    (one,), _ = read(collection(feature([SQUARE], properties=everything)))
    written = orjson.loads(b"".join(geojson.write_features([one], {"A": "#010203"})))["features"][0]
    assert written["properties"] == everything
    assert set(properties) == set(everything) and set(schema["properties"]) == set(written)
    assert set(properties["objectType"]["enum"]) == OBJECT_TYPES
    assert properties["name"]["maxLength"] == NAME_LIMIT


REAL = {
    "geojson-puma/training_set_metastatic_roi_009_nuclei.geojson": 502,
    "geojson-puma/training_set_metastatic_roi_055_nuclei.geojson": 1118,
    "geojson-puma/training_set_metastatic_roi_074_nuclei.geojson": 428,
    "geojson-puma/training_set_metastatic_roi_101_nuclei.geojson": 382,
    "geojson-puma/training_set_primary_roi_013_nuclei.geojson": 447,
    "geojson-puma/training_set_primary_roi_066_nuclei.geojson": 235,
    "qupath/TCGA-EJ-5519-01Z-00-DX1.qupath02.json": 3,
    "qupath/dlup-qupath05.geojson": 3,
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_load_without_loss_and_round_trip(shared_data, name):
    text = files.read_bytes(shared_data / "annot-import" / name)
    raw = json.loads(text)
    raw = raw if isinstance(raw, list) else raw["features"]
    found, report = read(text)
    assert len(found) == REAL[name] == len(raw) and report.lossless
    for one, value in zip(found, raw, strict=True):
        flat = [float(number) for number in re.findall(r"[-+\d.eE]+", json.dumps(value["geometry"]["coordinates"]))]
        assert shapely.get_coordinates(one.geometry).ravel().tolist() == flat
    colors = {each.class_name: each.class_color or "#000000" for each in found}
    again, _ = read(b"".join(geojson.write_features(found, colors)))
    assert [each.geometry.wkb for each in again] == [each.geometry.wkb for each in found]
    assert [each.class_name for each in again] == [each.class_name for each in found]
    assert [each.class_color for each in again if each.class_color] == [c.class_color for c in found if c.class_color]


def test_parts_that_overlap_are_mended_into_one():
    text = collection(feature([[square(0, 0, 10)], [square(5, 5, 10)]], "MultiPolygon"))
    assert refused(text).startswith("Feature 0 (counted from 0), polygon ")
    (found,), report = read(text, repair=True)
    assert found.geometry.area == 175 and len(report.repairs) == 1


def test_a_tangled_outline_is_named_and_not_repaired_for_ever():
    turns = [2.399963 * n for n in range(1500)]
    star = [[5000 + 4000 * math.cos(turn), 5000 + 4000 * math.sin(turn)] for turn in turns]
    text = collection(feature([[*star, star[0]]]))
    assert "crosses itself" in refused(text)
    with pytest.raises(AnnotationFileError, match=r"Feature 0 .* too tangled to repair"):
        read(text, repair=True)
