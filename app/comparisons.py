"""Truth against prediction over HTTP: figures at a threshold, overlapping pairs, the curve, the list of errors."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from flask import Blueprint, Response, jsonify, request

from app.parameters import bbox_of, check_names, count_of, share_of
from app.state import current_state
from wsi_ml.errors import BadRequestError
from wsi_ml.layers.compare import Comparison, Selection, Side
from wsi_ml.layers.comparing import FORMAT, figures
from wsi_ml.layers.layer import Layer
from wsi_ml.slides.card import Card

bp = Blueprint("comparisons", __name__)

PAIRS_MAGIC = b"OCP1"
ORDERS = ("size", "score")
DEFAULT_ERRORS, MOST_ERRORS = 200, 50_000
KEEP = "private, no-cache"
"""Kept by the browser, but asked for again: a later Ocular may measure better."""
_COMMON = {"truth", "prediction", "classes", "iou"}
_VIEW = _COMMON | {"min_score", "bbox"}


@bp.get("/api/slides/<slide_id>/compare")
def compare(slide_id: str) -> Response:
    """Detection and area figures by class and overall, for the slide or a box."""
    truth, prediction, comparison, card = _comparison(slide_id, _VIEW)
    if (answer := _unchanged()) is not None:
        return answer
    selection = _selection()
    comparisons = current_state().comparisons
    areas = None
    if selection.box is not None:
        areas = comparisons.areas(truth.id, prediction.id, comparison, selection.box)
    return _kept(jsonify(figures(truth, comparison, selection, card.base_mpp, areas)))


@bp.get("/api/slides/<slide_id>/compare/pairs")
def pairs(slide_id: str) -> Response:
    """All overlapping pairs, best IoU first, as numbers: what the browser matches by at any threshold."""
    _, _, comparison, _ = _comparison(slide_id, {"truth", "prediction", "classes"})
    if (answer := _unchanged()) is not None:
        return answer
    found = comparison.pairs
    columns = found.truth.astype("<u4"), found.prediction.astype("<u4"), found.iou.astype("<f4")
    body = PAIRS_MAGIC + struct.pack("<I", len(found)) + b"".join(column.tobytes() for column in columns)
    return _kept(Response(body, mimetype="application/octet-stream"))


@bp.get("/api/slides/<slide_id>/compare/curve")
def curve(slide_id: str) -> Response:
    """Precision and recall at every threshold, and average precision."""
    _, _, comparison, _ = _comparison(slide_id, _COMMON)
    if (answer := _unchanged()) is not None:
        return answer
    iou = _selection().iou
    return _kept(jsonify({"iou": iou, "mode": comparison.mode} | comparison.curve(iou)))


@bp.get("/api/slides/<slide_id>/compare/errors")
def errors(slide_id: str) -> Response:
    """False positives and missed truths of the slide or a box, by size or by score."""
    _, _, comparison, card = _comparison(slide_id, _VIEW | {"order", "limit"})
    if (answer := _unchanged()) is not None:
        return answer
    order = request.args.get("order", "size")
    if order not in ORDERS:
        raise BadRequestError(f"“order” is one of {', '.join(ORDERS)}.")
    found = comparison.errors(_selection(), order)
    listed = found[: count_of("limit", DEFAULT_ERRORS, MOST_ERRORS)]
    rows = [_error(comparison, kind, number, card) for kind, number in listed]
    return _kept(jsonify({"total": len(found), "errors": rows}))


def _comparison(slide_id: str, allowed: set[str]) -> tuple[Layer, Layer, Comparison, Card]:
    """What the address names; raises BadRequestError, UnknownSlideError, UnknownLayerError."""
    check_names(allowed)
    state = current_state()
    state.library.slide(slide_id)
    layers = [request.args.get(name) for name in ("truth", "prediction")]
    if None in layers:
        raise BadRequestError("Name the two layers: truth=…&prediction=…")
    mode = request.args.get("classes")
    truth, prediction, comparison = state.comparisons.between(slide_id, layers[0] or "", layers[1] or "", mode)
    return truth, prediction, comparison, state.library.card(slide_id, truth.version)


def _selection() -> Selection:
    iou = share_of("iou")
    return Selection(share_of("min_score") or 0.0, 0.5 if iou is None else iou, bbox_of())


def _error(comparison: Comparison, kind: str, number: int, card: Card) -> dict[str, Any]:
    side: Side = comparison.prediction if kind == "fp" else comparison.truth
    scored = side.scores[number] <= 10_000
    return {
        "kind": kind,
        "number": number,
        "class": comparison.classes[side.classes[number]],
        "score": int(side.scores[number]) / 10_000 if scored else None,
        "area_um2": float(side.areas[number]) * card.base_mpp**2,
        "box": np.asarray(side.boxes[number]).tolist(),
    }


def _etag() -> str:
    return hashlib.sha256(f"{FORMAT} {request.full_path}".encode()).hexdigest()[:32]


def _unchanged() -> Response | None:
    """304 where the client has the answer already: layers never change, so what follows from them does not either."""
    if _etag() not in request.if_none_match:
        return None
    return _kept(Response(status=304))


def _kept(response: Response) -> Response:
    response.set_etag(_etag())
    response.headers["Cache-Control"] = KEEP
    return response
