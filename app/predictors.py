"""The models that predict layers, over HTTP; read from disk at every request, so a new one needs no restart."""

from __future__ import annotations

from flask import Blueprint, Response

from app.jobs import poll_answer
from app.parameters import check_names
from app.state import current_state
from wsi_ml.inference.predictor import MODELS_FOLDER, available_predictors

bp = Blueprint("predictors", __name__)


@bp.get("/api/models")
def models() -> Response:
    """Cards of the models that a job can name."""
    check_names(())
    cards = available_predictors([current_state().library.root / MODELS_FOLDER])
    return poll_answer({"models": [card.to_json() for card in cards]})
