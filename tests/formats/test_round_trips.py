"""Every format written and read again: geometry, classes, colours, scores and holes, by property and on real files."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.outlines import read, write
from tests.formats.qupath_rules import faults_of
from wsi_ml.formats.feature import UNCLASSIFIED, Feature
from wsi_ml.formats.files import read_bytes
from wsi_ml.formats.writing import WRITERS

TOLERANCE_PX = 1e-3
KEPT = {
    "geojson": {"id", "class", "class_color", "score", "name", "color", "holes", "parts", "type", "rest"},
    "asap": {"class", "class_color", "name", "color", "holes"},
    "imagescope": {"class", "class_color", "name", "score", "holes"},
    "coco": {"id", "class", "class_color", "name", "score", "holes", "parts"},
    "msu": {"class"},
}
"""What each format keeps, as docs/formats.md says; geoparquet is only written."""

# Texts that XML can hold: anything but controls, surrogates and the two noncharacters.
TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1, max_size=12
)
COLORS = st.integers(0, 0xFFFFFF).map(lambda n: f"#{n:06x}")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def features(draw) -> list[Feature]:
    """Some features in cells of their own, with holes and parts, of up to three classes with one colour each."""
    names = draw(st.lists(TEXTS.filter(lambda name: name != "None"), min_size=1, max_size=3, unique=True))
    classes = {name: draw(COLORS) for name in names}
    made = []
    for number in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from([*names, UNCLASSIFIED]))
        scored = draw(st.none() | st.floats(0, 1))
        made.append(
            Feature(
                draw(shapes(number * 300)),
                str(uuid.UUID(int=draw(st.integers(0, 2**128 - 1)))),
                name,
                classes.get(name),
                draw(st.sampled_from(["annotation", "detection", "cell", "tile"])),
                scored,
                draw(st.none() | TEXTS),
                draw(st.none() | COLORS),
                draw(st.booleans()),
                draw(st.dictionaries(TEXTS.filter(lambda key: key != "score"), NUMBERS | st.just("NaN"), max_size=2)),
                draw(st.dictionaries(TEXTS.filter(lambda key: key != "score"), TEXTS, max_size=2)),
            )
        )
    ids = {feature.uuid for feature in made}
    return made if len(ids) == len(made) else made[:1]


@st.composite
def shapes(draw, x: int) -> shapely.Geometry:
    """A polygon, or two, in a cell of 300 px at x, with awkward coordinates and up to two holes."""
    wobble = draw(st.floats(0, 0.9))
    outline = shapely.Polygon([(x + wobble, 1 / 3), (x + 100.1, wobble), (x + 99.7 + wobble, 100), (x, 99.123456789)])
    holes = [shapely.box(x + 10, 10 + wobble, x + 30.7, 40), shapely.box(x + 50, 50, x + 50.5 + wobble, 51 / 0.99)]
    for hole in holes[: draw(st.integers(0, 2))]:
        outline = shapely.Polygon(outline.exterior, [*outline.interiors, hole.exterior])
    if draw(st.booleans()):
        return shapely.MultiPolygon([outline, shapely.box(x + 150, 0.1, x + 151 + wobble, 7)])
    return outline


def as_kept(feature: Feature, kept: set[str]) -> list[Feature]:
    """The features that come back of one, when a format keeps only what is named."""
    geometry = feature.geometry
    if "holes" not in kept:
        parts = [shapely.Polygon(part.exterior) for part in shapely.get_parts(geometry)]
        geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    whole = replace(
        feature,
        geometry=geometry,
        uuid=feature.uuid if "id" in kept else "",
        class_color=feature.class_color if "class_color" in kept and feature.class_name != UNCLASSIFIED else None,
        score=feature.score if "score" in kept else None,
        name=feature.name if "name" in kept else None,
        color=feature.color if "color" in kept else None,
        object_type=feature.object_type if "type" in kept else "annotation",
        locked=feature.locked if "rest" in kept else False,
        measurements=feature.measurements if "rest" in kept else {},
        metadata=feature.metadata if "rest" in kept else {},
    )
    return [whole] if "parts" in kept else [replace(whole, geometry=part) for part in shapely.get_parts(geometry)]


def assert_same(found: list[Feature], wanted: list[Feature], format_: str) -> None:
    kept = KEPT[format_]
    wanted = [part for each in wanted for part in as_kept(each, kept)]
    if format_ == "imagescope":  # by class
        wanted.sort(key=lambda each: each.class_name)
    found = [part for each in found for part in as_kept(each, kept)]
    assert [replace(each, geometry=None) for each in found] == [replace(each, geometry=None) for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert shapely.equals_exact(one.geometry, other.geometry, TOLERANCE_PX, normalize=True)


@pytest.mark.parametrize("format_", KEPT)
@settings(max_examples=60, deadline=None)
@given(made=features())
def test_what_a_format_holds_comes_back(format_, made):
    # A colour of its own that is its class's cannot be told from none, which draws the same.
    made = [replace(each, color=None) if each.color == (each.class_color or "#0072b2") else each for each in made]
    text, report = write(format_, made, {UNCLASSIFIED: "#0072b2"})
    assert (report.read, report.kept) == (len(made), len(made))
    found, _ = read(text)
    if format_ == "asap":  # ASAP wants a colour for every annotation: an unclassified one keeps that as its own
        made = [
            replace(each, color=each.color or "#0072b2") if each.class_name == UNCLASSIFIED else each for each in made
        ]
    assert_same(found, made, format_)
    if format_ == "geojson":
        assert faults_of(text) == []


@settings(max_examples=40, deadline=None)
@given(made=features())
def test_whatever_is_not_kept_is_in_the_report(made):
    for format_, kept in KEPT.items():
        _, report = write(format_, made)
        lost = " ".join(report.losses)
        for word, present in {
            "id": True,
            "score": any(each.score is not None for each in made),
            "name": any(each.name is not None for each in made),
            "hole": any(part.interiors for each in made for part in shapely.get_parts(each.geometry)),
            "parts": any(each.geometry.geom_type == "MultiPolygon" for each in made),
            "measurements": any(each.measurements for each in made),
            "metadata": any(each.metadata for each in made),
            "locked": any(each.locked for each in made),
            "object type": any(each.object_type != "annotation" for each in made),
        }.items():
            held = {"hole": "holes", "object type": "type", "measurements": "rest", "locked": "rest"}.get(word, word)
            held_too = format_ == "geojson" or (format_ == "imagescope" and word == "metadata")
            if present and held not in kept and not held_too:
                assert re.search(rf"\b{word}\b", lost), (format_, word)
        assert format_ != "geojson" or report.lossless


REAL = {
    "asap-xml": "asap",
    "imagescope-xml": "imagescope",
    "geojson-puma": "geojson",
    "qupath": "geojson",
    "camelyon16-json": "msu",
}


def real_files(shared_data: Path) -> list[tuple[Path, str]]:
    root = shared_data / "annot-import"
    found = [(path, format_) for folder, format_ in REAL.items() for path in sorted((root / folder).iterdir())]
    assert len(found) == 17
    return found


def test_every_real_file_loads_and_round_trips_in_every_format(shared_data):
    counts = {}
    for path, own in real_files(shared_data):
        text = read_bytes(path)
        # CAMELYON's and ImageScope's outlines cross themselves: those are mended, and listed.
        first, report = read(text, repair=own in ("asap", "imagescope"))
        assert all(each.geometry.is_valid for each in first) and report.kept == len(first)
        counts[path.name] = len(first)
        colors = {each.class_name: each.class_color for each in first if each.class_color}
        written, _ = write(own, first, colors)
        second, again = read(written)
        assert not again.repairs
        coloured = [replace(each, class_color=each.class_color or "#0072b2") for each in first]
        if own == "msu":  # its classes have colours of their own, or none
            coloured = first
        assert_same(second, coloured, own)
        as_geojson, _ = write("geojson", first, colors)
        assert faults_of(as_geojson) == []
        for format_ in KEPT.keys() - {own}:
            other, _ = write(format_, first, colors)
            assert shapely.area([each.geometry for each in read(other, repair=format_ == "msu")[0]]).sum() >= (
                shapely.area([each.geometry for each in first]).sum() * (1 - 1e-9)
            )
    assert counts == {
        "tumor_009.xml": 6,
        "tumor_046.xml": 5,
        "tumor_076.xml": 39,
        "tumor_085.xml": 50,
        "TCGA-EJ-5519-01Z-00-DX1.xml": 3,
        "training_set_metastatic_roi_009_nuclei.geojson": 502,
        "training_set_metastatic_roi_055_nuclei.geojson": 1118,
        "training_set_metastatic_roi_074_nuclei.geojson": 428,
        "training_set_metastatic_roi_101_nuclei.geojson": 382,
        "training_set_primary_roi_013_nuclei.geojson": 447,
        "training_set_primary_roi_066_nuclei.geojson": 235,
        "TCGA-EJ-5519-01Z-00-DX1.qupath02.json": 3,
        "dlup-103S.json": 12,
        "dlup-qupath05.geojson": 3,
        "Tumor_002.json": 1,
        "Tumor_071.json": 41,
        "Tumor_081.json": 1,
    }


def test_real_files_are_what_their_makers_wrote(shared_data):
    root = shared_data / "annot-import"
    points = {}
    for path in sorted((root / "camelyon16-json").iterdir()):
        raw = orjson.loads(path.read_bytes())
        found, report = read(path.read_bytes())
        assert report.lossless and report.format == "NCRF JSON"
        for one, value in zip(found, raw["positive"], strict=True):
            assert shapely.get_coordinates(one.geometry)[:-1].tolist() == value["vertices"]
        points[path.name] = sum(shapely.get_num_coordinates(each.geometry) - 1 for each in found)
    assert points["Tumor_002.json"] == 866 and points["Tumor_081.json"] == 87
    # QuPath and ImageScope hold outlines of the same slide; its colours tell that LineColor is blue, green, red.
    found, report = read((root / "imagescope-xml/TCGA-EJ-5519-01Z-00-DX1.xml").read_bytes(), repair=True)
    assert [(each.class_name, each.class_color) for each in found] == [
        ("CaP", "#00ff00"),
        ("Layer 3", "#ff0000"),
        ("Layer 4", "#00ffff"),
    ]
    assert found[1].geometry.area == pytest.approx(1_064_952.4, abs=0.1)  # the Area its maker wrote
    found, report = read((root / "qupath/dlup-103S.json").read_bytes())
    assert (report.read, report.kept, list(report.losses)) == (17, 12, ["keypoint (layers hold polygons)"])
    text = (root / "asap-xml/tumor_076.xml").read_bytes()
    found, report = read(text, repair=True)
    raw = [float(number) for number in re.findall(rb'X="([\d.]+)"', text.split(b"</Annotation>")[1])]
    assert shapely.get_coordinates(found[1].geometry)[:-1, 0].tolist() == raw
    assert {(each.class_name, each.class_color, each.color) for each in found} == {
        ("metastasis", "#64fe2e", "#00aa00"),
        ("metastasis", "#64fe2e", "#f4fa58"),
    }


def test_the_table_names_every_writer():
    assert KEPT.keys() | {"geoparquet"} == WRITERS.keys()
