"""`/api/openapi.json`: what the server answers, described once; a test holds it against the routes."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

bp = Blueprint("openapi", __name__)

ID = {"type": "string", "pattern": "^[a-z0-9]{8,64}$"}
VERSION = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
SOURCE = {
    "type": "string",
    "pattern": "^[a-z0-9-]{1,40}(@[0-9a-f]{12})?$",
    "description": "`stored`, `bicubic`, a model such as `sr-fast`, or `auto`; `@` and 12 hex digits pin the model.",
}
NUMBER = {"type": "integer", "minimum": 0}
PROBLEM = {"$ref": "#/components/responses/Problem"}


def parameter(name: str, schema: dict[str, Any], place: str = "path") -> dict[str, Any]:
    """One parameter."""
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def operation(about: str, media: str, *parameters: dict[str, Any], problems: str = "404") -> dict[str, Any]:
    """A GET that answers 200 in one media type, and problems with the given statuses."""
    answers: dict[str, Any] = {"200": {"description": about, "content": {media: {}}}}
    answers |= dict.fromkeys(problems.split(), PROBLEM)
    return {"get": {"summary": about, "parameters": list(parameters), "responses": answers}}


SLIDE, LAYER = parameter("slide_id", ID), parameter("layer_id", {"type": "string"})
ADDRESS = (SLIDE, parameter("version", VERSION), parameter("source", SOURCE))
TILE = (
    *ADDRESS,
    parameter("level", NUMBER),
    parameter("column", NUMBER),
    parameter("row", NUMBER),
    parameter("format", {"enum": ["jpg", "png", "webp"]}),
)
FEATURES = (
    parameter("bbox", {"type": "string", "description": "x0,y0,x1,y1 in base-plane pixels"}, "query"),
    parameter("limit", {"type": "integer", "minimum": 1}, "query"),
    parameter("class", {"type": "string"}, "query"),
    parameter("min_score", {"type": "number"}, "query"),
)

PATHS = {
    "/": operation("The gallery", "text/html"),
    "/slides/{slide_id}": operation("The viewer at the slide's current version", "text/html", SLIDE),
    "/api/slides": operation("Cards of all slides", "application/json"),
    "/api/slides/{slide_id}": operation(
        "Card of one slide", "application/json", SLIDE, parameter("version", VERSION, "query"), problems="400 404 410"
    ),
    "/api/slides/{slide_id}/{version}/thumbnail.jpg": operation(
        "Thumbnail made from tissue", "image/jpeg", *ADDRESS[:2], problems="404 410"
    ),
    "/api/slides/{slide_id}/layers": operation("Layers of a slide", "application/json", SLIDE, problems="404 410"),
    "/api/slides/{slide_id}/layers/{layer_id}": operation("One layer", "application/json", SLIDE, LAYER),
    "/api/slides/{slide_id}/layers/{layer_id}/features": operation(
        "Features of a box, exact", "application/geo+json", SLIDE, LAYER, *FEATURES, problems="400 404"
    ),
    "/dzi/{slide_id}/{version}/{source}.dzi": operation(
        "Deep Zoom descriptor", "application/xml", *ADDRESS, problems="400 404 410"
    ),
    "/dzi/{slide_id}/{version}/{source}_files/{level}/{column}_{row}.{format}": operation(
        "A tile; `X-Tile-Source` says where its pixels come from", "image/*", *TILE, problems="400 404 410 422 503"
    ),
    "/healthz": operation("The process answers", "text/plain"),
    "/readyz": operation("What works and what does not", "application/json", problems="503"),
    "/metrics": operation("Prometheus metrics", "text/plain"),
    "/api/openapi.json": operation("This description", "application/json"),
}
"""Paths of the interface; `/dzi/…` is one route in Flask and two addresses here."""

PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "From a closed list; stable."},
    },
}


@bp.get("/api/openapi.json")
def openapi() -> Response:
    """The interface as OpenAPI 3.1."""
    problem = {
        "description": "What is wrong and what mends it",
        "content": {"application/problem+json": {"schema": PROBLEM_SCHEMA}},
    }
    return jsonify(
        {
            "openapi": "3.1.0",
            "info": {"title": "Ocular", "version": "0.1.0", "license": {"name": "MIT", "identifier": "MIT"}},
            "paths": PATHS,
            "components": {"responses": {"Problem": problem}},
        }
    )
