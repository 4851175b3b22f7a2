"""Layers as files of other programs: streamed, so that memory does not grow with the layer."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request

from app.layers import ADDRESS, IMMUTABLE
from app.parameters import check_names, share_of
from app.state import current_state
from wsi_ml.formats.writing import REVISION, writer_of
from wsi_ml.layers.exporting import Export, export_layer

bp = Blueprint("exports", __name__)

_EAGER = 2
"""Chunks made before the answer begins, so that what is wrong with a layer is still a problem and not a cut."""


@bp.get(f"{ADDRESS}/export")
def export(slide_id: str, layer_id: str) -> Response:
    """The layer as a file; `format`, `plane`, `class` and `min_score` say which."""
    query = _query()
    made = _export(slide_id, layer_id, query)
    response = Response(mimetype=made.writer.media_type)
    etag = hashlib.sha256(repr((layer_id, sorted(query.items()), REVISION)).encode()).hexdigest()[:32]
    response.set_etag(etag)
    response.headers["Cache-Control"] = IMMUTABLE
    response.headers.set("Content-Disposition", "attachment", **_names(made.file_name))
    if etag in request.if_none_match:
        response.status_code = 304
        return response
    first = list(itertools.islice(made.chunks, _EAGER))
    response.response = itertools.chain(first, made.chunks)
    return response


@bp.get(f"{ADDRESS}/export/report")
def report(slide_id: str, layer_id: str) -> Response:
    """What the file of the same address without `/report` would not keep."""
    made = _export(slide_id, layer_id, _query())
    for _ in made.chunks:
        pass
    response = jsonify(made.report.to_json())
    response.headers["Cache-Control"] = IMMUTABLE
    return response


def _query() -> dict[str, Any]:
    """Keyword arguments of `export_layer`; raises BadRequestError for anything not exactly as documented."""
    check_names(("format", "plane", "class", "min_score"), repeated=("class",))
    format_ = request.args.get("format", "geojson")
    writer_of(format_)
    return {
        "format": format_,
        "plane": request.args.get("plane", "base"),
        "classes": tuple(sorted(set(request.args.getlist("class")))) or None,
        "min_score": share_of("min_score"),
    }


def _names(file_name: str) -> dict[str, str]:
    """A file's name twice: in ASCII, and in full as RFC 8187 has it, for headers hold no other letters."""
    plain = unicodedata.normalize("NFKD", file_name).encode("ascii", "ignore").decode()
    plain = plain if not plain.startswith(".") else f"layer{plain}"
    return {"filename": plain, "filename*": f"UTF-8''{quote(file_name, safe='')}"}


def _export(slide_id: str, layer_id: str, query: dict[str, Any]) -> Export:
    state = current_state()
    state.library.slide(slide_id)
    return export_layer(state.library.root, slide_id, layer_id, store=state.layers, **query)
