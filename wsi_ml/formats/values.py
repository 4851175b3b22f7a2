"""Small values that every format reads alike: texts, ids, colours."""

from __future__ import annotations

import re
import uuid
from typing import Any

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place

NAME_LIMIT = 256
SCORE = "score"
"""Name under which formats without a word for it hold a model's confidence, 0 to 1."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def text_of(value: Any, what: str, place: Place) -> str | None:
    """A text, None where there is none; raises AnnotationFileError for anything else or a text too long."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > NAME_LIMIT or "\0" in value:
        raise AnnotationFileError(f"{place}: “{what}” is not a text of at most {NAME_LIMIT} characters. Shorten it.")
    return value


def uuid_of(value: Any, place: Place, report: LossReport, *, not_ids: tuple[str, ...] = ()) -> str:
    """The feature's UUID, or a new one: QuPath keeps an id only when it is a UUID. `not_ids` are no ids."""
    if isinstance(value, str) and _UUID.fullmatch(value):
        return value.lower()
    if value is not None and value not in not_ids:
        report.lose("id that is not a UUID (a new one was given)", place.feature)
    return str(uuid.uuid4())


def hex_color(value: str | None, what: str, place: Place, report: LossReport) -> str | None:
    """`#rrggbb` in lower case, None where there is none; anything else is noted as lost."""
    if value is None or _HEX_COLOR.fullmatch(value):
        return value.lower() if value else None
    if value:
        report.lose(f"{what} that is not #rrggbb", place.feature)
    return None


def score_of(value: Any) -> float | None:
    """A confidence from 0 to 1, else None."""
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None
