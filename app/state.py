"""What the parts of one running app share: settings, library, open versions, the way to the engine."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app

from app.logs import Faults
from app.metrics import Metrics
from app.settings import Settings
from app.synthesis import Synthesis
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.comparing import Comparisons
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library
from wsi_ml.slides.tiles import OpenVersions
from wsi_ml.sr.offered import OfferedUpscalers

EXTENSION = "ocular"


@dataclass(frozen=True)
class State:
    """Parts of one app; two apps in one process share nothing."""

    settings: Settings
    library: Library
    layers: LayerStore
    comparisons: Comparisons
    jobs: JobQueue
    versions: OpenVersions
    upscalers: OfferedUpscalers
    model_faults: Faults
    synthesis: Synthesis
    metrics: Metrics


def current_state() -> State:
    """State of the app that answers the present request."""
    return current_app.extensions[EXTENSION]
