"""What a request that changes something must bring: our own page as its origin, and a strict JSON body."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import request

from wsi_ml.errors import BadRequestError, ForeignOriginError, MediaTypeError, TooLargeError

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITES = ("same-origin", "none")
BODY_LIMIT = 64 << 10


def refuse_foreign_writes() -> None:
    """Raise ForeignOriginError for a write that another site's page sent; run before every request.

    Browsers state `Origin` with every write and `Sec-Fetch-Site` with every request, and no page can forge them;
    programs state neither. Only host and port are compared: a proxy may speak HTTPS for us.
    """
    if request.method in SAFE_METHODS:
        return
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    is_own = origin is None or (urlsplit(origin).netloc == request.host and origin != "null")
    if not is_own or (site is not None and site not in OWN_SITES):
        raise ForeignOriginError("Changes are taken from Ocular's own pages only, not from another site.")


def json_body(limit: int = BODY_LIMIT) -> dict[str, Any]:
    """The JSON object a request brings.

    Raises MediaTypeError where it is not declared as plain `application/json`, TooLargeError above `limit` bytes, and
    BadRequestError for anything that is not one object in strict JSON (UTF-8, no NaN, no key twice).
    """
    if request.mimetype != "application/json":
        raise MediaTypeError("The body must be JSON: send it with Content-Type: application/json.")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise MediaTypeError("The body must not be packed: send it without Content-Encoding.")
    if (request.content_length or 0) > limit:
        raise TooLargeError(f"The body may have {limit >> 10} KiB at most.")
    data = request.get_data(cache=False)
    if len(data) > limit:
        raise TooLargeError(f"The body may have {limit >> 10} KiB at most.")
    try:
        # orjson refuses what is not JSON but lets equal keys pass; the second reading refuses those.
        value = orjson.loads(data)
        json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The body is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BadRequestError("The body is not a JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value
