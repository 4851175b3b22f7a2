"""One feature of a layer: an outline with its class, as every format reads and writes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import shapely

UNCLASSIFIED = "Unclassified"
"""Class of a feature whose file names none (the word QuPath shows for it)."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A Polygon or MultiPolygon in pixels of one plane (which one, the holder knows), x right, y down."""

    geometry: shapely.Geometry
    uuid: str
    class_name: str = UNCLASSIFIED
    class_color: str | None = None
    """Colour of the class as `#rrggbb`, where the file states one."""
    object_type: str = "annotation"
    """QuPath's word: `annotation`, `detection`, `cell`, `tile` or `tmaCore`."""
    score: float | None = None
    """Confidence of a model, 0 to 1; None for anything a person drew."""
    name: str | None = None
    color: str | None = None
    """The feature's own colour where it differs from its class's, `#rrggbb`."""
    locked: bool = False
    measurements: dict[str, float | str] = field(default_factory=dict)
    """Numbers by name; NaN and infinities as the words `NaN`, `Infinity`, `-Infinity`, as QuPath writes them."""
    metadata: dict[str, str] = field(default_factory=dict)
