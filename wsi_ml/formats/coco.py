"""COCO's instances JSON: written for the programs that train on it, and read again.

COCO's polygons have no holes, and its run-length masks cannot be as large as a slide (their 32-bit counts end at
65,536² pixels). So `segmentation` holds the outlines, which every reader takes, `area` is exact, and the holes stand
beside it under `holes`, a key that other readers pass over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson
import shapely

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.canvas import Canvas, batches, note_losses
from wsi_ml.formats.document import JsonDocument
from wsi_ml.formats.feature import UNCLASSIFIED, Feature
from wsi_ml.formats.nesting import even_odd, united
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer, on_slide_scale, outline_of, polygonal
from wsi_ml.formats.values import hex_color, score_of, text_of, uuid_of

FORMAT = "COCO JSON"
KEEPS = frozenset({"id", "score", "name", "holes", "parts"})
_FRAME_KEYS = {"info", "licenses", "images", "annotations", "categories"}
_READ = {"id", "image_id", "category_id", "segmentation", "holes", "area", "bbox", "iscrowd", "score", "attributes"}
_ATTRIBUTES = {"uuid", "name"}


def read_features(document: JsonDocument, repairer: Repairer) -> Iterator[tuple[Place, Feature]]:
    """(place in the file, feature) of each annotation with polygons; what is not kept goes to the report.

    The file may be of one image only. Raises AnnotationFileError at the first fault that is not to be repaired.
    """
    frame, report = document.frame, repairer.report
    for key in sorted(frame.keys() - _FRAME_KEYS):
        report.lose(f"“{key[:60]}” of the file")
    images, categories = (frame.get(key, []) for key in ("images", "categories"))
    if not isinstance(images, list) or len(images) != 1:
        raise AnnotationFileError("A COCO file is imported when it is of exactly one image; split it by image.")
    classes = _classes(categories, report)
    for index, value in enumerate(document.items("annotations")):
        place = Place(index)
        report.read += 1
        category = value.get("category_id") if isinstance(value, dict) else None
        if type(category) is not int or category not in classes:
            raise AnnotationFileError(f"{place}: its category_id is of no category of the file. Add the category.")
        geometry = _geometry_of(value, place, repairer)
        if geometry is None:
            continue
        attributes = value.get("attributes")
        attributes = attributes if isinstance(attributes, dict) else {}
        for key in sorted((value.keys() - _READ) | (attributes.keys() - _ATTRIBUTES)):
            report.lose(f"“{key[:60]}” of the annotation", place.feature)
        class_name, class_color = classes[category]
        report.kept += 1
        yield (
            place,
            Feature(
                geometry=geometry,
                uuid=uuid_of(attributes.get("uuid"), place, report),
                class_name=class_name,
                class_color=class_color,
                score=score_of(value.get("score")),
                name=text_of(attributes.get("name"), "name", place),
            ),
        )


def _classes(categories: Any, report: LossReport) -> dict[int, tuple[str, str | None]]:
    """(name, colour) of each category by its number."""
    found: dict[int, tuple[str, str | None]] = {}
    for number, value in enumerate(categories if isinstance(categories, list) else []):
        if not isinstance(value, dict) or type(value.get("id")) is not int:
            raise AnnotationFileError(f"Category {number} (counted from 0) has no id that is a whole number.")
        place = Place(number)
        color = value.get("color")
        name = text_of(value.get("name"), "name of a category", place) or UNCLASSIFIED
        found[value["id"]] = (name, hex_color(color if isinstance(color, str) else None, "color", place, report))
        if value.get("supercategory"):
            report.lose("supercategory of a category")
    return found


def _geometry_of(value: dict[str, Any], place: Place, repairer: Repairer) -> shapely.Geometry | None:
    segmentation = value.get("segmentation")
    if not isinstance(segmentation, list) or not segmentation:
        found = "run-length mask" if isinstance(segmentation, dict) else "annotation without a segmentation"
        repairer.report.lose(f"{found} (layers hold polygons)", place.feature)
        return None
    rings = [_flat(ring, place) for ring in segmentation]
    if isinstance(value.get("holes"), list) and value["holes"]:
        return even_odd([*rings, *(_flat(ring, place) for ring in value["holes"])], place, repairer)
    # COCO unites the polygons of one annotation.
    parts = [part for ring in rings if (part := outline_of(ring, place, repairer)) is not None]
    kept = [polygon for part in parts for polygon in shapely.get_parts(part)]
    if not kept:
        return None
    whole = kept[0] if len(kept) == 1 else shapely.MultiPolygon(kept)
    return whole if whole.is_valid else polygonal(united(kept, place))


def _flat(ring: Any, place: Place) -> np.ndarray:
    if not isinstance(ring, list) or len(ring) % 2 or not set(map(type, ring)) <= {int, float}:
        raise AnnotationFileError(f"{place}: a polygon of its segmentation is not a list of numbers x, y, x, y ….")
    return on_slide_scale(np.array(ring, np.float64).reshape(-1, 2), place)


# -- writing -------------------------------------------------------------------------------------------------------


def write_features(features: Iterable[Feature], canvas: Canvas, report: LossReport) -> Iterator[bytes]:
    """A COCO file in chunks, memory bounded; the report is complete once all are taken."""
    names = sorted(canvas.class_colors)
    numbers = {name: number for number, name in enumerate(names, 1)}
    head = {
        "info": {"description": f"Outlines of {canvas.image_name}, exported by Ocular", "version": "1.0"},
        "licenses": [],
        "images": [{"id": 1, "file_name": canvas.image_name, "width": canvas.size.width, "height": canvas.size.height}],
        "categories": [{"id": numbers[name], "name": name, "color": canvas.color_of(name)} for name in names],
    }
    yield orjson.dumps(head)[:-1] + b',"annotations":['
    separator = b""
    for batch in batches(features):
        values = [_annotation(feature, numbers[feature.class_name], report) for feature in batch]
        yield separator + orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        separator = b",\n"
    yield b"]}\n"


def _annotation(feature: Feature, category: int, report: LossReport) -> dict[str, Any]:
    number = report.read
    report.read += 1
    report.kept += 1
    note_losses(report, number, feature, KEEPS, FORMAT)
    polygons = shapely.get_parts(feature.geometry)
    holes = [_numbers(ring) for polygon in polygons for ring in polygon.interiors]
    x0, y0, x1, y1 = feature.geometry.bounds
    value: dict[str, Any] = {
        "id": number + 1,
        "image_id": 1,
        "category_id": category,
        "segmentation": [_numbers(polygon.exterior) for polygon in polygons],
        "area": feature.geometry.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }
    if holes:
        report.lose("hole (other programs fill it: COCO’s polygons have none)", number)
        value["holes"] = holes
    if feature.score is not None:
        value["score"] = feature.score
    value["attributes"] = {"uuid": feature.uuid} | ({} if feature.name is None else {"name": feature.name})
    return value


def _numbers(ring: shapely.LinearRing) -> np.ndarray:
    return np.ascontiguousarray(shapely.get_coordinates(ring)[:-1]).ravel()
