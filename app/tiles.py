"""Deep Zoom over HTTP: parse an address, ask the tile plan, answer. Shared by the Flask routes and the async front.

`answer` never blocks on a network: what an upscaler has to make comes back as a `PendingTile`, which the front awaits
and a plain WSGI server waits for.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from flask import Blueprint, Response, request

from app import errors
from app.security import HEADERS
from app.state import State, current_state
from wsi_ml.errors import BadRequestError, NotFoundError, OcularError
from wsi_ml.slides.codec import MEDIA_TYPES
from wsi_ml.slides.tiles import DerivedTile, KeptTile, Source, StoredTile, SynthesisedTile, VersionTiles

bp = Blueprint("tiles", __name__)

SLIDE = r"/dzi/([a-z0-9]{8,64})/([0-9a-f]{16})/([a-z0-9-]{1,40}(?:@[0-9a-f]{12})?)"
NUMBER = r"(0|[1-9][0-9]{0,6})"
TILE_PATH = re.compile(rf"{SLIDE}_files/(0|[1-9][0-9]?)/{NUMBER}_{NUMBER}\.(jpg|png|webp)", re.ASCII)
DESCRIPTOR_PATH = re.compile(rf"{SLIDE}\.dzi", re.ASCII)
FOR_EVER = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"
TILE_CODE = "1"
"""Part of every ETag: raised when the way tiles are cropped or encoded changes."""

Headers = list[tuple[str, str]]


class TileAnswer(NamedTuple):
    """A whole HTTP answer."""

    status: int
    body: bytes
    headers: Headers


class PendingTile(NamedTuple):
    """An answer that waits for a synthesised tile."""

    version: str
    plan: SynthesisedTile
    headers: Headers
    """Headers of the answer once the tile is there."""
    started: float


def answer(state: State, path: str, query: str, method: str, none_match: str | None) -> TileAnswer | PendingTile:
    """Answer to one request below `/dzi/`; named errors come back as problem+json, never as exceptions."""
    started = time.perf_counter()
    try:
        if method not in ("GET", "HEAD"):
            body, headers = errors.problem(405, "method_not_allowed", "Tiles can only be read (GET, HEAD).")
            return TileAnswer(405, body, [*headers, ("allow", "GET, HEAD"), *HEADERS])
        if query:
            raise BadRequestError("A tile address takes no parameters.")
        match = TILE_PATH.fullmatch(path)
        if match is None:
            return _descriptor(state, path, method, none_match)
        return _tile(state, match.groups(), method, none_match, started)
    except OcularError as error:
        return problem(state, error)


def problem(state: State, error: OcularError) -> TileAnswer:
    """The answer to a named error."""
    status, body, headers = errors.problem_of(error)
    state.metrics.tile_errors.labels(error.code).inc()
    return TileAnswer(status, body, headers + HEADERS)


def finish(state: State, pending: PendingTile, data: bytes, source: str, fallback: bool) -> TileAnswer:
    """The answer once the engine has made the tile; a fallback is marked and never cached."""
    headers = (
        [each for each in pending.headers if each[0] not in ("cache-control", "etag")] if fallback else pending.headers
    )
    if fallback:
        headers = [*headers, ("cache-control", "no-store")]
    state.metrics.synthesised_seconds.observe(time.perf_counter() - pending.started)
    state.metrics.tiles.labels("fallback" if fallback else "synthesised").inc()
    return TileAnswer(200, data, [*headers, ("x-tile-source", source)])


def _tile(
    state: State, parts: tuple[str, ...], method: str, none_match: str | None, started: float
) -> TileAnswer | PendingTile:
    slide_id, version, address, z_level, t_col, t_row, extension = parts
    tiles = state.versions.get(slide_id, version)
    source = tiles.source(address)
    plan = tiles.plan(source, int(z_level), int(t_col), int(t_row), extension)
    etag = (
        f'"{version}-{address if "@" in address else source.address}-{z_level}-{t_col}-{t_row}-{extension}-{TILE_CODE}"'
    )
    headers = [
        ("content-type", MEDIA_TYPES[extension]),
        ("cache-control", FOR_EVER if _names_its_pixels(source, address) else ASK_AGAIN),
        ("etag", etag),
        *HEADERS,
    ]
    if none_match is not None and (etag in none_match or none_match.strip() == "*"):
        return TileAnswer(304, b"", headers)
    if isinstance(plan, SynthesisedTile):
        return _synthesised(state, version, plan, headers, method, started)
    if isinstance(plan, KeptTile):
        state.metrics.tiles_kept.inc()
        return TileAnswer(200, tiles.kept_bytes(plan), [*headers, ("x-tile-source", "scan")])
    headers.append(("x-tile-source", "stored"))
    return TileAnswer(200, _stored_bytes(state, tiles, plan), headers)


def _names_its_pixels(source: Source, address: str) -> bool:
    """True when the address can never lead to other pixels: stored ones, or a model or kept tiles pinned by hash."""
    return not source.pin or "@" in address


def _stored_bytes(state: State, tiles: VersionTiles, plan: StoredTile | DerivedTile) -> bytes:
    if isinstance(plan, StoredTile):
        state.metrics.tiles_stored.inc()
        return tiles.pyramid.tile_bytes(*plan)
    state.metrics.tiles_made.inc()
    return tiles.make(plan)


def _synthesised(
    state: State, version: str, plan: SynthesisedTile, headers: Headers, method: str, started: float
) -> TileAnswer | PendingTile:
    pending = PendingTile(version, plan, headers, started)
    if method == "HEAD":
        return TileAnswer(200, b"", [*headers, ("x-tile-source", state.synthesis.provenance(plan))])
    made = state.synthesis.cached(version, plan)
    return pending if made is None else finish(state, pending, made.data, made.source, made.fallback)


def _descriptor(state: State, path: str, method: str, none_match: str | None) -> TileAnswer:
    match = DESCRIPTOR_PATH.fullmatch(path)
    if match is None:
        raise NotFoundError("This address is neither a Deep Zoom descriptor nor a tile.")
    slide_id, version, address = match.groups()
    source = state.versions.get(slide_id, version).source(address)
    body = descriptor(source)
    etag = f'"{version}-{source.address}-dzi-{TILE_CODE}"'
    cache = FOR_EVER if _names_its_pixels(source, address) else ASK_AGAIN
    headers = [("content-type", "application/xml"), ("cache-control", cache), ("etag", etag), *HEADERS]
    unchanged = none_match is not None and (etag in none_match or none_match.strip() == "*")
    return TileAnswer(304, b"", headers) if unchanged else TileAnswer(200, body, headers)


def descriptor(source: Source) -> bytes:
    """The Deep Zoom descriptor of a source (XML of the 2008 schema)."""
    size = source.deep_zoom.size
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" '
        f'Format="jpg" Overlap="0" TileSize="{source.deep_zoom.tile_side}">'
        f'<Size Width="{size.width}" Height="{size.height}"/></Image>\n'
    ).encode()


@bp.route("/dzi/", defaults={"rest": ""}, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@bp.route("/dzi/<path:rest>", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def dzi(rest: str) -> Response:
    """Deep Zoom descriptors and tiles on a plain WSGI server; waits for synthesised tiles."""
    state = current_state()
    none_match = request.headers.get("If-None-Match")
    result = answer(state, request.path, request.query_string.decode("latin-1"), request.method, none_match)
    if isinstance(result, PendingTile):
        try:
            made = state.synthesis.make(result.version, result.plan)
            result = finish(state, result, made.data, made.source, made.fallback)
        except OcularError as error:
            result = problem(state, error)
    response = Response(result.body, result.status, result.headers)
    if request.method == "HEAD" and result.status == 200 and not result.body:
        response.headers.remove("content-length")
    return response
