"""Small annotation files for tests, and how tests read and write them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.canvas import Canvas
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.reading import read_features
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.writing import WRITERS
from wsi_ml.geometry import Size

SQUARE = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
HOLE = [[12, 12], [12, 15], [15, 15], [15, 12], [12, 12]]


def square(x: float, y: float, side: float) -> list[list[float]]:
    """A closed square ring."""
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(rings: Any, kind: str = "Polygon", **members: Any) -> dict[str, Any]:
    """A GeoJSON feature of some coordinates."""
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": rings}, "properties": {}, **members}


def collection(*features: Any) -> bytes:
    """A FeatureCollection as bytes."""
    return orjson.dumps({"type": "FeatureCollection", "features": list(features)})


def read(text: bytes, repair: bool = False) -> tuple[list[Feature], LossReport]:
    """Features and loss report of a file of any format."""
    report, features = read_features(text, repair=repair)
    return [feature for _, feature in features], report


def refused(text: bytes, repair: bool = False) -> str:
    """The sentence with which a file is refused."""
    with pytest.raises(AnnotationFileError) as caught:
        read(text, repair)
    return str(caught.value)


def write(format_: str, features: list[Feature], colors: dict[str, str] | None = None) -> tuple[bytes, LossReport]:
    """A file of features and what it does not keep; classes without a colour are given their features' or blue."""
    found = {each.class_name: each.class_color or "#0072b2" for each in features} | (colors or {})
    report = LossReport(WRITERS[format_].title)
    text = b"".join(WRITERS[format_].write(features, Canvas(found, "a slide", Size(1000, 800)), report))
    return text, report


def losses(report: LossReport) -> dict[str, int]:
    """How often each thing was lost."""
    return {entry.what: entry.count for entry in report.losses.values()}


def asap(*annotations: str, groups: str = "") -> bytes:
    """An ASAP file."""
    return (
        f'<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>{"".join(annotations)}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    ).encode()


def annotation(points: Any, **attributes: str) -> str:
    """An ASAP annotation through some points."""
    facts = {"Name": "", "Type": "Polygon", "PartOfGroup": "None", "Color": "#F4FA58"} | attributes
    coordinates = "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}" />' for n, (x, y) in enumerate(points))
    words = " ".join(f'{key}="{value}"' for key, value in facts.items())
    return f"<Annotation {words}><Coordinates>{coordinates}</Coordinates></Annotation>"


def imagescope(*layers: str) -> bytes:
    """An ImageScope file."""
    return f'<Annotations MicronsPerPixel="0.252">{"".join(layers)}</Annotations>'.encode()


def layer(*regions: str, headers: str = "", attributes: str = "", **facts: str) -> str:
    """A layer of an ImageScope file."""
    words = " ".join(f'{key}="{value}"' for key, value in ({"Id": "1", "LineColor": "255"} | facts).items())
    return (
        f"<Annotation {words}><Attributes>{attributes}</Attributes><Regions><RegionAttributeHeaders>{headers}"
        f"</RegionAttributeHeaders>{''.join(regions)}</Regions><Plots/></Annotation>"
    )


def region(points: Any, attributes: str = "", **facts: str) -> str:
    """A region of an ImageScope file through some points."""
    words = " ".join(f'{key}="{value}"' for key, value in ({"Type": "0", "NegativeROA": "0"} | facts).items())
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in points)
    return f"<Region {words}><Attributes>{attributes}</Attributes><Vertices>{vertices}</Vertices></Region>"
