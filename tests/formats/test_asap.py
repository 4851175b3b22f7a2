import pytest
import shapely

from tests.formats.outlines import annotation, asap, losses, read, refused, square, write
from wsi_ml.formats.asap import FORMAT, TYPE_KEY
from wsi_ml.formats.feature import UNCLASSIFIED, Feature

OPEN = square(10, 10, 10)[:-1]
GROUP = '<Group Name="tumor" PartOfGroup="None" Color="#0000FF"><Attributes /></Group>'


def test_groups_are_classes_with_their_own_colour():
    found, report = read(
        asap(
            annotation(OPEN, Name="focus 1", PartOfGroup="tumor"),
            annotation(OPEN, PartOfGroup="tumor", Color="#0000ff"),
            annotation([(0, 0), (9.5, 0), (9.5, 1e1)], PartOfGroup="unheard", Color="red"),
            groups=GROUP,
        )
    )
    first, second, third = found
    assert (first.class_name, first.class_color, first.color, first.name) == ("tumor", "#0000ff", "#f4fa58", "focus 1")
    assert (second.color, second.name, second.metadata) == (None, None, {})
    assert (third.class_name, third.class_color, third.color) == ("unheard", None, None)
    assert shapely.get_coordinates(first.geometry).tolist() == square(10, 10, 10)
    assert third.geometry.area == 47.5
    assert losses(report) == {"Color that is not #rrggbb": 1}
    assert (report.format, report.read, report.kept) == (FORMAT, 3, 3)


def test_types_are_kept_where_they_surround_something():
    kinds = ("Spline", "Rectangle", "Dot", "PointSet", "Measurement", "None")
    found, report = read(asap(*[annotation(OPEN, Type=kind) for kind in kinds]))
    assert [each.metadata for each in found] == [{TYPE_KEY: "Spline"}, {TYPE_KEY: "Rectangle"}]
    assert {each.class_name for each in found} == {UNCLASSIFIED}
    assert losses(report) == {
        "curve between the points of a Spline (straight edges are kept)": 1,
        **{f"annotation of type {kind} (layers hold polygons)": 1 for kind in kinds[2:]},
    }
    assert (report.read, report.kept) == (6, 2)


def test_whatever_is_not_known_is_counted():
    groups = '<Group Name="tumor" PartOfGroup="all" Color="#0000ff"><Attributes><Attribute a="b"/></Attributes></Group>'
    groups += "<More/>"
    _, report = read(asap(annotation(OPEN, PartOfGroup="tumor", Remark="x"), groups=groups))
    assert losses(report) == {
        "group that a group is part of": 1,
        "attribute of a group": 1,
        "element “More”": 1,
        "attribute “Remark” of the annotation": 1,
    }


def test_order_is_honoured():
    x_y = ['Order="2" X="4" Y="4"', 'Order="0" X="0" Y="0"', 'Order="1" X="4" Y="0"']
    one = '<Annotation Type="Polygon"><Coordinates>{}</Coordinates></Annotation>'
    corners = "".join(f"<Coordinate {each}/>" for each in x_y)
    (found,), report = read(asap(one.format(corners)))
    assert shapely.get_coordinates(found.geometry).tolist() == [[0, 0], [4, 0], [4, 4], [0, 0]]
    assert report.lossless
    assert "Order 2 is given twice" in refused(asap(one.format(corners.replace("1", "2"))))
    assert "not a whole number" in refused(asap(one.format(corners.replace('"1"', '"x"'))))
    without = corners
    for number in range(3):
        without = without.replace(f'Order="{number}"', "")
    (found,), _ = read(asap(one.format(without)))
    assert shapely.get_coordinates(found.geometry)[0].tolist() == [4, 4]


@pytest.mark.parametrize("number", ["NaN", "inf", "1e999", "1_0", "٣", "", "1.2.3", "0x10"])
def test_what_is_not_a_number_is_refused(number):
    text = asap(annotation(OPEN), annotation([(0, 0), (number, 1), (2, 2)]))
    assert refused(text).startswith("Feature 1 (counted from 0): X")
    assert refused(text, repair=True).startswith("Feature 1 (counted from 0): X")


def test_a_decimal_comma_is_never_read_as_something_else():
    text = asap(annotation([("1,5", 0), (9, 0), (9, 9)]))
    assert 'X="1,5" has a comma' in refused(text)
    (found,), report = read(text, repair=True)
    assert shapely.get_coordinates(found.geometry)[0].tolist() == [1.5, 0]
    assert "decimal comma read as a point" in report.repairs
    assert "not a number" in refused(asap(annotation([("1,500.5", 0), (9, 0), (9, 9)])), repair=True)


def test_faults_are_named_or_mended():
    bow_tie = asap(annotation(OPEN), annotation([(0, 0), (10, 10), (10, 0), (0, 10)]))
    assert refused(bow_tie).startswith("Feature 1 (counted from 0), ring 0: the outline crosses itself at (5, 5)")
    found, report = read(bow_tie, repair=True)
    assert [each.geometry.area for each in found] == [100, 50]
    assert list(report.repairs) == ["the outline crosses itself: made valid"]
    short = asap(annotation(OPEN[:2]))
    assert "Feature 0 (counted from 0), ring 0: the ring at (10, 10) has 3 points" in refused(short)
    assert "X is missing" in refused(asap('<Annotation><Coordinates><Coordinate Y="1"/></Coordinates></Annotation>'))
    assert "lies on no slide" in refused(asap(annotation([(0, 0), (1e9, 0), (5, 5)])))


def test_holes_and_parts_are_written_as_asap_can_hold_them_and_holes_come_back():
    holed = shapely.box(0, 0, 50, 50) - shapely.box(10, 10, 20, 20) - shapely.box(30, 30, 40, 40)
    several = shapely.MultiPolygon([shapely.box(100, 0, 110, 10), shapely.box(120, 0, 130, 10)])
    features = [
        Feature(holed, "c5badd12-d986-4fd7-8926-74d209f672c3", "tumor & <more>", score=0.5, name='"quoted"\n'),
        Feature(several, "d5badd12-d986-4fd7-8926-74d209f672c3", "None", color="#010203", measurements={"a": 1.0}),
        Feature(holed, "e5badd12-d986-4fd7-8926-74d209f672c3", metadata={TYPE_KEY: "Spline", "k": "v"}, locked=True),
    ]
    text, report = write("asap", features, {"tumor & <more>": "#ff0000"})
    assert (report.read, report.kept) == (3, 3)
    assert losses(report) == {
        "id (ASAP XML has no place for it)": 3,
        "score (ASAP XML has no place for it)": 1,
        "hole (ASAP has none; written as an annotation of the group “<class> (hole)”)": 2,
        "measurements (ASAP XML has no place for it)": 1,
        "feature of several parts (each part is written on its own)": 1,
        "class “None” (in ASAP it means no group)": 1,
        "locked (ASAP XML has no place for it)": 1,
        "metadata (ASAP XML has no place for it)": 1,
    }
    found, again = read(text)
    assert (again.read, again.kept) == (4, 4)
    assert [each.geometry.area for each in found] == [2300, 100, 100, 2300]
    assert shapely.equals(found[0].geometry, holed) and len(found[0].geometry.interiors) == 2
    assert (found[0].class_name, found[0].class_color, found[0].name) == ("tumor & <more>", "#ff0000", '"quoted"\n')
    assert (found[1].class_name, found[1].color) == (UNCLASSIFIED, "#010203")
    assert (found[3].metadata, found[3].class_name) == ({TYPE_KEY: "Spline"}, UNCLASSIFIED)


def test_a_group_that_only_sounds_like_a_hole_stays_a_feature():
    found, report = read(
        asap(
            annotation(OPEN, PartOfGroup="a"),
            annotation(square(500, 500, 3)[:-1], PartOfGroup="a (hole)"),
            annotation(square(12, 12, 3)[:-1], PartOfGroup="a (hole)", Name="other"),
        )
    )
    assert [(each.class_name, each.geometry.area) for each in found] == [("a", 100), ("a (hole)", 9), ("a (hole)", 9)]
    assert (report.read, report.kept) == (3, 3)


def test_characters_that_xml_cannot_hold_are_replaced_and_counted():
    text, report = write("asap", [Feature(shapely.box(0, 0, 1, 1), "id", "a\x01b\ud800", name="n\x00")])
    found, _ = read(text)
    assert (found[0].class_name, found[0].name) == ("a\ufffdb\ufffd", "n\ufffd")
    assert losses(report)["character that XML cannot hold"] >= 2


def test_nothing_is_a_file_too():
    text, report = write("asap", [])
    assert read(text)[0] == [] and report.lossless
