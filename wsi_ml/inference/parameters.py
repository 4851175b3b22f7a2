"""What may be chosen of a prediction, and what the choices mean; everything from outside passes here once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsi_ml.errors import BadRequestError

TISSUE = ("otsu", "all")
MAX_BATCH = 1024
MAX_OVERLAP = 0.75
MAX_AREA_UM2 = 1e9
MAX_SIMPLIFY_PX = 100.0
HELP = {
    "threshold": "smallest probability of a feature, 0 to 1 (default: the model's)",
    "tissue": "where to look: otsu (tissue only, default) or all",
    "min_area_um2": "features smaller than this, in µm², are dropped (default: the model's)",
    "simplify_px": "how far an outline may be moved to have fewer corners, in stored pixels (default: the model's)",
    "batch": "windows the model gets at once (default: by the machine)",
    "overlap": "share of a window that the next one tells again, averaged; 0 (default) to 0.75",
}
"""Every parameter and what it does."""


@dataclass(frozen=True)
class PredictParameters:
    """Checked parameters of a prediction; None leaves the choice to the model's card."""

    threshold: float | None = None
    tissue: str = "otsu"
    min_area_um2: float | None = None
    simplify_px: float | None = None
    batch: int | None = None
    overlap: float = 0.0

    def chosen(self) -> dict[str, Any]:
        """The parameters that differ from their defaults, in order of name: equal choices give equal mappings."""
        return {name: value for name in sorted(HELP) if (value := getattr(self, name)) != getattr(_DEFAULTS, name)}


_DEFAULTS = PredictParameters()


def check_parameters(values: Mapping[str, Any]) -> PredictParameters:
    """Parameters of plain values, numbers also as text; raises BadRequestError naming the parameter and its range."""
    unknown = sorted(set(values) - set(HELP))
    if unknown:
        raise BadRequestError(f"There is no parameter {unknown[0]!r}; there are {', '.join(HELP)}.")
    return PredictParameters(
        threshold=_number(values, "threshold", 0.0, 1.0),
        tissue=_choice(values, "tissue", TISSUE),
        min_area_um2=_number(values, "min_area_um2", 0.0, MAX_AREA_UM2),
        simplify_px=_number(values, "simplify_px", 0.0, MAX_SIMPLIFY_PX),
        batch=_whole(values, "batch", 1, MAX_BATCH),
        overlap=_number(values, "overlap", 0.0, MAX_OVERLAP) or 0.0,
    )


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    given = values.get(name)
    if given is None:
        return None
    try:
        number = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise BadRequestError(f"The parameter {name} must be a number from {low:g} to {high:g}, not {given!r}.")
    return number


def _whole(values: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    number = _number(values, name, low, high)
    if number is not None and number != int(number):
        raise BadRequestError(f"The parameter {name} must be a whole number, not {values[name]!r}.")
    return None if number is None else int(number)


def _choice(values: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    given = values.get(name)
    if given is None:
        return choices[0]
    if given not in choices:
        raise BadRequestError(f"The parameter {name} must be one of {', '.join(choices)}, not {given!r}.")
    return given
