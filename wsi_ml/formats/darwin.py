"""V7's Darwin JSON, versions 1 and 2: read with a loss report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.document import JsonDocument
from wsi_ml.formats.feature import UNCLASSIFIED, Feature
from wsi_ml.formats.nesting import even_odd
from wsi_ml.formats.pieces import parse
from wsi_ml.formats.rings import Place, Repairer, on_slide_scale, outline_of
from wsi_ml.formats.values import score_of, text_of, uuid_of

FORMAT = "Darwin JSON"
RING_LIMIT = 100_000
ELLIPSE_POINTS = 256
_OUTLINES = ("polygon", "complex_polygon", "ellipse", "bounding_box")
_OTHERS = ("keypoint", "line", "skeleton", "tag", "cuboid", "mask", "raster_layer", "string", "graph", "table", "eye")
_READ = {"id", "name", "inference", "text", "slot_names", *_OUTLINES, *_OTHERS}
_FRAME_KEYS = {"version", "schema_ref", "item", "annotations", "dataset", "image"}


def read_features(document: JsonDocument, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    """(place in the file, feature) of each polygon, ellipse and box; what is not kept goes to the report.

    The paths of a polygon are filled where an odd number of them surround. Raises AnnotationFileError at the first
    fault that is not to be repaired.
    """
    report = repairer.report
    for key in sorted(document.frame.keys() - _FRAME_KEYS):
        report.lose(f"“{key[:60]}” of the file")
    for index, value in enumerate(document.items("annotations")):
        place = Place(index)
        report.read += 1
        if not isinstance(value, dict):
            raise AnnotationFileError(f"{place}: it is not an object.")
        geometry = _geometry_of(value, place, repairer)
        if geometry is None:
            continue
        for key in sorted(key for key in value.keys() - _READ if value[key] not in (None, [], {})):
            report.lose(f"“{key[:60]}” of the annotation", place.feature)
        inference, text = value.get("inference"), value.get("text")
        report.kept += 1
        yield (
            place,
            Feature(
                geometry=geometry,
                uuid=uuid_of(value.get("id"), place, report),
                class_name=text_of(value.get("name"), "name", place) or UNCLASSIFIED,
                score=score_of(inference.get("confidence")) if isinstance(inference, dict) else None,
                name=text_of(text.get("text"), "text", place) if isinstance(text, dict) else None,
            ),
        )


def _geometry_of(value: dict[str, Any], place: Place, repairer: Repairer) -> shapely.Geometry | None:
    kind = next((word for word in _OUTLINES if value.get(word) is not None), None)
    if kind is None:
        found = next((word for word in _OTHERS if value.get(word) is not None), "annotation without a shape")
        repairer.report.lose(f"{found} (layers hold polygons)", place.feature)
        return None
    shape = value[kind]
    if isinstance(shape, str):  # dlup writes the polygon as JSON in a text
        shape = parse(shape.encode(), f"{place}, its {kind},")
    if kind == "bounding_box":
        x, y, width, height = _numbers(shape, ("x", "y", "w", "h"), place, kind)
        corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        return outline_of(on_slide_scale(corners, place), place, repairer)
    if kind == "ellipse":
        repairer.report.lose(f"ellipse (a polygon of {ELLIPSE_POINTS} corners is kept)", place.feature)
        return outline_of(on_slide_scale(_ellipse(shape, place), place), place, repairer)
    return even_odd(_paths(shape, place), place, repairer)


def _paths(shape: Any, place: Place) -> list[np.ndarray]:
    """The paths of a polygon: `paths` (2.0), `path` with `additional_paths` (1.0)."""
    shape = shape if isinstance(shape, dict) else {}
    paths = shape.get("paths") or shape.get("path")
    if isinstance(paths, list) and paths and isinstance(paths[0], dict):
        more = shape.get("additional_paths") or []
        paths = [paths, *(more if isinstance(more, list) else [more])]
    if not isinstance(paths, list) or not all(isinstance(path, list) for path in paths) or len(paths) > RING_LIMIT:
        raise AnnotationFileError(
            f"{place}: its polygon has no list of at most {RING_LIMIT:,} paths. "
            'Write {"paths": [[{"x": …, "y": …}]]}.'
        )
    return [
        on_slide_scale(np.array([_numbers(point, ("x", "y"), place, "point") for point in path]).reshape(-1, 2), place)
        for path in paths
    ]


def _ellipse(shape: Any, place: Place) -> np.ndarray:
    shape = shape if isinstance(shape, dict) else {}
    center = np.array(_numbers(shape.get("center"), ("x", "y"), place, "ellipse.center"))
    radii = np.array(_numbers(shape.get("radius"), ("x", "y"), place, "ellipse.radius"))
    (angle,) = _numbers({"angle": 0, **shape}, ("angle",), place, "ellipse")
    turns = np.arange(ELLIPSE_POINTS) * (2 * math.pi / ELLIPSE_POINTS)
    x, y = radii[0] * np.cos(turns), radii[1] * np.sin(turns)
    cos, sin = math.cos(angle), math.sin(angle)
    return center + np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)


def _numbers(value: Any, keys: tuple[str, ...], place: Place, what: str) -> list[float]:
    numbers: list[Any] = [value.get(key) for key in keys] if isinstance(value, dict) else []
    if not numbers or not set(map(type, numbers)) <= {int, float}:
        raise AnnotationFileError(f"{place}: its {what} does not have the numbers {', '.join(keys)}. Write them all.")
    return [float(number) for number in numbers]
