"""What QuPath 0.5 to 0.7 takes from a GeoJSON file without complaint or loss, as its QuPathTypeAdapters read it.

QuPath is lenient in what it parses and then drops or refuses things without saying so: an id that is no UUID is
replaced, a colour that is not three numbers is ignored, a measurement that is no number throws, an invalid ring throws
from JTS. Each such thing is a fault here.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import shapely

OBJECT_TYPES = {"annotation", "detection", "cell", "tile", "tmaCore"}
PROPERTIES = {"objectType", "classification", "name", "color", "isLocked", "measurements", "metadata"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOT_NUMBERS = {"NaN", "Infinity", "-Infinity"}


def faults_of(text: bytes) -> list[str]:
    """Everything in a FeatureCollection that QuPath would drop, change or refuse; empty when all is well."""
    value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    if value.get("type") != "FeatureCollection" or not isinstance(value.get("features"), list):
        return ["the top is not a FeatureCollection with features"]
    faults = [f"feature {n}: {fault}" for n, each in enumerate(value["features"]) for fault in _feature(each)]
    ids = [each.get("id") for each in value["features"]]
    return faults + (["an id is used twice"] if len(set(ids)) != len(ids) else [])


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError(f"a key is there twice among {[key for key, _ in pairs]}")
    return dict(pairs)


def _feature(value: dict[str, Any]) -> list[str]:
    faults = [] if value.get("type") == "Feature" else ["its type is not Feature"]
    faults += [f"unknown member {key}" for key in value.keys() - {"type", "id", "geometry", "properties"}]
    if not isinstance(value.get("id"), str) or not UUID.fullmatch(value["id"]):
        faults.append(f"its id {value.get('id')} is not a UUID")
    properties = value.get("properties")
    if not isinstance(properties, dict):
        return [*faults, "its properties are no object"]
    return faults + _geometry(value.get("geometry")) + _properties(properties)


def _properties(value: dict[str, Any]) -> list[str]:
    faults = [f"unknown property {key}" for key in value.keys() - PROPERTIES]
    if value.get("objectType") not in OBJECT_TYPES:
        faults.append(f"objectType {value.get('objectType')} is none of QuPath's")
    if "classification" in value:
        found = value["classification"]
        good = isinstance(found, dict) and found.keys() == {"name", "color"} and isinstance(found["name"], str)
        if not good or not found["name"] or not _is_rgb(found["color"]):
            faults.append(f"classification {found} is not a name and a colour")
    if "name" in value and not isinstance(value["name"], str):
        faults.append("its name is not a text")
    if "color" in value and not _is_rgb(value["color"]):
        faults.append(f"color {value['color']} is not three numbers")
    if "isLocked" in value and value["isLocked"] is not True:
        faults.append("isLocked is there and not true")
    measurements = value.get("measurements", {})
    if not isinstance(measurements, dict) or not all(map(_is_measurement, measurements.values())):
        faults.append("measurements are not an object of numbers")
    metadata = value.get("metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        faults.append("metadata is not an object of texts")
    return faults


def _is_rgb(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(n) is int and 0 <= n <= 255 for n in value)


def _is_measurement(value: Any) -> bool:
    return (type(value) in (int, float) and math.isfinite(value)) or value in NOT_NUMBERS


def _geometry(value: Any) -> list[str]:
    if not isinstance(value, dict) or value.keys() != {"type", "coordinates"}:
        return ["its geometry is not a type and coordinates"]
    if value["type"] not in ("Polygon", "MultiPolygon"):
        return [f"its geometry is a {value['type']}"]
    polygons = [value["coordinates"]] if value["type"] == "Polygon" else value["coordinates"]
    for rings in polygons:
        for ring in rings:
            if len(ring) < 4 or ring[0] != ring[-1]:
                return ["a ring is not closed or has fewer than four points"]
            if not all(len(point) == 2 and all(type(n) in (int, float) for n in point) for point in ring):
                return ["a point is not two numbers"]
    geometry = shapely.from_geojson(json.dumps(value))
    return [] if geometry.is_valid and geometry.area > 0 else [f"its geometry: {shapely.is_valid_reason(geometry)}"]
