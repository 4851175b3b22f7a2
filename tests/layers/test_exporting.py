import json
import tracemalloc
from dataclasses import replace

import orjson
import pytest
import shapely

from tests.formats.outlines import HOLE, SQUARE, annotation, asap, collection, feature, read, square
from tests.formats.qupath_rules import faults_of
from tests.versions import add_slide
from wsi_ml.errors import BadRequestError, UnknownLayerError, UnknownSlideError
from wsi_ml.formats.canvas import Canvas
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.writing import WRITERS
from wsi_ml.geometry import Size
from wsi_ml.layers.exporting import export_layer, file_name
from wsi_ml.layers.file_features import write_copy
from wsi_ml.layers.importing import import_layer, read_for_slide
from wsi_ml.layers.layer import NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

BASE_SIZE = Size(1024, 1024)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = Library.create(tmp_path_factory.mktemp("library"))
    slide_id = add_slide(library, "slide ½", BASE_SIZE)[0]
    path = library.root / "scored.geojson"
    rows = [("a", 0.2999), ("a", 0.3), ("b", 0.29996), ("b", None), ("c", 1.0)]
    path.write_bytes(
        collection(
            *[
                feature(
                    [square(20 * n, 20, 10)],
                    properties={
                        "classification": {"name": name, "color": [n, 0, 0]} if name != "b" else name,
                        "measurements": {} if score is None else {"score": score},
                    },
                )
                for n, (name, score) in enumerate(rows)
            ]
        )
    )
    layer, _ = import_layer(library.root, slide_id, path, kind="prediction")
    return library, slide_id, layer


def test_filters_keep_what_the_viewer_keeps(library):
    library, slide_id, layer = library
    store = LayerStore(library.root)

    def exported(**query):
        export = export_layer(library.root, slide_id, layer.id, **query)
        found, _ = read(b"".join(export.chunks))
        assert export.report.read == export.report.kept == len(found)
        return sorted((each.class_name, each.score or -1) for each in found)

    assert layer.kind == "prediction" and len(exported()) == 5
    for query in ({"min_score": 0.3}, {"classes": ["b"]}, {"classes": ["a", "c"], "min_score": 0.9}, {"min_score": 1}):
        page = store.features(layer.id, **query)
        assert exported(**query) == sorted((each.class_name, each.score or -1) for each in page.features)
    assert exported(min_score=0.3) == [("a", 0.3), ("b", -1), ("b", 0.29996), ("c", 1.0)]


@pytest.mark.parametrize("format_", [name for name in WRITERS if name != "geoparquet"])
def test_planes_and_image_are_those_asked_for(library, format_):
    library, slide_id, layer = library
    for plane, factor in (("base", 1), ("stored", 2), ("scan", 1)):
        export = export_layer(library.root, slide_id, layer.id, format_, plane=plane, classes=["c"])
        text = b"".join(export.chunks)
        ((found,), _) = read(text)
        assert shapely.get_coordinates(found.geometry).tolist() == [
            [x / factor, y / factor] for x, y in square(80, 20, 10)
        ]
        if format_ == "coco":
            image = json.loads(text)["images"][0]
            assert (image["width"], image["file_name"]) == (1024 // factor, "slide ½")
    assert export.file_name == f"slide_½-scored{WRITERS[format_].suffix}"


def test_a_plane_that_the_other_program_does_not_show_is_noted(library):
    library, slide_id, layer = library
    for format_, plane, noted in (("asap", "base", False), ("asap", "stored", True), ("geojson", "stored", False)):
        export = export_layer(library.root, slide_id, layer.id, format_, plane=plane)
        assert bool(export.report.notes) == noted
    text = asap(annotation(SQUARE[:-1]))
    for plane, noted in (("base", False), ("scan", False), ("stored", True)):
        _, report = read_for_slide(text, library.card(slide_id), plane=plane)
        assert bool(report.notes) == noted and report.lossless
    assert report.lines()[-1].startswith("note: The coordinates were taken as pixels of the plane “stored”")
    assert LossReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert LossReport.from_json({"format": "a", "read": 1, "kept": 1, "losses": [], "repairs": []}).notes == []


def test_what_is_wrong_is_said_before_anything_is_written(library):
    library, slide_id, layer = library
    for error, words, arguments, query in (
        (BadRequestError, "no format “shp”", (slide_id, layer.id, "shp"), {}),
        (BadRequestError, "no plane “moon”", (slide_id, layer.id), {"plane": "moon"}),
        (BadRequestError, "no class “d”; it has a, b, c", (slide_id, layer.id), {"classes": ["a", "d"]}),
        (UnknownLayerError, "no layer", (slide_id, "nothing"), {}),
        (UnknownLayerError, "no layer", ("nobody", layer.id), {}),
    ):
        with pytest.raises(error, match=words):
            export_layer(library.root, *arguments, **query)
    library.remove(other := add_slide(library, "other", BASE_SIZE, seed=3)[0])
    with pytest.raises((UnknownSlideError, UnknownLayerError)):
        export_layer(library.root, other, layer.id)


def test_file_names_are_tame(library):
    layer = library[2]
    for slide, name, wanted in (
        ("../..", "a/b\\c:d\r\ne", "a_b_c_d_e.xml"),
        ("", ".bashrc", "bashrc.xml"),
        ("x" * 500, 'y"; rm', f"{'x' * 80}-y_rm.xml"),
        ("/", "//", f"{layer.id}.xml"),
        ("Ünïcode 1.svs", "(2)", "Ünïcode_1.svs-(2).xml"),
    ):
        assert file_name(slide, replace(layer, name=name), ".xml") == wanted


def test_asap_in_and_out_of_the_store(library, tmp_path):
    library, slide_id, _ = library
    path = tmp_path / "outlines.xml"
    group = '<Group Name="tumor" PartOfGroup="None" Color="#0000ff"><Attributes/></Group>'
    path.write_bytes(asap(annotation(SQUARE[:-1], PartOfGroup="tumor", Type="Spline", Name="n"), groups=group))
    layer, report = import_layer(library.root, slide_id, path, kind="annotation")
    assert (layer.kind, layer.name, layer.colors) == ("annotation", "outlines", {"tumor": "#0000ff"})
    assert layer.provenance["report"] == report.to_json() and report.format == "ASAP XML"
    again, same = import_layer(library.root, slide_id, path, kind="annotation")
    assert (again.id, same) == (layer.id, report)
    export = export_layer(library.root, slide_id, layer.id, "asap")
    ((found,), _) = read(b"".join(export.chunks))
    assert (found.class_name, found.class_color, found.color, found.name) == ("tumor", "#0000ff", "#f4fa58", "n")
    assert found.metadata == {"ASAP type": "Spline"} and list(export.report.losses) == [
        "id (ASAP XML has no place for it)"
    ]
    assert faults_of(b"".join(export_layer(library.root, slide_id, layer.id).chunks)) == []


@pytest.mark.parametrize("format_", [name for name in WRITERS if name != "geoparquet"])
def test_memory_does_not_grow_with_the_layer(format_):
    """Four times the features, the same peak."""
    geometry = shapely.Polygon(SQUARE, [HOLE])

    def peak(count):
        features = (
            Feature(geometry, f"{n:08x}-0000-4000-8000-000000000000", f"class {n % 3}", score=0.5) for n in range(count)
        )
        tracemalloc.start()
        canvas = {f"class {n}": "#000000" for n in range(3)}
        report = LossReport("test")
        written = sum(len(chunk) for chunk in WRITERS[format_].write(features, Canvas(canvas, "", BASE_SIZE), report))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.kept == count and written > 80 * count
        return found

    assert peak(8192) < 1.5 * peak(2048) + (1 << 18)


def test_geoparquet_keeps_everything(library):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra gis) is not installed")
    import pyarrow

    library, slide_id, layer = library
    export = export_layer(library.root, slide_id, layer.id, "geoparquet", plane="stored", min_score=0.3)
    table = parquet.read_table(pyarrow.BufferReader(b"".join(export.chunks)))
    assert orjson.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]["encoding"] == "WKB"
    rows = table.to_pylist()
    wanted = [each for each in LayerStore(library.root).all_features(layer.id) if each.score != 0.2999]
    assert len(rows) == len(wanted) == export.report.kept == 4 and export.report.lossless
    for row, each in zip(rows, wanted, strict=True):
        assert (row["id"], row["class"], row["score"]) == (each.uuid, each.class_name, each.score)
        assert row["class_color"] == each.class_color and row["object_type"] == each.object_type
        assert shapely.from_wkb(row["geometry"]).area == each.geometry.area / 4


def test_geoparquet_without_pyarrow_says_what_to_install(library, monkeypatch):
    library, slide_id, layer = library
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BadRequestError, match=r"pip install 'ocular-wsi\[gis\]'"):
        export_layer(library.root, slide_id, layer.id, "geoparquet")


def test_predictions_kept_in_a_file_are_exported_too(library, tmp_path):
    library, slide_id, _ = library
    store = LayerStore(library.root)
    staged = library.root / "staged.features"
    made = [Feature(shapely.box(10 * n, 10, 10 * n + 5, 20), f"{n}", "ab"[n % 2], score=n / 100) for n in range(100)]
    facts = write_copy(staged, ["a", "b"], BASE_SIZE, [made])
    new = NewLayer(slide_id, library.slide(slide_id).current, "nuclei", "prediction", {"kind": "instance"})
    layer = store.publish_file(new, staged, facts, {"a": "#ff0000", "b": None}, None)
    export = export_layer(library.root, slide_id, layer.id, classes=["a"], min_score=0.5)
    text = b"".join(export.chunks)
    assert faults_of(text) == []
    found, _ = read(text)
    assert sorted(each.score for each in found) == [n / 100 for n in range(50, 100, 2)]
    assert {(each.class_name, each.class_color, each.object_type) for each in found} == {("a", "#ff0000", "detection")}
    assert {each.geometry.area for each in found} == {50}
