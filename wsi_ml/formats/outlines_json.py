"""JSON files that are lists of single outlines: PATH-DT-MSU (both variants, read and written) and NCRF (read)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson
import shapely

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.canvas import Canvas, batches, note_losses
from wsi_ml.formats.document import JsonDocument
from wsi_ml.formats.feature import UNCLASSIFIED, Feature
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer, check_valid, closed_ring, outline_of, points_of
from wsi_ml.formats.values import text_of

MSU = "PATH-DT-MSU JSON"
NCRF = "NCRF JSON"
MSU_COLORS = {
    "AT": "#f57722",
    "BG": "#99ffff",
    "LP": "#40aa48",
    "MM": "#ff0000",
    "TUM": "#21439c",
    "DYS": "#8000ff",
}
"""The colours its authors draw their classes in."""
NCRF_LISTS = ("positive", "negative")


def read_msu(document: JsonDocument, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    """(place in the file, feature) of each outline; the list of classes has closed rings, the `objects` open ones."""
    frame = document.frame
    if isinstance(frame, list):
        for index, value in enumerate(document.items("")):
            yield from _outline(value, Place(index), repairer, "vertices", {"class"})
        return
    for key in sorted(frame.keys() - {"objects"}):
        repairer.report.lose(f"“{key[:60]}” of the file")
    for index, value in enumerate(document.items("objects")):
        yield from _outline(value, Place(index), repairer, "points", {"id"})


def read_ncrf(document: JsonDocument, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    """(place in the file, feature) of each outline, of class `positive` or `negative` as its list says."""
    for key in sorted(document.frame.keys() - set(NCRF_LISTS)):
        repairer.report.lose(f"“{key[:60]}” of the file")
    index = 0
    for name in NCRF_LISTS:
        for value in document.items(name):
            yield from _outline(value, Place(index), repairer, "vertices", {"name"}, class_name=name)
            index += 1


def _outline(
    value: Any, place: Place, repairer: Repairer, points_key: str, keys: set[str], class_name: str | None = None
) -> Iterator[tuple[Place, Feature]]:
    """The feature of one outline, where repair leaves one."""
    repairer.report.read += 1
    ring = value.get(points_key) if isinstance(value, dict) else None
    if not isinstance(ring, list):
        raise AnnotationFileError(f'{place}: it has no list of points. Write {{"{points_key}": [[x, y], …]}}.')
    for key in sorted(value.keys() - keys - {points_key}):
        repairer.report.lose(f"“{key[:60]}” of the outline", place.feature)
    points = points_of(ring, place)
    closed = "class" in keys
    geometry = _closed_outline(points, place, repairer) if closed else outline_of(points, place, repairer)
    if geometry is None:
        return
    name = class_name or text_of(value.get("class"), "class", place) or UNCLASSIFIED
    number = value.get("id")
    if number is not None and type(number) not in (int, str):
        raise AnnotationFileError(f"{place}: its id is neither a number nor a text.")
    repairer.report.kept += 1
    yield (
        place,
        Feature(
            geometry=geometry,
            uuid=str(uuid.uuid4()),
            class_name=name,
            class_color=MSU_COLORS.get(name) if class_name is None else None,
            name=text_of(value.get("name") if number is None else str(number), "name", place) or None,
        ),
    )


def _closed_outline(points: np.ndarray, place: Place, repairer: Repairer) -> shapely.Geometry | None:
    ring = closed_ring(points, Place(place.feature, ring=0), repairer)
    return None if ring is None else check_valid(shapely.Polygon(ring), place, repairer)


def write_msu(features: Iterable[Feature], canvas: Canvas, report: LossReport) -> Iterator[bytes]:
    """The list of classes and closed rings, in chunks; the report is complete once all are taken."""
    separator = b"["
    for batch in batches(features):
        values = []
        for feature in batch:
            number = report.read
            report.read += 1
            report.kept += 1
            note_losses(report, number, feature, frozenset(), MSU)
            color = canvas.color_of(feature.class_name)
            if feature.class_name != UNCLASSIFIED and MSU_COLORS.get(feature.class_name) != color:
                report.lose("colour of a class (the classes’ own colours are implied)", number)
            for polygon in shapely.get_parts(feature.geometry):
                points = np.ascontiguousarray(shapely.get_coordinates(polygon.exterior))
                values.append({"class": feature.class_name, "vertices": points})
        yield separator + orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        separator = b",\n"
    yield b"[]\n" if separator == b"[" else b"]\n"
