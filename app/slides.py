"""Slides as JSON: the gallery's list, one slide's card, its thumbnail."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from flask import Blueprint, Response, jsonify, request

from app.state import State, current_state
from app.tiles import FOR_EVER
from wsi_ml.errors import BadRequestError, NotFoundError
from wsi_ml.licences import is_free
from wsi_ml.slides.card import THUMBNAIL_FILE, Card
from wsi_ml.slides.kept import KeptTiles
from wsi_ml.slides.library import Slide
from wsi_ml.slides.tiles import AUTO, SCAN, STORED, Source
from wsi_ml.sr.upscaler import BICUBIC_MPP_RANGE

bp = Blueprint("slides", __name__)


def magnification(card: Card, doublings: int) -> str:
    """Words for the magnification of the stored plane (0) or the base plane (1), such as `×20`."""
    power = 10.0 / card.stored_mpp * 2**doublings
    if BICUBIC_MPP_RANGE[0] <= card.stored_mpp <= BICUBIC_MPP_RANGE[1]:
        power = 20.0 * 2**doublings
    return f"×{power:.3g}"


def source_json(slide: Slide, version: str, card: Card, source: Source) -> dict[str, Any]:
    """One source of pixels as the viewer needs it; the address is pinned to the model's hash."""
    named = source.name in (STORED, AUTO, SCAN)
    kind = source.name if named or source.upscaler is None else source.upscaler.kind
    power = magnification(card, 1 if source.upscaler or source.kept else 0)
    labels = {
        "stored": f"Stored {power}",
        "bicubic": f"Bicubic {power}",
        "scan": f"Scan {power}, where it was kept",
        "auto": f"Best available {power}",
        "sr": f"Super-resolution {power} ({source.name})",
    }
    facts: dict[str, Any] = {
        "source": source.name,
        "kind": kind,
        "label": labels[kind],
        "dzi": f"/dzi/{slide.id}/{version}/{source.address}.dzi",
        "width": source.deep_zoom.size.width,
        "height": source.deep_zoom.size.height,
        "synthesised": source.upscaler is not None,
    }
    if source.kept is not None:
        facts["kept"] = kept_json(source.kept)
    if source.upscaler is not None:
        facts["model"] = {"name": source.upscaler.name, "sha256": source.upscaler.sha256}
        if not is_free(source.upscaler):
            facts["label"] += ", research only"
            facts["model"]["research_only"] = True
    return facts


def kept_json(tiles: KeptTiles) -> dict[str, Any]:
    """Which ×40 tiles are kept, so that the viewer asks for no others: a bit a tile in row order, as base64."""
    rows, columns = tiles.fidelity.kept.shape
    bits = base64.b64encode(np.packbits(tiles.fidelity.kept).tobytes()).decode("ascii")
    return {
        "tiles": tiles.facts.tiles,
        "kept": tiles.facts.kept,
        "columns": columns,
        "rows": rows,
        "bits": bits,
    }


def facts_json(card: Card) -> dict[str, Any]:
    """The facts of the ingestion that the slide card shows."""
    source = card.source
    return {
        "vendor": source.vendor,
        "scan_size": list(source.l0_size),
        "scan_mpp": source.l0_mpp,
        "mpp_given": source.mpp_given,
        "bounds_offset": list(source.l0_bounds_offset),
        "scan_objective_power": source.objective_power,
        "halvings": source.halvings,
        "kernel": card.kernel,
        "encoding": card.encoding,
        "icc": card.icc,
        "source_bytes": source.bytes,
        "source_sha256": source.sha256,
        "pyramid_bytes": card.pyramid_bytes,
        "pyramid_sha256": card.pyramid_sha256,
    }


def slide_json(state: State, slide: Slide, version: str | None = None) -> dict[str, Any]:
    """Card of a slide at one version, by default the current one."""
    version = version or slide.current
    tiles = state.versions.get(slide.id, version)
    card = tiles.card
    power = None if not BICUBIC_MPP_RANGE[0] <= card.stored_mpp <= BICUBIC_MPP_RANGE[1] else 20
    return {
        "id": slide.id,
        "name": slide.name,
        "version": version,
        "current": slide.current,
        "created": card.created,
        "state": "ready",
        "stored": {"width": card.stored_size.width, "height": card.stored_size.height, "mpp": card.stored_mpp},
        "base": {"width": card.base_size.width, "height": card.base_size.height, "mpp": card.base_mpp},
        "objective_power": power,
        "tile_side": card.tile_side,
        "levels": [list(size) for size in card.levels],
        "sources": [source_json(slide, version, card, source) for source in tiles.sources.values()],
        "thumbnail": f"/api/slides/{slide.id}/{version}/thumbnail.jpg",
        "layers": state.layers.layers_json(slide.id, card),
        "facts": facts_json(card),
        "faithful": tiles.kept.facts.to_json() if tiles.kept else None,
    }


@bp.get("/api/slides")
def slides() -> Response:
    """Cards of all slides, by name."""
    state = current_state()
    return jsonify({"slides": [slide_json(state, slide) for slide in state.library.slides()]})


@bp.get("/api/slides/<slide_id>")
def slide(slide_id: str) -> Response:
    """Card of one slide; `version` asks for an older version than the current one."""
    state = current_state()
    unknown = set(request.args) - {"version"}
    if unknown:
        raise BadRequestError(f"There is no parameter “{min(unknown)}”.")
    return jsonify(slide_json(state, state.library.slide(slide_id), request.args.get("version")))


@bp.get("/api/slides/<slide_id>/<version>/thumbnail.jpg")
def thumbnail(slide_id: str, version: str) -> Response:
    """Picture of the tissue for the gallery, made from stored pixels (never from the vendor's label or macro)."""
    path = current_state().library.folder(slide_id, version) / THUMBNAIL_FILE
    if not path.is_file():
        raise NotFoundError("This slide version has no thumbnail; run `ocular verify`.")
    response = Response(path.read_bytes(), mimetype="image/jpeg")
    response.set_etag(f"{version}-thumbnail")
    response.headers["Cache-Control"] = FOR_EVER
    response.make_conditional(request)
    return response
