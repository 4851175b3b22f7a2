"""QuPath's properties of a feature, 0.2 to 0.7: class, colour, measurements; every loss is noted."""

from __future__ import annotations

from typing import Any

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.feature import UNCLASSIFIED, Feature
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place
from wsi_ml.formats.values import SCORE, score_of, text_of, uuid_of

OLD_TYPES = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "TMACoreObject": "tmaCore",
    "tma_core": "tmaCore",
}
"""QuPath 0.2's words (kept in `id` there) and today's."""
OBJECT_TYPES = set(OLD_TYPES.values())
_READ = {"objectType", "object_type", "type", "classification", "color", "name", "isLocked", "measurements", "metadata"}
_NOT_NUMBERS = {"NaN", "Infinity", "-Infinity"}


def properties_of(value: dict[str, Any], place: Place, report: LossReport) -> dict[str, Any]:
    """Keyword arguments of `Feature` from one GeoJSON feature; raises AnnotationFileError for a senseless value."""
    properties = value.get("properties") or {}
    if not isinstance(properties, dict):
        raise AnnotationFileError(f"{place}: “properties” is not an object. Write {{}} where there are none.")
    for key in sorted(properties.keys() - _READ):
        report.lose(f"property “{key[:60]}”", place.feature)
    class_name, class_color = _classification(properties.get("classification"), place, report)
    measurements = _measurements(properties.get("measurements"), place, report)
    score = score_of(measurements.get(SCORE))
    return {
        "uuid": uuid_of(value.get("id"), place, report, not_ids=tuple(OLD_TYPES)),
        "class_name": class_name,
        "class_color": class_color,
        "object_type": _object_type(value.get("id"), properties),
        "score": score,
        "name": text_of(properties.get("name"), "name", place),
        "color": _color(properties.get("color"), "color", place, report),
        "locked": properties.get("isLocked") is True,
        "measurements": {name: number for name, number in measurements.items() if name != SCORE or score is None},
        "metadata": _metadata(properties.get("metadata"), place, report),
    }


def write_properties(feature: Feature, class_color: str) -> dict[str, Any]:
    """The properties object QuPath reads."""
    properties: dict[str, Any] = {"objectType": feature.object_type}
    if feature.class_name != UNCLASSIFIED:
        properties["classification"] = {"name": feature.class_name, "color": rgb_of(class_color)}
    if feature.name is not None:
        properties["name"] = feature.name
    if feature.color is not None:
        properties["color"] = rgb_of(feature.color)
    if feature.locked:
        properties["isLocked"] = True
    measurements = dict(feature.measurements)
    if feature.score is not None:
        measurements[SCORE] = feature.score
    if measurements:
        properties["measurements"] = measurements
    if feature.metadata:
        properties["metadata"] = feature.metadata
    return properties


def rgb_of(color: str) -> list[int]:
    """[r, g, b] of `#rrggbb`."""
    return list(bytes.fromhex(color[1:]))


def _classification(value: Any, place: Place, report: LossReport) -> tuple[str, str | None]:
    if value is None:
        return UNCLASSIFIED, None
    if isinstance(value, str):
        return text_of(value, "classification", place) or UNCLASSIFIED, None
    if not isinstance(value, dict):
        raise AnnotationFileError(f'{place}: “classification” is neither an object nor a name. Write {{"name": …}}.')
    names = value.get("names")
    name = ": ".join(map(str, names)) if isinstance(names, list) and names else value.get("name")
    color = value.get("color", value.get("colorRGB"))
    for key in sorted(value.keys() - {"name", "names", "color", "colorRGB"}):
        report.lose(f"“{key[:60]}” of the classification", place.feature)
    class_name = text_of(name, "classification.name", place) or UNCLASSIFIED
    return class_name, _color(color, "classification.color", place, report)


def _color(value: Any, what: str, place: Place, report: LossReport) -> str | None:
    """`#rrggbb` of [r, g, b] or of Java's packed integer; anything else is noted as lost."""
    if value is None:
        return None
    if type(value) is int and -(1 << 31) <= value < 1 << 32:
        return f"#{value & 0xFFFFFF:06x}"
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return "#{:02x}{:02x}{:02x}".format(*value)
    report.lose(f"{what} that is not three whole numbers 0 to 255", place.feature)
    return None


def _measurements(value: Any, place: Place, report: LossReport) -> dict[str, float | str]:
    """Numbers by name, from an object (0.4 and later) or an array of {name, value} (before)."""
    pairs: list[tuple[Any, Any]]
    if isinstance(value, list):
        pairs = [(item.get("name"), item.get("value")) for item in value if isinstance(item, dict)]
    else:
        pairs = list(value.items()) if isinstance(value, dict) else []
    kept: dict[str, float | str] = {}
    for name, number in pairs:
        if isinstance(name, str) and _is_measurement(number):
            kept[name] = number
    dropped = len(value) - len(kept) if isinstance(value, (list, dict)) else int(value is not None)
    if dropped:
        report.lose("measurement that is not a number", place.feature)
    return kept


def _is_measurement(value: Any) -> bool:
    return type(value) in (int, float) or (isinstance(value, str) and value in _NOT_NUMBERS)


def _metadata(value: Any, place: Place, report: LossReport) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        report.lose("metadata that is not an object of texts", place.feature)
        return {}
    return value


def _object_type(id_: Any, properties: dict[str, Any]) -> str:
    word = next((properties[key] for key in ("objectType", "object_type", "type") if key in properties), id_)
    word = OLD_TYPES.get(word, word) if isinstance(word, str) else word
    return word if isinstance(word, str) and word in OBJECT_TYPES else "annotation"
