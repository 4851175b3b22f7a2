"""`ocular trust`: where a slide's synthesised pixels can be believed, as a layer and as a table of shares."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from app.commands import library_of, say, slide_id_of
from app.predict_command import CohortBars, region_of
from wsi_ml.inference.predicting import PredictRequest, predict
from wsi_ml.inference.trust_predictor import PREFIX, TASK
from wsi_ml.layers.layer import Layer

NOTES = {
    "scan": "Compared with the scan, tile by tile.",
    "stored": "No scan at hand: shows self-consistency only, not truth.",
    "both": "Compared with the scan where it is known; elsewhere self-consistency only, not truth.",
    "estimated": "No scan at hand: estimated from how much fine detail lies there, not compared with a scan.",
    "both-estimated": "Compared with the scan where it is known; elsewhere estimated from how much fine detail lies "
    "there.",
}


def run_trust(options: argparse.Namespace) -> None:
    """`ocular trust`: the layer is made, or found where it was made before."""
    library = library_of(options)
    slide = library.slide(slide_id_of(library, options.id))
    request = PredictRequest(slide.id, PREFIX + options.model, slide.current, region=region_of(options.region))
    with CohortBars({slide.id: slide.name}) as bars:
        layer = predict(library.root, request, progress=functools.partial(bars, request))
    base_mpp = library.card(slide.id, slide.current).base_mpp
    facts = {"slide": slide.id, "name": slide.name, "layer": layer.to_json(base_mpp), "shares": shares(layer)}
    say(options, facts, table(layer))


def shares(layer: Layer) -> dict[str, float]:
    """Share of the area of each band of a trust map, 0 to 1, the most trusted first."""
    area = sum(each.base_area for each in layer.classes) or 1.0
    areas = {each.name: each.base_area for each in layer.classes}
    return {band["name"]: areas.get(band["name"], 0.0) / area for band in layer.provenance[TASK]["bands"]}


def table(layer: Layer) -> str:
    """A trust map for people: its layer, what was compared, a line for each band."""
    told: dict[str, Any] = layer.provenance[TASK]
    part = shares(layer)
    width = max(len(name) for name in part)
    lines = [f"{layer.id}  {layer.name}", NOTES[told["compared"]]]
    lines += [f"{100 * part[band['name']]:6.2f} %  {band['name']:<{width}}  {band['limits']}" for band in told["bands"]]
    return "\n".join(lines)
