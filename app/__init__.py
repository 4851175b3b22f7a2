"""The web: a Flask app over a slide library. It imports neither torch nor OpenSlide, ever."""

from __future__ import annotations

import time
from pathlib import Path

import structlog
from flask import Flask, Response, g, request

from app import comparisons, errors, exports, jobs, layers, openapi, operations, pages, predictors, slides, tiles
from app.logs import Faults, configure_logs, log_request
from app.metrics import Metrics
from app.security import HEADERS
from app.settings import Settings
from app.state import EXTENSION, State, current_state
from app.synthesis import Synthesis
from app.writes import refuse_foreign_writes
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.comparing import Comparisons
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import MODELS_FOLDER, Library
from wsi_ml.slides.tiles import OpenVersions
from wsi_ml.sr.offered import OfferedUpscalers

log = structlog.get_logger("ocular")
PACKAGE = Path(__file__).resolve().parent


def resource_folder(name: str) -> Path:
    """Folder of templates or static files: inside the package when installed, beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def create_app(settings: Settings) -> Flask:
    """The Flask app of one library; raises LibraryError when there is none. Two apps may live in one process."""
    configure_logs(settings.log_format, settings.log_level)
    library = Library(settings.library)
    layers_store = LayerStore(library.root)
    upscalers = OfferedUpscalers([library.root / MODELS_FOLDER], complain=_tell_of_models)
    app = Flask(
        "ocular",
        root_path=str(PACKAGE),
        static_folder=str(resource_folder("static")),
        template_folder=str(resource_folder("templates")),
    )
    app.config.update(
        MAX_CONTENT_LENGTH=settings.body_limit_mb << 20,
        TRUSTED_HOSTS=list(settings.trusted_hosts),
        SEND_FILE_MAX_AGE_DEFAULT=None,
    )
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = State(
        settings=settings,
        library=library,
        layers=layers_store,
        comparisons=Comparisons(layers_store),
        jobs=JobQueue(library.root),
        versions=OpenVersions(library, upscalers),
        upscalers=upscalers,
        model_faults=Faults("model not offered"),
        synthesis=Synthesis(settings, library.root),
        metrics=Metrics(),
    )
    for module in (tiles, slides, layers, exports, comparisons, jobs, predictors, operations, openapi, pages):
        app.register_blueprint(module.bp)
    errors.register(app)
    app.before_request(_start_clock)
    app.before_request(refuse_foreign_writes)
    app.after_request(_finish_answer)
    return app


def _tell_of_models(detail: str) -> None:
    log.error("models cannot be offered", detail=detail)


def _start_clock() -> None:
    g.started = time.perf_counter()


def _finish_answer(response: Response) -> Response:
    for name, value in HEADERS:
        response.headers.setdefault(name, value)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "private, no-cache"
    state = current_state()
    route = request.url_rule.rule if request.url_rule else "none"
    seconds = time.perf_counter() - g.get("started", time.perf_counter())
    if not route.startswith("/dzi/"):
        state.metrics.requests.labels(route, str(response.status_code)).inc()
        state.metrics.request_seconds.labels(route).observe(seconds)
        log_request(request.method, route, response.status_code, seconds)
    return response
