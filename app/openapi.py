"""`/api/openapi.json`: what the server answers, described once; a test holds it against the routes."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from wsi_ml.formats.writing import WRITERS
from wsi_ml.jobs.job import KINDS, PRIORITIES, STATES
from wsi_ml.jobs.order import NEEDED
from wsi_ml.layers.planes import PLANES

bp = Blueprint("openapi", __name__)

ID = {"type": "string", "pattern": "^[a-z0-9]{8,64}$"}
VERSION = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
SOURCE = {
    "type": "string",
    "pattern": "^[a-z0-9-]{1,40}(@[0-9a-f]{12})?$",
    "description": "`stored`, `bicubic`, a model such as `sr-fast`, `scan` (kept ×40 tiles), or `auto` (a kept tile "
    "where there is one, else a model); `@` and 12 hex digits pin the model or the kept tiles.",
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


def change(
    about: str, answers: dict[str, str], *parameters: dict[str, Any], body: dict[str, Any] | None = None, problems: str
) -> dict[str, Any]:
    """An operation that changes something: its answers of success (all JSON), and problems with the given statuses."""
    responses: dict[str, Any] = {
        status: {"description": text, "content": {"application/json": {}}} for status, text in answers.items()
    }
    responses |= dict.fromkeys(problems.split(), PROBLEM)
    value: dict[str, Any] = {"summary": about, "parameters": list(parameters), "responses": responses}
    return value | ({"requestBody": {"required": True, "content": {"application/json": body}}} if body else {})


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

COMPARED = (
    parameter("truth", {"type": "string"}, "query"),
    parameter("prediction", {"type": "string"}, "query"),
    parameter("classes", {"enum": ["match", "any"]}, "query"),
)
MATCHED = (*COMPARED, parameter("iou", {"type": "number"}, "query"))
VIEWED = (*MATCHED, FEATURES[0], FEATURES[3])
BLOCK = (SLIDE, LAYER, parameter("number", NUMBER))
SUMMARY = (SLIDE, LAYER, parameter("level", NUMBER, "query"), FEATURES[0])
REMOVAL = {
    "delete": {
        "summary": "Remove a prediction",
        "parameters": [SLIDE, LAYER],
        "responses": {"204": {"description": "The layer is gone"}, "403": PROBLEM, "404": PROBLEM, "409": PROBLEM},
    }
}

EXPORT = (
    SLIDE,
    LAYER,
    parameter("format", {"enum": list(WRITERS)}, "query"),
    parameter("plane", {"enum": list(PLANES)}, "query"),
    *FEATURES[2:],
)

JOB = parameter("job_id", {"type": "string"})
JOB_QUERY = (parameter("slide", ID, "query"), parameter("state", {"enum": list(STATES)}, "query"))
JOB_ORDER = {
    "schema": {
        "type": "object",
        "required": list(NEEDED),
        "additionalProperties": False,
        "properties": {
            "kind": {"enum": list(KINDS)},
            "slide": ID,
            "model": {"type": "string", "description": "Name of a predictor of `/api/models`."},
            "region": {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
            "parameters": {"type": "object"},
            "preview": {"type": "boolean"},
            "priority": {"type": "integer", "minimum": PRIORITIES[0], "maximum": PRIORITIES[-1]},
        },
    }
}
ORDERED = {"201": "The new job", "200": "The job that does or did the same already"}

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
    "/api/slides/{slide_id}/layers/{layer_id}": operation("One layer", "application/json", SLIDE, LAYER) | REMOVAL,
    "/api/slides/{slide_id}/layers/{layer_id}/features": operation(
        "Features of a box, exact", "application/geo+json", SLIDE, LAYER, *FEATURES, problems="400 404"
    ),
    "/api/slides/{slide_id}/layers/{layer_id}/export": operation(
        "A layer as a file of another program", "*/*", *EXPORT, problems="400 404 410 422"
    ),
    "/api/slides/{slide_id}/layers/{layer_id}/export/report": operation(
        "What such a file would not keep", "application/json", *EXPORT, problems="400 404 410 422"
    ),
    "/api/slides/{slide_id}/layers/{layer_id}/blocks": operation(
        "Blocks of features with their boxes, and levels of the summary", "application/json", SLIDE, LAYER
    ),
    "/api/slides/{slide_id}/layers/{layer_id}/blocks/{number}": operation(
        "One block of features", "application/octet-stream", *BLOCK, problems="404 422"
    ),
    "/api/slides/{slide_id}/layers/{layer_id}/summary": operation(
        "Area and count by cell, class and score bin; also as `application/vnd.ocular.summary`",
        "application/json",
        *SUMMARY,
        problems="400 404 422",
    ),
    "/api/slides/{slide_id}/compare": operation(
        "Figures of a prediction against a truth layer", "application/json", SLIDE, *VIEWED, problems="400 404"
    ),
    "/api/slides/{slide_id}/compare/curve": operation(
        "Precision and recall at every threshold", "application/json", SLIDE, *MATCHED, problems="400 404"
    ),
    "/api/slides/{slide_id}/compare/errors": operation(
        "False positives and missed truths",
        "application/json",
        SLIDE,
        *VIEWED,
        parameter("order", {"enum": ["size", "score"]}, "query"),
        FEATURES[1],
        problems="400 404",
    ),
    "/api/slides/{slide_id}/compare/pairs": operation(
        "Overlapping pairs, best IoU first", "application/octet-stream", SLIDE, *COMPARED, problems="400 404"
    ),
    "/api/models": operation("Upscalers and models that predict layers", "application/json", problems=""),
    "/api/jobs": operation("Jobs, newest first", "application/json", *JOB_QUERY, problems="400")
    | {"post": change("Order a job", ORDERED, body=JOB_ORDER, problems="400 403 404 410 413 415 422 503 507")},
    "/api/jobs/{job_id}": operation("One job", "application/json", JOB)
    | {"delete": change("Cancel a job", {"200": "The job"}, JOB, problems="403 404 409")},
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
