"""Layers over HTTP: the list of a slide, one layer, its features as GeoJSON or in blocks, its summary, its removal."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from flask import Blueprint, Response, jsonify, request

from app.packing import chosen_packing, set_packed
from app.parameters import bbox_of, check_names, count_of, share_of
from app.state import State, current_state
from wsi_ml.errors import ConflictError, NotFoundError
from wsi_ml.layers.blocks import unpack_block
from wsi_ml.layers.columns import UNIT, UNIT_AREA
from wsi_ml.layers.features_file import BlockFacts, FeaturesFile
from wsi_ml.layers.features_format import summary_bytes
from wsi_ml.layers.layer import Layer
from wsi_ml.layers.summary import CELL_SIDE, SummaryEntries

bp = Blueprint("layers", __name__)

DEFAULT_LIMIT = 5_000
MAX_LIMIT = 50_000
MAX_ENTRIES = 500_000
"""Most summary entries of one answer; a higher level or a smaller box has fewer."""
IMMUTABLE = "private, max-age=31536000, immutable"
SUMMARY_TYPE = "application/vnd.ocular.summary"
ADDRESS = "/api/slides/<slide_id>/layers/<layer_id>"


@bp.get("/api/slides/<slide_id>/layers")
def layers(slide_id: str) -> Response:
    """Layers of the slide's current version."""
    state = current_state()
    card = state.library.card(slide_id)
    return jsonify({"layers": state.layers.layers_json(slide_id, card)})


@bp.get(ADDRESS)
def layer(slide_id: str, layer_id: str) -> Response:
    """One layer with its classes and provenance."""
    state = current_state()
    found = _layer(state, slide_id, layer_id)
    return jsonify(found.to_json(state.library.card(slide_id, found.version).base_mpp))


@bp.delete(ADDRESS)
def remove(slide_id: str, layer_id: str) -> Response:
    """Remove a prediction; what people drew or imported is not removed over HTTP."""
    state = current_state()
    found = _layer(state, slide_id, layer_id)
    if found.kind != "prediction":
        raise ConflictError(f"Only predictions can be removed, and “{found.name}” is of kind {found.kind}.")
    state.layers.remove(layer_id)
    return Response(status=204)


@bp.get(f"{ADDRESS}/features")
def features(slide_id: str, layer_id: str) -> Response:
    """Features whose bounds meet `bbox`, largest first, as a FeatureCollection with `total` and `truncated`."""
    check_names(("bbox", "limit", "class", "min_score"), repeated=("class",))
    query: dict[str, Any] = {
        "bbox": bbox_of(),
        "limit": count_of("limit", DEFAULT_LIMIT, MAX_LIMIT),
        "classes": tuple(sorted(set(request.args.getlist("class")))) or None,
        "min_score": share_of("min_score"),
    }
    state = current_state()
    _layer(state, slide_id, layer_id)
    key = (layer_id, sorted(query.items()))
    return _immutable(key, "application/geo+json", lambda: b"".join(state.layers.geojson(layer_id, **query)))


@bp.get(f"{ADDRESS}/blocks")
def blocks(slide_id: str, layer_id: str) -> Response:
    """What lies where: the layer's blocks of features with their boxes, and the levels of its summary."""
    check_names(())
    file = _file(slide_id, layer_id)
    return _immutable((layer_id, "blocks"), "application/json", lambda: orjson.dumps(_blocks_json(file)))


@bp.get(f"{ADDRESS}/blocks/<int:number>")
def block(slide_id: str, layer_id: str, number: int) -> Response:
    """One block of features, the bytes as they are stored."""
    check_names(())
    file = _file(slide_id, layer_id)
    if number >= len(file.blocks):
        raise NotFoundError(f"There is no block {number}: this layer has {len(file.blocks)}, counted from 0.")
    packed = request.accept_encodings.quality("gzip") > 0
    response, known = _answer((file.blocks[number].checksum, packed), "application/octet-stream")
    if known:
        return response
    data = file.block_gzip(number)
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.set_data(data if packed else unpack_block(data))
    return response


@bp.get(f"{ADDRESS}/summary")
def summary(slide_id: str, layer_id: str) -> Response:
    """Area and count by cell, class and score bin at one level (the top one by default), complete and conserved."""
    check_names(("level", "bbox"))
    bbox = bbox_of()
    file = _file(slide_id, layer_id)
    top = len(file.summary_levels) - 1
    level = count_of("level", top, top, least=0)
    binary = request.accept_mimetypes.best_match(["application/json", SUMMARY_TYPE]) == SUMMARY_TYPE

    def body() -> bytes:
        entries = file.summary(level, bbox, MAX_ENTRIES)
        if binary:
            return summary_bytes(entries, level, CELL_SIDE << level)
        return _summary_json(file, level, entries)

    key = (layer_id, "summary", level, bbox, binary)
    response = _immutable(key, SUMMARY_TYPE if binary else "application/json", body)
    response.vary.add("Accept")
    return response


def _blocks_json(file: FeaturesFile) -> dict[str, Any]:
    levels = [
        {"level": each.level, "columns": each.columns, "rows": each.rows, "entries": each.entries}
        for each in file.summary_levels
    ]
    return {
        "unit": UNIT,
        "count": file.count,
        "classes": list(file.class_names),
        "blocks": [_block_json(each) for each in file.blocks],
        "summary": {"side": CELL_SIDE, "levels": levels},
    }


def _block_json(block: BlockFacts) -> dict[str, Any]:
    x0, y0, x1, y1 = block.box
    box = [math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)]
    return {"box": box, "count": block.count, "bytes": block.length}


def _summary_json(file: FeaturesFile, level: int, entries: SummaryEntries) -> bytes:
    facts = file.summary_levels[level]
    columns = (entries.columns, entries.rows, entries.class_numbers, entries.bins, entries.areas, entries.counts)
    answer = {
        "level": level,
        "side": facts.side,
        "columns": facts.columns,
        "rows": facts.rows,
        "classes": list(file.class_names),
        "unit_area": UNIT_AREA,
        "entries": np.stack([column.astype(np.int64) for column in columns], axis=1),
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _immutable(key: object, mimetype: str, body: Callable[[], bytes]) -> Response:
    """An answer that never changes, packed as the client takes it; the body is made only where it is not known."""
    packing = chosen_packing()
    response, known = _answer((key, packing), mimetype)
    if not known:
        set_packed(response, body(), packing)
    return response


def _answer(key: object, mimetype: str) -> tuple[Response, bool]:
    """(answer that may be kept for ever, whether the client has it already)."""
    response = Response(mimetype=mimetype)
    etag = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    response.set_etag(etag)
    response.headers["Cache-Control"] = IMMUTABLE
    response.vary.add("Accept-Encoding")
    known = etag in request.if_none_match
    if known:
        response.status_code = 304
    return response, known


def _layer(state: State, slide_id: str, layer_id: str) -> Layer:
    state.library.slide(slide_id)
    return state.layers.layer_of(slide_id, layer_id)


def _file(slide_id: str, layer_id: str) -> FeaturesFile:
    state = current_state()
    return state.layers.features_file(_layer(state, slide_id, layer_id).id)
