"""Layers as JSON: the list of a slide, one layer, and its features for a box as GeoJSON."""

from __future__ import annotations

import gzip
import hashlib
import re
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.state import State, current_state
from wsi_ml.errors import BadRequestError
from wsi_ml.formats.geojson import write_features
from wsi_ml.layers.layer import BaseBox, Layer

bp = Blueprint("layers", __name__)

DEFAULT_LIMIT = 5_000
MAX_LIMIT = 50_000
GZIP_BYTES = 16 << 10
IMMUTABLE = "private, max-age=31536000, immutable"
_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
_PARAMETERS = {"bbox", "limit", "class", "min_score"}


@bp.get("/api/slides/<slide_id>/layers")
def layers(slide_id: str) -> Response:
    """Layers of the slide's current version."""
    state = current_state()
    card = state.library.card(slide_id)
    return jsonify({"layers": state.layers.layers_json(slide_id, card)})


@bp.get("/api/slides/<slide_id>/layers/<layer_id>")
def layer(slide_id: str, layer_id: str) -> Response:
    """One layer with its classes and provenance."""
    state = current_state()
    found = _layer(state, slide_id, layer_id)
    return jsonify(found.to_json(state.library.card(slide_id, found.version).base_mpp))


@bp.get("/api/slides/<slide_id>/layers/<layer_id>/features")
def features(slide_id: str, layer_id: str) -> Response:
    """Features whose bounds meet `bbox`, largest first, as a FeatureCollection with `total` and `truncated`."""
    query = _parse_query()
    state = current_state()
    found = _layer(state, slide_id, layer_id)
    packed = request.accept_encodings.quality("gzip") > 0
    response = Response(mimetype="application/geo+json")
    etag = hashlib.sha256(repr((layer_id, sorted(query.items()), packed)).encode()).hexdigest()[:32]
    response.set_etag(etag)
    response.headers["Cache-Control"] = IMMUTABLE
    response.vary.add("Accept-Encoding")
    if etag in request.if_none_match:
        response.status_code = 304
        return response
    page = state.layers.features(layer_id, **query)
    body = b"".join(write_features(page.features, found.colors, total=page.total, truncated=page.truncated))
    if packed and len(body) >= GZIP_BYTES:
        body = gzip.compress(body, 1, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
    response.set_data(body)
    return response


def _parse_query() -> dict[str, Any]:
    """Keyword arguments of `LayerStore.features`; raises BadRequestError for anything not exactly as documented."""
    for name, values in request.args.lists():
        if name not in _PARAMETERS:
            raise BadRequestError(f"There is no parameter “{name[:40]}”; there are {', '.join(sorted(_PARAMETERS))}.")
        if name != "class" and len(values) > 1:
            raise BadRequestError(f"“{name}” is given {len(values)} times; give it once.")
    bbox, limit, score = (request.args.get(name) for name in ("bbox", "limit", "min_score"))
    return {
        "bbox": None if bbox is None else _parse_bbox(bbox),
        "limit": DEFAULT_LIMIT if limit is None else _parse_limit(limit),
        "classes": tuple(sorted(set(request.args.getlist("class")))) or None,
        "min_score": None if score is None else _parse_score(score),
    }


def _parse_bbox(text: str) -> BaseBox:
    parts = text.split(",")
    if len(parts) != 4 or not all(map(_NUMBER.fullmatch, parts)):
        raise BadRequestError("“bbox” is four numbers x0,y0,x1,y1 in base-plane pixels.")
    box = BaseBox(*map(float, parts))
    if box.x1 < box.x0 or box.y1 < box.y0:
        raise BadRequestError("“bbox” is x0,y0,x1,y1 with x0 ≤ x1 and y0 ≤ y1.")
    return box


def _parse_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise BadRequestError(f"“limit” is a whole number from 1 to {MAX_LIMIT}.")
    return int(text)


def _parse_score(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not 0 <= float(text) <= 1:
        raise BadRequestError("“min_score” is a number from 0 to 1.")
    return float(text)


def _layer(state: State, slide_id: str, layer_id: str) -> Layer:
    state.library.slide(slide_id)
    return state.layers.layer_of(slide_id, layer_id)
