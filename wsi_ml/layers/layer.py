"""What a layer is: a named set of features on one slide version, with its classes, immutable once published."""

from __future__ import annotations

import datetime
import secrets
import string
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wsi_ml.formats.feature import Feature
from wsi_ml.layers.columns import UNIT_AREA

KINDS = ("truth", "annotation", "prediction")
ID_LENGTH = 12
_ID_LETTERS = string.ascii_lowercase + string.digits


class BaseBox(NamedTuple):
    """A closed box in base-plane pixels: left, top, right, bottom."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class LayerClass:
    """One class of a layer; `base_area` is the summed area of its features in base-plane pixels²."""

    name: str
    color: str
    """`#rrggbb`, lower case."""
    count: int
    base_area: float


@dataclass(frozen=True)
class Layer:
    """A published layer without its features; `classes` in order of name."""

    id: str
    slide_id: str
    version: str
    name: str
    kind: str
    provenance: dict[str, Any]
    created: str
    classes: tuple[LayerClass, ...]
    stored_in: str = "database"
    """Where the features are kept: `database` (exact) or `file` (sixteenths of a base-plane pixel)."""
    scored: bool = False
    """True when any feature has a score."""

    @property
    def count(self) -> int:
        """Number of features."""
        return sum(each.count for each in self.classes)

    @property
    def colors(self) -> dict[str, str]:
        """Colour by class name."""
        return {each.name: each.color for each in self.classes}

    def to_json(self, base_mpp: float) -> dict[str, Any]:
        """The layer as plain JSON values, areas in µm² for a base plane of `base_mpp` µm per pixel."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "version": self.version,
            "created": self.created,
            "count": self.count,
            "scored": self.scored,
            "unit_area": UNIT_AREA,
            "classes": [
                {
                    "name": each.name,
                    "color": each.color,
                    "count": each.count,
                    "area_um2": each.base_area * base_mpp**2,
                }
                for each in self.classes
            ],
            "provenance": self.provenance,
        }


@dataclass(frozen=True)
class NewLayer:
    """What a layer is to be when it is published; colours for classes that have none come from the palette."""

    slide_id: str
    version: str
    name: str
    kind: str
    provenance: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    id: str = field(default_factory=lambda: "".join(secrets.choice(_ID_LETTERS) for _ in range(ID_LENGTH)))


@dataclass(frozen=True)
class FeaturePage:
    """Features of one query, largest first, so that smaller ones are drawn over them; `total` counts all that match."""

    features: list[Feature]
    total: int

    @property
    def truncated(self) -> bool:
        """True when the limit left matching features out."""
        return len(self.features) < self.total
