"""Operation: liveness, readiness, metrics."""

from __future__ import annotations

import shutil
from typing import Any

from flask import Blueprint, Response, jsonify

from app.state import State, current_state
from wsi_ml.errors import OcularError

bp = Blueprint("operations", __name__)

LEAST_FREE_SHARE = 0.05
ENGINE_GAUGES = (
    "queued",
    "running",
    "waiting",
    "capacity",
    "uptime_s",
    "cache_tiles",
    "cache_bytes",
    "cache_cap_bytes",
)
ENGINE_COUNTERS = (
    *("asked", "joined", "refused", "dropped", "expired", "computed", "fallbacks", "failed"),
    *("cache_hits", "cache_misses", "cache_evicted", "cache_damaged", "cache_write_failures"),
)


@bp.get("/healthz")
def healthz() -> Response:
    """The process answers; no I/O."""
    return Response("ok\n", mimetype="text/plain", headers={"Cache-Control": "no-store"})


def readiness(state: State) -> dict[str, Any]:
    """What works and what does not: viewing (library, disk) decides `ready`; synthesis and jobs may be down."""
    parts: dict[str, Any] = {}
    try:
        state.library.slides()
        parts["library"] = "ok"
    except OcularError as error:
        parts["library"] = error.code
    usage = shutil.disk_usage(state.library.root)
    parts["disk"] = "ok" if usage.free >= LEAST_FREE_SHARE * usage.total else "nearly_full"
    try:
        counts = state.jobs.counts()
        parts["jobs"] = {"queued": counts["queued"], "running": counts["running"]}
    except OcularError as error:
        parts["jobs"] = error.code
    parts["synthesis"] = state.synthesis.stats() or "engine_unavailable"
    return {"ready": parts["library"] == "ok", "parts": parts}


@bp.get("/readyz")
def readyz() -> Response:
    """200 when slides can be viewed, 503 otherwise, with the state of each part."""
    value = readiness(current_state())
    response = jsonify(value)
    response.status_code = 200 if value["ready"] else 503
    response.headers["Cache-Control"] = "no-store"
    return response


def engine_metrics(stats: dict[str, Any] | None) -> bytes:
    """The engine's numbers in Prometheus' text form; `ocular_engine_up` is 0 when it does not answer."""
    lines = ["# TYPE ocular_engine_up gauge", f"ocular_engine_up {int(stats is not None)}"]
    values = (stats or {}) | {f"cache_{name}": value for name, value in (stats or {}).get("cache", {}).items()}
    for kind, names, suffix in (("gauge", ENGINE_GAUGES, ""), ("counter", ENGINE_COUNTERS, "_total")):
        for name in names:
            if name in values:
                lines += [f"# TYPE ocular_engine_{name} {kind}", f"ocular_engine_{name}{suffix} {values[name]}"]
    return ("\n".join(lines) + "\n").encode()


def job_metrics(state: State) -> bytes:
    """Number of jobs in each state; nothing where the queue cannot be used."""
    try:
        counts = state.jobs.counts()
    except OcularError:
        return b""
    lines = ["# TYPE ocular_jobs gauge", *(f'ocular_jobs{{state="{name}"}} {n}' for name, n in counts.items())]
    return ("\n".join(lines) + "\n").encode()


@bp.get("/metrics")
def metrics() -> Response:
    """Prometheus metrics of all web processes, of the engine and of the queue of jobs."""
    state = current_state()
    body = state.metrics.render() + engine_metrics(state.synthesis.stats()) + job_metrics(state)
    return Response(
        body, content_type="text/plain; version=0.0.4; charset=utf-8", headers={"Cache-Control": "no-store"}
    )
