"""Background work over HTTP: order it, list it, look at it, cancel it."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from flask import Blueprint, Response, request

from app.parameters import check_names
from app.state import State, current_state
from app.writes import json_body
from wsi_ml.errors import BadRequestError, UnknownLayerError
from wsi_ml.jobs.job import STATES, Job
from wsi_ml.jobs.order import order

bp = Blueprint("jobs", __name__)


@bp.get("/api/jobs")
def jobs() -> Response:
    """Jobs, newest first, of a slide (`slide`) or in a state (`state`) when asked so."""
    check_names(("slide", "state"))
    wanted = request.args.get("state")
    if wanted is not None and wanted not in STATES:
        raise BadRequestError(f"“state” is one of {', '.join(STATES)}.")
    found = current_state().jobs.jobs(request.args.get("slide"), wanted)
    return poll_answer({"jobs": [job.to_json() for job in found]})


@bp.post("/api/jobs")
def submit() -> Response:
    """Order a job: 201 with a new one, 200 with the one that does or did the same already."""
    check_names(())
    state = current_state()
    new = order(state.library.root, json_body())
    job, is_new = state.jobs.submit(new, lambda layer_id: _has_layer(state, layer_id))
    response = _answer(job)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/api/jobs/{job.id}"
    return response


@bp.get("/api/jobs/<job_id>")
def job(job_id: str) -> Response:
    """One job."""
    check_names(())
    return poll_answer(current_state().jobs.job(job_id).to_json())


@bp.delete("/api/jobs/<job_id>")
def cancel(job_id: str) -> Response:
    """Cancel a job; one that has ended is a 409."""
    check_names(())
    return _answer(current_state().jobs.cancel(job_id))


def poll_answer(value: dict[str, Any]) -> Response:
    """JSON that is never kept but has an ETag: who asks every second is answered 304 while nothing changes."""
    body = orjson.dumps(value)
    response = Response(body, mimetype="application/json", headers={"Cache-Control": "no-store"})
    etag = hashlib.sha256(body).hexdigest()[:32]
    response.set_etag(etag)
    if etag in request.if_none_match:
        response.status_code = 304
        response.set_data(b"")
    return response


def _answer(job: Job) -> Response:
    return Response(orjson.dumps(job.to_json()), mimetype="application/json", headers={"Cache-Control": "no-store"})


def _has_layer(state: State, layer_id: str) -> bool:
    try:
        state.layers.layer(layer_id)
    except UnknownLayerError:
        return False
    return True
