"""Query parameters, read strictly: anything not exactly as documented is a 400 that names it."""

from __future__ import annotations

import re
from collections.abc import Collection

from flask import request

from wsi_ml.errors import BadRequestError
from wsi_ml.layers.layer import BaseBox

_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")


def check_names(allowed: Collection[str], repeated: Collection[str] = ()) -> None:
    """Raise BadRequestError for a parameter that does not exist, or is given twice and not in `repeated`."""
    for name, values in request.args.lists():
        if name not in allowed:
            raise BadRequestError(f"There is no parameter “{name[:40]}”; there are {', '.join(sorted(allowed))}.")
        if name not in repeated and len(values) > 1:
            raise BadRequestError(f"“{name}” is given {len(values)} times; give it once.")


def bbox_of(name: str = "bbox") -> BaseBox | None:
    """A box x0,y0,x1,y1 in base-plane pixels, None where the parameter is absent."""
    text = request.args.get(name)
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(map(_NUMBER.fullmatch, parts)):
        raise BadRequestError(f"“{name}” is four numbers x0,y0,x1,y1 in base-plane pixels.")
    box = BaseBox(*map(float, parts))
    if box.x1 < box.x0 or box.y1 < box.y0:
        raise BadRequestError(f"“{name}” is x0,y0,x1,y1 with x0 ≤ x1 and y0 ≤ y1.")
    return box


def count_of(name: str, default: int, most: int, least: int = 1) -> int:
    """A whole number from `least` to `most`, the default where the parameter is absent."""
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise BadRequestError(f"“{name}” is a whole number from {least} to {most}.")
    return int(text)


def share_of(name: str) -> float | None:
    """A number from 0 to 1, None where the parameter is absent."""
    text = request.args.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not 0 <= float(text) <= 1:
        raise BadRequestError(f"“{name}” is a number from 0 to 1.")
    return float(text)
