"""GeoJSON as QuPath writes it, 0.2 to 0.7: read strictly with a loss report, and written so that QuPath reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import shapely

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.canvas import NO_COLOR, Canvas, batches
from wsi_ml.formats.document import JsonDocument
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.qupath import properties_of, write_properties
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer, check_valid, polygon_of

FORMAT = "GeoJSON (QuPath)"
_NOT_POLYGONS = ("Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection")
_FEATURE_KEYS = {"type", "id", "geometry", "properties", "bbox"}
_GEOMETRY_KEYS = {"type", "coordinates", "bbox"}


def read_features(document: JsonDocument, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    """(place in the file, feature) of each polygon, in the file's own plane; what is not kept goes to the report.

    Accepts a FeatureCollection, one Feature or a bare array of features. Raises AnnotationFileError at the first fault
    that is not to be repaired; the sentence names the feature, ring and coordinate, and what to do about it.
    """
    report = repairer.report
    for index, value in enumerate(_values(document, report)):
        place = Place(index)
        report.read += 1
        feature = _feature_of(value, place, repairer)
        if feature is None:
            continue
        report.kept += 1
        yield place, feature


def _values(document: JsonDocument, report: LossReport) -> Iterator[Any]:
    """The features, or the one that the file is; raises AnnotationFileError when it is not GeoJSON."""
    frame = document.frame
    if isinstance(frame, list):
        return document.items("")
    kind = frame.get("type") if isinstance(frame, dict) else None
    if kind == "Feature":
        return iter([frame])
    if kind != "FeatureCollection" or not isinstance(frame.get("features"), list):
        raise AnnotationFileError(
            "The file is not GeoJSON: at its top must be a FeatureCollection, a Feature or an array of features."
        )
    for key in sorted(frame.keys() - {"type", "features", "bbox"}):
        report.lose(f"“{key[:60]}” of the collection")
    return document.items("features")


def _feature_of(value: Any, place: Place, repairer: Repairer) -> Feature | None:
    """One feature, checked; None when it has no polygon (noted in the report)."""
    if not isinstance(value, dict) or value.get("type") != "Feature":
        raise AnnotationFileError(f'{place}: it is not a GeoJSON Feature. Write {{"type": "Feature", …}}.')
    for key in sorted(value.keys() - _FEATURE_KEYS):
        repairer.report.lose(f"“{key[:60]}” of the feature", place.feature)
    geometry = _geometry_of(value.get("geometry"), place, repairer)
    if geometry is not None:
        geometry = check_valid(geometry, place, repairer)
    if geometry is None:
        return None
    return Feature(geometry=geometry, **properties_of(value, place, repairer.report))


def _geometry_of(value: Any, place: Place, repairer: Repairer) -> shapely.Geometry | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind in _NOT_POLYGONS:
        found = f"a {kind}" if kind else "no geometry"
        repairer.report.lose(f"feature with {found} (layers hold polygons)", place.feature)
        return None
    for key in sorted(value.keys() - _GEOMETRY_KEYS) if isinstance(value, dict) else ():
        repairer.report.lose(f"“{key[:60]}” of the geometry", place.feature)
    if kind == "Polygon":
        return polygon_of(value.get("coordinates"), place, repairer)
    if kind != "MultiPolygon":
        raise AnnotationFileError(f"{place}: its geometry is not a Polygon or MultiPolygon but “{str(kind)[:40]}”.")
    parts = value.get("coordinates")
    if not isinstance(parts, list) or not parts:
        raise AnnotationFileError(f"{place}: a MultiPolygon is a list of at least one polygon. Write [[[[x, y], …]]].")
    polygons = [polygon_of(rings, Place(place.feature, number), repairer) for number, rings in enumerate(parts)]
    polygons = [polygon for polygon in polygons if polygon is not None]
    return shapely.MultiPolygon(polygons) if polygons else None


# -- writing -------------------------------------------------------------------------------------------------------


def write_features(features: Iterable[Feature], class_colors: Mapping[str, str], **members: Any) -> Iterator[bytes]:
    """A FeatureCollection in chunks of bytes, memory bounded; `members` (total …) stand before the features."""
    yield orjson.dumps({"type": "FeatureCollection", **members})[:-1] + b',"features":['
    separator = b""
    for batch in batches(features):
        coordinates = coordinates_of([feature.geometry for feature in batch])
        values = [
            {
                "type": "Feature",
                "id": feature.uuid,
                "geometry": {"type": feature.geometry.geom_type, "coordinates": points},
                "properties": write_properties(feature, class_colors.get(feature.class_name, NO_COLOR)),
            }
            for feature, points in zip(batch, coordinates, strict=True)
        ]
        yield separator + orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        separator = b",\n"
    yield b"]}\n"


def write_file(features: Iterable[Feature], canvas: Canvas, report: LossReport) -> Iterator[bytes]:
    """A file of features as `write_features` makes it; GeoJSON holds all of a feature, so the report only counts."""
    return write_features(_counted(features, report), canvas.class_colors)


def _counted(features: Iterable[Feature], report: LossReport) -> Iterator[Feature]:
    for feature in features:
        report.read += 1
        report.kept += 1
        yield feature


def coordinates_of(geometries: list[shapely.Geometry]) -> list[Any]:
    """GeoJSON coordinates of polygons and multipolygons; rings are n × 2 arrays of doubles, exact."""
    if not geometries:
        return []
    _, points, offsets = shapely.to_ragged_array(geometries, include_z=False)
    points = np.ascontiguousarray(points)
    level: list[Any] = [points[a:b] for a, b in pairwise(offsets[0].tolist())]
    for ends in offsets[1:]:
        level = [level[a:b] for a, b in pairwise(ends.tolist())]
    if len(offsets) == 2:
        return level
    return [
        parts if geometry.geom_type == "MultiPolygon" else parts[0]
        for geometry, parts in zip(geometries, level, strict=True)
    ]
