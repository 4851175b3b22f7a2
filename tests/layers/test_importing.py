import dataclasses
import json

import orjson
import pytest
import shapely

from tests.formats.outlines import HOLE, SQUARE, collection, feature, square
from tests.versions import add_slide
from wsi_ml.errors import AnnotationFileError, BadRequestError, UnknownLayerError, UnknownSlideError
from wsi_ml.formats import geojson
from wsi_ml.geometry import Size
from wsi_ml.layers.exporting import export_layer
from wsi_ml.layers.importing import import_layer, read_for_slide
from wsi_ml.layers.palette import PALETTE, class_colors
from wsi_ml.layers.planes import plane_map
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

BASE_SIZE = Size(1024, 1024)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = Library.create(tmp_path_factory.mktemp("library"))
    return library, add_slide(library, "one", BASE_SIZE)[0]


def classed(rings, name, **members):
    return feature(rings, properties={"classification": {"name": name}}, **members)


def write(tmp_path, *features):
    path = tmp_path / "outlines.geojson"
    path.write_bytes(collection(*features))
    return path


def test_import_gives_layer_areas_and_provenance(library, tmp_path):
    library, slide_id = library
    path = write(tmp_path, classed([SQUARE, HOLE], "b"), classed([square(5, 5, 2)], "a"), feature([1, 2], "Point"))
    layer, report = import_layer(library.root, slide_id, path)
    assert (layer.name, layer.kind, layer.slide_id) == ("outlines", "truth", slide_id)
    assert layer.version == library.slide(slide_id).current
    assert layer.colors == {"a": PALETTE[0], "b": PALETTE[1]}
    assert (report.read, report.kept) == (3, 2) and not report.lossless
    facts = LayerStore(library.root).layers_json(slide_id, library.card(slide_id))[0]
    assert facts["classes"] == [
        {"name": "a", "color": PALETTE[0], "count": 1, "area_um2": 4 * 0.25**2},
        {"name": "b", "color": PALETTE[1], "count": 1, "area_um2": 91 * 0.25**2},
    ]
    assert facts["provenance"]["source"]["plane"] == "base" and facts["provenance"]["report"]["kept"] == 2
    assert json.dumps(facts)
    again, same_report = import_layer(library.root, slide_id, path)
    assert again == layer and same_report == report
    other, _ = import_layer(library.root, slide_id, path, name="other")
    assert other.id != layer.id
    assert LayerStore(library.root).check() == []


def test_a_refused_file_leaves_no_layer(library, tmp_path):
    library, slide_id = library
    before = LayerStore(library.root).layers(slide_id)
    for bad, words in (
        (classed([SQUARE[:-1]], "a"), r"Feature 1 .*ring 0.*not closed"),
        (classed([square(1020, 5, 7)], "a"), r"Feature 1 .*ring 0.*\(1027, 5\).*outside the slide, 1024 × 1024"),
        (classed([square(-2.5, 5, 7)], "a"), r"Feature 1 .*\(-2.5, 5\).*--plane"),
        (feature([[SQUARE], [square(5000, 5, 7)]], "MultiPolygon"), r"polygon 1, ring 0.*\(5000, 5\)"),
    ):
        with pytest.raises(AnnotationFileError, match=words):
            import_layer(library.root, slide_id, write(tmp_path, classed([SQUARE], "a"), bad))
    with pytest.raises(AnnotationFileError, match=r"no polygon .*Point"):
        import_layer(library.root, slide_id, write(tmp_path, feature([1, 2], "Point")))
    with pytest.raises(BadRequestError, match="no plane “moon”"):
        import_layer(library.root, slide_id, write(tmp_path, classed([SQUARE], "a")), plane="moon")
    with pytest.raises(UnknownSlideError):
        import_layer(library.root, "nobody", write(tmp_path, classed([SQUARE], "a")))
    assert LayerStore(library.root).layers(slide_id) == before


def test_a_little_over_the_edge_is_kept_as_drawn(library):
    library, slide_id = library
    features, report = read_for_slide(collection(classed([square(1019, 5, 7)], "a")), library.card(slide_id))
    assert features[0].geometry.bounds == (1019, 5, 1026, 12) and report.lossless


def test_repair_clips_to_the_slide_and_drops_what_lies_outside(library):
    library, slide_id = library
    text = collection(classed([square(1014, 10, 40)], "a"), classed([square(3000, 10, 40)], "a"))
    features, report = read_for_slide(text, library.card(slide_id), repair=True)
    assert [each.geometry.bounds for each in features] == [(1014, 10, 1024, 50)]
    assert report.repairs["outline clipped to the slide"].features == [0, 1]
    assert (report.read, report.kept) == (2, 1)


def test_planes_are_applied_both_ways(library, tmp_path):
    library, slide_id = library
    card = library.card(slide_id)
    awkward = [[100.1, 200.3], [150.7, 210.9], [130.33, 260.77], [100.1, 200.3]]
    path = write(tmp_path, classed([awkward], "a"))
    for plane in ("base", "stored", "scan"):
        layer, _ = import_layer(library.root, slide_id, path, plane=plane, name=plane)
        (stored,) = LayerStore(library.root).all_features(layer.id)
        factor = 2 if plane == "stored" else 1
        assert shapely.get_coordinates(stored.geometry).tolist() == [[x * factor, y * factor] for x, y in awkward]
        text = b"".join(export_layer(library.root, slide_id, layer.id, plane=plane).chunks)
        assert orjson.loads(text)["features"][0]["geometry"]["coordinates"] == [awkward]
    with pytest.raises(UnknownLayerError):
        export_layer(library.root, slide_id, "nothing")
    # A ×20 scan with bounds: level 0 is half the base plane, and the trimmed margin moves the origin.
    source = dataclasses.replace(card.source, l0_mpp=0.4990, l0_bounds_offset=(1000, 300))
    scanned = dataclasses.replace(card, stored_mpp=0.4995, source=source)
    moved = plane_map("scan", scanned)
    assert moved == (2.0, 1000.0, 300.0)
    point = shapely.box(1010, 320, 1011, 321)
    assert moved.to_base(point).bounds == (20, 40, 22, 42)
    assert moved.from_base(moved.to_base(point)).equals(point)
    assert plane_map("scan", dataclasses.replace(card, source=dataclasses.replace(source, l0_mpp=0.1251)))[0] == 0.5
    assert plane_map("scan", dataclasses.replace(card, source=dataclasses.replace(source, l0_mpp=0.4)))[0] == 1.6


def test_colours_of_classes():
    assert class_colors({}, ["b", "a"]) == {"a": PALETTE[0], "b": PALETTE[1]}
    assert class_colors({"a": PALETTE[0]}, ["b", "a"]) == {"a": PALETTE[0], "b": PALETTE[1]}
    assert len(class_colors({}, map(str, range(40)))) == 40


def test_a_class_of_two_colours_is_reported(library):
    library, slide_id = library
    features = [feature([SQUARE], properties={"classification": {"name": "a", "color": [n, 0, 0]}}) for n in (1, 1, 2)]
    _, report = read_for_slide(collection(*features), library.card(slide_id))
    assert report.losses["class colour that differs from the first of that class"].features == [2]


def test_real_file_round_trips_through_the_store(shared_data, library, tmp_path):
    library, slide_id = library
    path = shared_data / "annot-import/geojson-puma/training_set_metastatic_roi_009_nuclei.geojson"
    layer, report = import_layer(library.root, slide_id, path)
    raw = json.loads(path.read_bytes())["features"]
    assert report.lossless and layer.count == len(raw) == 502
    assert layer.colors == {"nuclei_tumor": "#c80000", "nuclei_apoptosis": "#330033", "nuclei_lymphocyte": "#ff00ff"}
    text = b"".join(export_layer(library.root, slide_id, layer.id).chunks)
    assert orjson.loads(text)["features"] == raw
    assert report.format == geojson.FORMAT
