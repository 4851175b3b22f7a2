"""Aperio ImageScope's XML: read with a loss report, and written.

An `Annotation` is a layer of one colour, and its name (or its one own attribute) is the class. Regions with
`NegativeROA` are cut out of the other regions of their layer. LineColor is Windows' COLORREF: blue, green, red.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely

from wsi_ml.formats.document import XmlDocument
from wsi_ml.formats.feature import UNCLASSIFIED, Feature
from wsi_ml.formats.nesting import with_holes
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer, on_slide_scale, outline_of
from wsi_ml.formats.values import SCORE, score_of, text_of
from wsi_ml.formats.xmltext import Elements, Points, check_count, walk

FORMAT = "Aperio ImageScope XML"
ROOT = "Annotations"
POLYGON, RECTANGLE, ELLIPSE = "0", "1", "2"
KIND_WORDS = {"3": "arrow", "4": "line", "5": "counter"}
ELLIPSE_ERROR = 0.1
"""Pixels that the polygon of an ellipse may stand away from it."""
EMPTY_ATTRIBUTE = "Description"
"""The attribute ImageScope gives every layer; one of another name was named by a person."""
_COLORREF_LIMIT = 1 << 24
_INTEGER = re.compile(r"[0-9]{1,10}")
_KNOWN = {
    ROOT,
    "Annotation",
    "Attributes",
    "Attribute",
    "Regions",
    "RegionAttributeHeaders",
    "AttributeHeader",
    "Region",
}
_KNOWN |= {"Vertices", "Vertex", "Plots"}


@dataclass
class _Region:
    """One `Region`; `texts` are its attributes, by number of their header."""

    facts: dict[str, str]
    points: Points
    texts: dict[str, str] = field(default_factory=dict)


@dataclass
class _Layer:
    """One `Annotation` with its regions; `headers` names the numbers of the regions' attributes."""

    facts: dict[str, str]
    texts: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    regions: list[_Region] = field(default_factory=list)


class _Layers(Elements):
    """The layers; `ready` holds those that have ended."""

    def __init__(self, repairer: Repairer) -> None:
        super().__init__()
        self.ready: list[_Layer] = []
        self._repairer = repairer
        self._layer = _Layer({})
        self._number = 0

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        layer = self._layer
        if tag == "Vertex" and layer.regions:
            layer.regions[-1].points.add(attributes.get("X"), attributes.get("Y"))
        elif tag == "Region":
            check_count(self._number)
            layer.regions.append(_Region(attributes, Points(Place(self._number), self._repairer)))
            self._number += 1
        elif tag == "Attribute":
            texts = layer.regions[-1].texts if "Region" in self.path and layer.regions else layer.texts
            texts[attributes.get("Name", "")] = attributes.get("Value", "")
        elif tag == "AttributeHeader":
            layer.headers[attributes.get("Id", "")] = attributes.get("Name", "")
        elif tag == "Annotation":
            self._layer = _Layer(attributes)
        elif tag not in _KNOWN or "Plots" in self.path[:-1]:
            self._repairer.report.lose(f"element “{tag[:60]}”")

    def leave(self, tag: str) -> None:
        if tag == "Annotation":
            self.ready.append(self._layer)
            self._layer = _Layer({})


def read_features(document: XmlDocument, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    """(place in the file, feature) of each region, in the file's own plane; what is not kept goes to the report.

    Regions are counted through the whole file. The edge from the last point to the first is implied. Raises
    AnnotationFileError at the first fault that is not to be repaired.
    """
    layers = _Layers(repairer)
    for _ in walk(document.text, layers):
        for layer in layers.ready:
            yield from _features_of(layer, repairer)
        layers.ready.clear()


def _features_of(layer: _Layer, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    report = repairer.report
    shapes = [(region, _geometry_of(region, repairer)) for region in layer.regions]
    drawn = [(region, geometry) for region, geometry in shapes if geometry is not None]
    outlines = [(region, geometry) for region, geometry in drawn if not _is_negative(region)]
    holes = [(region, geometry) for region, geometry in drawn if _is_negative(region)]
    report.read += sum(not _is_negative(region) for region in layer.regions)
    cut = _cut(outlines, holes, report)
    class_name, metadata = _class_of(layer, outlines, report)
    color = _color_of(layer, report, outlines)
    for (region, _), geometry in zip(outlines, cut, strict=True):
        place = region.points.place
        if geometry is None:
            repairer.fault(place, "negative regions leave nothing of it", "Remove one", "region left empty removed")
            continue
        texts = {layer.headers.get(key, key): value for key, value in region.texts.items() if value}
        score = _score_of(texts)
        report.kept += 1
        yield (
            place,
            Feature(
                geometry=geometry,
                uuid=str(uuid.uuid4()),
                class_name=class_name,
                class_color=color,
                name=text_of(region.facts.get("Text"), "Text", place) or None,
                score=score,
                locked=layer.facts.get("ReadOnly") == "1",
                metadata=metadata | {key: value for key, value in texts.items() if key != SCORE or score is None},
            ),
        )


def _score_of(texts: dict[str, str]) -> float | None:
    try:
        return score_of(float(texts.get(SCORE, "")))
    except ValueError:
        return None


def _is_negative(region: _Region) -> bool:
    return region.facts.get("NegativeROA") == "1"


def _geometry_of(region: _Region, repairer: Repairer) -> shapely.Geometry | None:
    kind, place = region.facts.get("Type", POLYGON), region.points.place
    points = on_slide_scale(region.points.array(), place)
    if kind not in (POLYGON, RECTANGLE, ELLIPSE):
        word = KIND_WORDS.get(kind, f"region of type {kind[:20]}")
        repairer.report.lose(f"{word} (layers hold polygons)", place.feature)
        return None
    if kind == ELLIPSE and len(points) > 1:
        repairer.report.lose(f"ellipse (a polygon within {ELLIPSE_ERROR} px of it is kept)", place.feature)
        points = _ellipse(points)
    elif kind == RECTANGLE and len(points) == 2:  # opposite corners
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return outline_of(points, place, repairer)


def _ellipse(corners: np.ndarray) -> np.ndarray:
    """Points on the ellipse inside the box of the given points."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    radii = (high - low) / 2
    largest = max(float(radii.max()), 1.0)
    count = min(4096, max(32, math.ceil(math.pi / math.acos(1 - ELLIPSE_ERROR / largest))))
    turns = np.arange(count) * (2 * math.pi / count)
    return (low + high) / 2 + radii * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _cut(
    drawn: list[tuple[_Region, shapely.Geometry]], holes: list[tuple[_Region, shapely.Geometry]], report: LossReport
) -> list[shapely.Geometry | None]:
    """Each outline less the negative regions in it.

    A negative region that no outline surrounds is cut from those it overlaps, but not from one inside it: an island.
    """
    outlines = [outline for _, outline in drawn]
    met: list[list[int]] = [[] for _ in outlines]
    cut = np.array([hole for _, hole in holes], object)
    if holes and outlines:
        pairs = shapely.STRtree(cut).query(outlines, predicate="intersects")
        ours, theirs = np.array(outlines, object)[pairs[0]], cut[pairs[1]]
        around = shapely.covers(ours, theirs)
        apart = shapely.touches(ours, theirs) | shapely.covered_by(ours, theirs) | np.isin(pairs[1], pairs[1][around])
        for outline, hole in pairs[:, around | ~apart].T.tolist():
            met[outline].append(hole)
    for number in sorted(set(range(len(holes))).difference(*met)):
        report.lose("negative region outside every region of its layer", holes[number][0].points.place.feature)
    return [
        with_holes(outline, cut[numbers].tolist(), region.points.place) if numbers else outline
        for (region, outline), numbers in zip(drawn, met, strict=True)
    ]


def _class_of(
    layer: _Layer, outlines: list[tuple[_Region, shapely.Geometry]], report: LossReport
) -> tuple[str, dict[str, str]]:
    """(class, metadata) of a layer's features: its name, else its one attribute of a person's, else its number."""
    if not outlines:
        return UNCLASSIFIED, {}
    place = outlines[0][0].points.place
    texts = {key: value for key, value in layer.texts.items() if value}
    named = [key for key, value in layer.texts.items() if key not in ("", EMPTY_ATTRIBUTE) and not value]
    name = text_of(layer.facts.get("Name"), "Name", place) or None
    if name is None and len(named) == 1:
        name = text_of(named.pop(), "Name of the layer’s attribute", place)
    for _ in named:
        report.lose("attribute of a layer without a value", place.feature)
    return name or f"Layer {layer.facts.get('Id', '')[:20]}".strip(), texts


def _color_of(layer: _Layer, report: LossReport, outlines: list[tuple[_Region, shapely.Geometry]]) -> str | None:
    text = layer.facts.get("LineColor")
    if text is None or not outlines:
        return None
    if not _INTEGER.fullmatch(text) or int(text) >= _COLORREF_LIMIT:
        report.lose("LineColor that is no colour", outlines[0][0].points.place.feature)
        return None
    value = int(text)
    return f"#{value & 0xFF:02x}{value >> 8 & 0xFF:02x}{value >> 16:02x}"
