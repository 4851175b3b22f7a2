"""From what somebody asks for to a job that can be queued: everything that can be refused is refused here, at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_ml.errors import BadRequestError
from wsi_ml.inference.predicting import PredictRequest, prepare
from wsi_ml.jobs.job import KINDS, PRIORITIES, JobBox, NewJob
from wsi_ml.layers.layer import BaseBox

KEYS = ("kind", "slide", "model", "region", "parameters", "preview", "priority")
NEEDED = ("kind", "slide", "model")
LONGEST_WORD = 64
LARGEST_NUMBER = 2**31


def order(library_root: Path, asked: Mapping[str, Any]) -> NewJob:
    """The job that plain values (as of JSON) ask for, on the slide's current version.

    Keys: `kind` (`predict`), `slide` (id), `model` (name), `region` ([x0, y0, x1, y1] in base-plane pixels, rounded
    outwards and clipped to the slide; absent or null for the whole slide), `parameters` (see `check_parameters`),
    `preview` (true or false; needs a region), `priority` (-100 to 100, the higher goes first). Raises BadRequestError
    naming the key at fault, and the errors of `wsi_ml.inference.predicting.prepare`. Computes nothing.
    """
    unknown = sorted(set(asked) - set(KEYS))
    if unknown:
        raise BadRequestError(f"There is no key “{unknown[0][:LONGEST_WORD]}”; there are {', '.join(KEYS)}.")
    for key in NEEDED:
        _check_word(asked, key)
    if asked["kind"] not in KINDS:
        raise BadRequestError(f"“kind” is {' or '.join(KINDS)}.")
    box, preview, priority = _box(asked.get("region")), _flag(asked, "preview"), _priority(asked.get("priority", 0))
    if preview and box is None:
        raise BadRequestError("“preview” needs a “region”.")
    parameters = _parameters(asked.get("parameters"))
    request = PredictRequest(asked["slide"], asked["model"], region=box, parameters=parameters, preview=preview)
    prediction = prepare(library_root, request)
    region = JobBox(*prediction.base_region) if prediction.base_region else None
    if preview and region is None:
        # A view of all of a small slide is a preview still, with a box by which it finds its lane.
        region = JobBox(0, 0, *prediction.slide.base_size)
    return NewJob(
        key=prediction.key,
        slide_id=prediction.slide_id,
        version=prediction.version,
        model=prediction.card.name,
        region=region,
        parameters=prediction.parameters.chosen(),
        preview=preview,
        priority=priority,
        kind=asked["kind"],
    )


def _check_word(asked: Mapping[str, Any], key: str) -> None:
    value = asked.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_WORD:
        raise BadRequestError(f"“{key}” is missing or no text of 1 to {LONGEST_WORD} characters.")


def _flag(asked: Mapping[str, Any], key: str) -> bool:
    value = asked.get(key, False)
    if not isinstance(value, bool):
        raise BadRequestError(f"“{key}” is true or false.")
    return value


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in PRIORITIES:
        raise BadRequestError(f"“priority” is a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}.")
    return value


def _parameters(value: object) -> dict[str, Any]:
    """Parameters of a form that can be checked; their names and values are checked by `prepare`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequestError("“parameters” is an object.")
    for key, each in value.items():
        if len(key) > LONGEST_WORD or isinstance(each, (dict, list)) or len(str(each)) > LONGEST_WORD:
            raise BadRequestError(f"“parameters”: “{key[:LONGEST_WORD]}” is no short number or word.")
    return value


def _box(value: object) -> BaseBox | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise BadRequestError("“region” is four numbers [x0, y0, x1, y1] in base-plane pixels.")
    if value[0] >= value[2] or value[1] >= value[3]:
        raise BadRequestError("“region” is [x0, y0, x1, y1] with x0 < x1 and y0 < y1.")
    return BaseBox(*value)


def _is_number(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) < LARGEST_NUMBER  # type: ignore[arg-type]
