"""The models at hand, over HTTP; read from disk at every request, so a new one needs no restart."""

from __future__ import annotations

from flask import Blueprint, Response

from app.jobs import poll_answer
from app.parameters import check_names
from app.state import current_state
from wsi_ml.inference.predictor import available_predictors
from wsi_ml.slides.library import MODELS_FOLDER

bp = Blueprint("predictors", __name__)


@bp.get("/api/models")
def models() -> Response:
    """Cards of the upscalers (kinds `bicubic` and `sr`), then of the predictors, which a job can name."""
    check_names(())
    state = current_state()
    predictors = available_predictors([state.library.root / MODELS_FOLDER])
    cards = [card.to_json() for card in state.upscalers()] + [card.to_json() for card in predictors]
    return poll_answer({"models": cards})
