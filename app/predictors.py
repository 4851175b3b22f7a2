"""The models at hand, over HTTP; read from disk at every request, so a new one needs no restart."""

from __future__ import annotations

from flask import Blueprint, Response

from app.jobs import poll_answer
from app.parameters import check_names
from app.state import current_state
from wsi_ml.inference.predictor import available_predictors, card_faults
from wsi_ml.licences import card_facts
from wsi_ml.slides.library import MODELS_FOLDER

bp = Blueprint("predictors", __name__)


@bp.get("/api/models")
def models() -> Response:
    """Cards of the upscalers (kinds `bicubic` and `sr`), then of the predictors, which a job can name.

    Each says besides whether its licence is for research only and of what kind the labels were that it learnt from. A
    damaged card of the library costs only its own model, and the log says why.
    """
    check_names(())
    state = current_state()
    folders = [state.library.root / MODELS_FOLDER]
    state.model_faults.tell(card_faults(folders))
    cards = [card.to_json() for card in state.upscalers()]
    cards += [card.to_json() for card in available_predictors(folders)]
    return poll_answer({"models": [{**card, **card_facts(card)} for card in cards]})
