"""ASAP's XML (computationalpathologygroup/ASAP), as CAMELYON16 and 17 use it: read with a loss report, and written.

A group is a class. ASAP has no holes: a hole is an annotation of its own, in the group “<class> (hole)”, right after
the outline it belongs to; read here again, it becomes a hole.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import shapely

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.canvas import Canvas, batches, note_losses
from wsi_ml.formats.document import XmlDocument
from wsi_ml.formats.feature import UNCLASSIFIED, Feature
from wsi_ml.formats.nesting import with_holes
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer, on_slide_scale, outline_of
from wsi_ml.formats.values import hex_color, text_of
from wsi_ml.formats.xmltext import Elements, Points, check_count, quoted, walk

FORMAT = "ASAP XML"
ROOT = "ASAP_Annotations"
NO_GROUP = "None"
TYPE_KEY = "ASAP type"
"""Metadata that keeps the type of an outline that was not drawn as a Polygon."""
OUTLINES = ("Polygon", "Spline", "Rectangle")
HOLE = " (hole)"
_ANNOTATION_KEYS = {"Name", "Type", "PartOfGroup", "Color"}
_KNOWN = {ROOT, "Annotations", "Annotation", "Coordinates", "Coordinate", "AnnotationGroups", "Group", "Attributes"}
KEEPS = frozenset({"name", "color", "holes", "metadata"})


@dataclass
class _Shape:
    """One `Annotation` of the file."""

    attributes: dict[str, str]
    points: Points
    orders: list[str]


class _Groups(Elements):
    """The groups, which stand after the annotations."""

    def __init__(self, report: LossReport) -> None:
        super().__init__()
        self.colors: dict[str, str | None] = {}
        self._report = report

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Group" and self.path[-2:-1] == ["AnnotationGroups"]:
            check_count(len(self.colors))
            color = hex_color(attributes.get("Color"), "colour of a group", Place(0), self._report)
            self.colors[attributes.get("Name", "")] = color
            if attributes.get("PartOfGroup", NO_GROUP) != NO_GROUP:
                self._report.lose("group that a group is part of")
        elif "Attributes" in self.path[:-1]:
            self._report.lose("attribute of a group")
        elif tag not in _KNOWN:
            self._report.lose(f"element “{tag[:60]}”")


class _Annotations(Elements):
    """The annotations; `ready` holds those that have ended."""

    def __init__(self, repairer: Repairer) -> None:
        super().__init__()
        self.ready: list[_Shape] = []
        self._repairer = repairer
        self._shape: _Shape | None = None
        self._number = 0

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Annotation":
            check_count(self._number)
            self._shape = _Shape(attributes, Points(Place(self._number), self._repairer), [])
            self._number += 1
        elif tag == "Coordinate" and self._shape is not None:
            self._shape.points.add(attributes.get("X"), attributes.get("Y"))
            self._shape.orders.append(attributes.get("Order", ""))

    def leave(self, tag: str) -> None:
        if tag == "Annotation" and self._shape is not None:
            self.ready.append(self._shape)
            self._shape = None


def read_features(document: XmlDocument, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    """(place in the file, feature) of each outline, in the file's own plane; what is not kept goes to the report.

    The edge from the last point to the first is implied. Raises AnnotationFileError at the first fault that is not to
    be repaired.
    """
    groups = _Groups(repairer.report)
    for _ in walk(document.text, groups):
        pass
    annotations = _Annotations(repairer)
    pending = _Pending(repairer.report)
    for _ in walk(document.text, annotations):
        for shape in annotations.ready:
            found = _feature_of(shape, groups.colors, repairer)
            if found:
                yield from pending.add(*found)
        annotations.ready.clear()
    yield from pending.flush()


class _Pending:
    """An outline held back until it is known whether holes follow it."""

    def __init__(self, report: LossReport) -> None:
        self._report = report
        self._outline: tuple[Place, Feature] | None = None
        self._holes: list[tuple[Place, Feature]] = []

    def add(self, place: Place, feature: Feature) -> Iterator[tuple[Place, Feature]]:
        """Take the next feature; gives those that are complete."""
        outline = self._outline
        if outline and (feature.class_name, feature.name) == (outline[1].class_name + HOLE, outline[1].name):
            self._holes.append((place, feature))
        else:
            yield from self.flush()
            self._outline = (place, feature)

    def flush(self) -> Iterator[tuple[Place, Feature]]:
        """The outline with its holes; what is called a hole and does not lie inside is a feature like any other."""
        if self._outline is None:
            return
        place, outline = self._outline
        shapely.prepare(outline.geometry)
        within = [bool(outline.geometry.covers(hole.geometry)) for _, hole in self._holes]
        inside = [hole.geometry for (_, hole), is_in in zip(self._holes, within, strict=True) if is_in]
        if inside:
            geometry = with_holes(outline.geometry, inside, place)
            self._report.read -= len(inside)
            self._report.kept -= len(inside)
            outline = replace(outline, geometry=geometry or outline.geometry)
        yield place, outline
        yield from (hole for hole, is_in in zip(self._holes, within, strict=True) if not is_in)
        self._outline, self._holes = None, []


def _feature_of(shape: _Shape, colors: dict[str, str | None], repairer: Repairer) -> tuple[Place, Feature] | None:
    report, place, attributes = repairer.report, shape.points.place, shape.attributes
    report.read += 1
    kind = attributes.get("Type", "Polygon")
    if kind not in OUTLINES:
        report.lose(f"annotation of type {kind[:40]} (layers hold polygons)", place.feature)
        return None
    for key in sorted(attributes.keys() - _ANNOTATION_KEYS):
        report.lose(f"attribute “{key[:60]}” of the annotation", place.feature)
    if kind == "Spline":
        report.lose("curve between the points of a Spline (straight edges are kept)", place.feature)
    geometry = outline_of(on_slide_scale(_ordered(shape), place), place, repairer)
    if geometry is None:
        return None
    report.kept += 1
    group = text_of(attributes.get("PartOfGroup"), "PartOfGroup", place) or NO_GROUP
    class_name = UNCLASSIFIED if group == NO_GROUP else group
    color = hex_color(attributes.get("Color"), "Color", place, report)
    return place, Feature(
        geometry=geometry,
        uuid=str(uuid.uuid4()),
        class_name=class_name,
        class_color=colors.get(group),
        name=text_of(attributes.get("Name"), "Name", place) or None,
        color=None if color == colors.get(group) else color,
        metadata={} if kind == "Polygon" else {TYPE_KEY: kind},
    )


def _ordered(shape: _Shape) -> np.ndarray:
    """The points in the order their numbers say; raises AnnotationFileError where these do not say one."""
    points, orders = shape.points.array(), shape.orders
    if orders == [""] * len(orders):
        return points
    if not all(order.isascii() and order.isdigit() and len(order) < 10 for order in orders):
        raise AnnotationFileError(f"{shape.points.place}: a Coordinate has an Order that is not a whole number.")
    numbers = list(map(int, orders))
    if len(set(numbers)) != len(numbers):
        twice = next(number for number, count in Counter(numbers).items() if count > 1)
        raise AnnotationFileError(f"{shape.points.place}: Order {twice} is given twice; number its points 0, 1, 2 ….")
    return points[np.argsort(numbers, kind="stable")]


# -- writing -------------------------------------------------------------------------------------------------------


def write_features(features: Iterable[Feature], canvas: Canvas, report: LossReport) -> Iterator[bytes]:
    """An ASAP file in chunks, memory bounded; the report is complete once all are taken."""
    yield f'<?xml version="1.0"?>\n<{ROOT}>\n\t<Annotations>\n'.encode()
    groups: dict[str, str] = {}
    number = 0
    for batch in batches(features):
        lines: list[str] = []
        for feature in batch:
            report.read += 1
            note_losses(report, number, feature, KEEPS, FORMAT)
            if feature.metadata.keys() - {TYPE_KEY}:
                report.lose("metadata (ASAP XML has no place for it)", number)
            class_color = canvas.color_of(feature.class_name)
            if feature.class_name != UNCLASSIFIED:
                groups.setdefault(feature.class_name, class_color)
            lines += _annotations(feature, class_color, groups, number, report)
            report.kept += 1
            number += 1
        yield "".join(lines).encode()
    yield b"\t</Annotations>\n\t<AnnotationGroups>\n"
    for name in sorted(groups):
        group = f'\t\t<Group Name={quoted(name, report)} PartOfGroup="{NO_GROUP}" Color="{groups[name]}">\n'
        yield f"{group}\t\t\t<Attributes />\n\t\t</Group>\n".encode()
    yield f"\t</AnnotationGroups>\n</{ROOT}>\n".encode()


def _annotations(
    feature: Feature, class_color: str, groups: dict[str, str], number: int, report: LossReport
) -> Iterator[str]:
    """Elements of one feature: each part its outline, then its holes."""
    group = NO_GROUP if feature.class_name == UNCLASSIFIED else feature.class_name
    if feature.class_name == NO_GROUP:
        report.lose(f"class “{NO_GROUP}” (in ASAP it means no group)", number)
    name = quoted(feature.name or "", report, number)
    color = feature.color or class_color
    kind = feature.metadata.get(TYPE_KEY, "Polygon")
    kind = kind if kind in OUTLINES else "Polygon"
    for polygon in shapely.get_parts(feature.geometry):
        yield _annotation(polygon.exterior, name, kind, quoted(group, report, number), color)
        if polygon.interiors:
            report.lose("hole (ASAP has none; written as an annotation of the group “<class> (hole)”)", number)
            groups.setdefault(feature.class_name + HOLE, class_color)
        for ring in polygon.interiors:
            hole = quoted(feature.class_name + HOLE, report, number)
            yield _annotation(ring, name, "Polygon", hole, color)


def _annotation(ring: shapely.LinearRing, name: str, kind: str, group: str, color: str) -> str:
    points = shapely.get_coordinates(ring)[:-1].tolist()
    coordinates = "".join(
        f'\t\t\t\t<Coordinate Order="{order}" X="{x!r}" Y="{y!r}" />\n' for order, (x, y) in enumerate(points)
    )
    return (
        f'\t\t<Annotation Name={name} Type="{kind}" PartOfGroup={group} Color="{color}">\n'
        f"\t\t\t<Coordinates>\n{coordinates}\t\t\t</Coordinates>\n\t\t</Annotation>\n"
    )
