import pytest
import shapely

from tests.formats.outlines import imagescope, layer, losses, read, refused, region, square, write
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.imagescope import FORMAT

OPEN = square(10, 10, 10)[:-1]


def test_layers_are_classes_and_colours_are_blue_green_red():
    found, report = read(
        imagescope(
            layer(region(OPEN, Text="focus"), Name="tumor", LineColor="65535", ReadOnly="1"),
            layer(region(OPEN), attributes='<Attribute Name="CaP" Id="0" Value=""/>', LineColor="16711680"),
            layer(region(OPEN), Id="7", attributes='<Attribute Name="Description" Id="0" Value=""/>'),
            layer(region(OPEN), Id="8", attributes='<Attribute Name="Description" Value="big"/>', LineColor="-1"),
            layer(Id="9", Name="empty", LineColor="99999999"),
        )
    )
    assert [each.class_name for each in found] == ["tumor", "CaP", "Layer 7", "Layer 8"]
    assert [each.class_color for each in found] == ["#ffff00", "#0000ff", "#ff0000", None]
    assert (found[0].name, found[0].locked, found[1].name, found[1].locked) == ("focus", True, None, False)
    assert found[3].metadata == {"Description": "big"}
    assert shapely.get_coordinates(found[0].geometry).tolist() == square(10, 10, 10)
    assert losses(report) == {"LineColor that is no colour": 1}
    assert (report.format, report.read, report.kept) == (FORMAT, 4, 4)


def test_negative_regions_are_holes_of_what_they_overlap():
    found, report = read(
        imagescope(
            layer(
                region(square(12, 12, 2)[:-1], NegativeROA="1"),
                region(OPEN),
                region(square(16, 16, 8)[:-1], NegativeROA="1"),
                region(square(12.5, 12.5, 1)[:-1]),
                region(square(500, 500, 8)[:-1], NegativeROA="1"),
                Name="a",
            ),
            layer(region(OPEN), Name="b"),
        )
    )
    assert [each.geometry.area for each in found] == [100 - 4 - 16, 1, 100]
    assert len(found[0].geometry.interiors) == 1
    assert losses(report) == {"negative region outside every region of its layer": 1}
    assert report.losses["negative region outside every region of its layer"].features == [4]
    assert (report.read, report.kept) == (3, 3)


def test_shapes():
    found, report = read(
        imagescope(
            layer(
                region([(0, 0), (20, 10)], Type="2"),
                region([(0, 0), (20, 10)], Type="1"),
                region(OPEN, Type="1"),
                region([(0, 0), (20, 10)], Type="3"),
                region([(0, 0), (20, 10)], Type="4"),
                region([(0, 0)], Type="9"),
            )
        )
    )
    assert found[0].geometry.bounds == pytest.approx((0, 0, 20, 10), abs=0.1)
    assert found[0].geometry.area == pytest.approx(3.14159265 * 50, rel=0.01)
    assert [each.geometry.area for each in found[1:]] == [200, 100]
    assert losses(report) == {
        "ellipse (a polygon within 0.1 px of it is kept)": 1,
        "arrow (layers hold polygons)": 1,
        "line (layers hold polygons)": 1,
        "region of type 9 (layers hold polygons)": 1,
    }


def test_a_large_ellipse_is_as_exact_as_is_said():
    (found,), _ = read(imagescope(layer(region([(0, 0), (20_000, 20_000)], Type="2"))))
    circle = shapely.get_coordinates(found.geometry)
    edges = (circle[:-1] + circle[1:]) / 2 - 10_000
    assert 10_000 - ((edges**2).sum(axis=1) ** 0.5).min() <= 0.1


def test_attributes_of_regions_are_named_by_their_headers():
    headers = '<AttributeHeader Id="1" Name="Grade" ColumnWidth="-1"/><AttributeHeader Id="2" Name="score"/>'
    attributes = (
        '<Attribute Name="1" Id="0" Value="3+4"/><Attribute Name="2" Value="0.25"/><Attribute Name="5" Value="x"/>'
    )
    (found,), report = read(imagescope(layer(region(OPEN, attributes), headers=headers)))
    assert (found.metadata, found.score) == ({"Grade": "3+4", "5": "x"}, 0.25)
    assert report.lossless


def test_whatever_is_not_known_is_counted_and_faults_are_named():
    text = imagescope(layer(region(OPEN)), "<More/>").replace(b"<Plots/>", b"<Plots><Plot/></Plots>")
    assert losses(read(text)[1]) == {"element “More”": 1, "element “Plot”": 1}
    bad = imagescope(layer(region(OPEN)), layer(region([(0, 0), (10, 10), (10, 0), (0, 10)])))
    assert refused(bad).startswith("Feature 1 (counted from 0), ring 0: the outline crosses itself at (5, 5)")
    assert [each.geometry.area for each in read(bad, repair=True)[0]] == [100, 50]
    gone = imagescope(layer(region(OPEN), region(square(0, 15, 50)[:-1], NegativeROA="1"),
                            region([[0, 0], [50, 0], [50, 16], [0, 16]], NegativeROA="1")))  # fmt: skip
    assert "negative regions leave nothing" in refused(gone)
    assert read(gone, repair=True)[0] == []


def test_written_and_read_again():
    holed = shapely.box(0, 0, 50, 50) - shapely.box(10, 10, 20, 20)
    features = [
        Feature(holed, "1", "b", "#102030", score=0.125, name="n & m", metadata={"Grade": "<4>"}),
        Feature(shapely.box(12, 12, 13, 13), "2", "b", "#102030"),
        Feature(shapely.box(0.1, 0, 1 / 3, 9), "3", "a", "#ffffff", color="#000000", object_type="detection"),
    ]
    text, report = write("imagescope", features)
    assert losses(report) == {
        "id (Aperio ImageScope XML has no place for it)": 3,
        "color (Aperio ImageScope XML has no place for it)": 1,
        "object type (Aperio ImageScope XML has no place for it)": 1,
    }
    found, again = read(text)
    assert again.lossless
    assert [(each.class_name, each.class_color) for each in found] == [("a", "#ffffff"), *[("b", "#102030")] * 2]
    assert shapely.equals_exact(found[0].geometry, features[2].geometry, 0)
    assert shapely.equals(found[1].geometry, holed)
    assert (found[1].score, found[1].name, found[1].metadata) == (0.125, "n & m", {"Grade": "<4>"})
    assert (found[2].geometry.area, found[2].metadata) == (1, {})
