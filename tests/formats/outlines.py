"""Small GeoJSON documents for tests."""

from __future__ import annotations

from typing import Any

import orjson

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
