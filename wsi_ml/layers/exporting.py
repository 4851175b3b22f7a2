"""A layer to a file of any format, filtered as the viewer filters, streamed in bounded memory, with a loss report."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ml.errors import BadRequestError
from wsi_ml.formats.canvas import Canvas
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.writing import Writer, writer_of
from wsi_ml.geometry import Size
from wsi_ml.layers.columns import SCORE_STEPS, least_steps
from wsi_ml.layers.layer import Layer
from wsi_ml.layers.planes import plane_map
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.card import Card
from wsi_ml.slides.library import Library

FILE_NAME_LIMIT = 80
_NOT_IN_NAMES = re.compile(r"[^\w.()+-]+")


@dataclass(frozen=True)
class Export:
    """A layer being written: take `chunks` to the end, then `report` is complete."""

    file_name: str
    writer: Writer
    report: LossReport
    chunks: Iterator[bytes]


def export_layer(
    library_root: Path | str,
    slide_id: str,
    layer_id: str,
    format: str = "geojson",
    *,
    plane: str = "base",
    classes: Collection[str] | None = None,
    min_score: float | None = None,
    store: LayerStore | None = None,
) -> Export:
    """Write a layer in the pixels of `plane`; `classes` and `min_score` keep what the viewer keeps.

    A feature without a score stays, whatever `min_score` is. Raises UnknownLayerError, UnknownSlideError and
    BadRequestError (format, plane, a class the layer does not have) before anything is written.
    """
    writer = writer_of(format)
    store = store or LayerStore(library_root)
    layer = store.layer_of(slide_id, layer_id)
    library = Library(library_root)
    card = library.card(slide_id, layer.version)
    from_base = plane_map(plane, card).from_base
    for name in sorted(set(classes or ()) - layer.colors.keys()):
        raise BadRequestError(f"The layer has no class “{name[:40]}”; it has {', '.join(layer.colors)}.")
    kept = (each for each in store.all_features(layer_id) if _passes(each, classes, min_score))
    features = (replace(each, geometry=from_base(each.geometry)) for each in kept)
    colors = {name: color for name, color in layer.colors.items() if not classes or name in classes}
    slide_name = library.slide(slide_id).name
    report = LossReport(writer.title)
    if writer.on_scan and plane != "scan" and plane_map(plane, card) != plane_map("scan", card):
        report.notes.append(
            f"Programs that read {writer.title} show the scan, whose pixels differ from those of the plane “{plane}”; "
            "for them export with --plane scan."
        )
    chunks = writer.write(features, Canvas(colors, slide_name, _size(plane, card)), report)
    return Export(file_name(slide_name, layer, writer.suffix), writer, report, chunks)


def _passes(feature: Feature, classes: Collection[str] | None, min_score: float | None) -> bool:
    if classes and feature.class_name not in classes:
        return False
    if min_score is None or feature.score is None:
        return True
    return round(feature.score * SCORE_STEPS) >= least_steps(min_score)


def _size(plane: str, card: Card) -> Size:
    return {"base": card.base_size, "stored": card.stored_size, "scan": card.source.l0_size}[plane]


def file_name(slide_name: str, layer: Layer, suffix: str) -> str:
    """A name every file system takes, of the slide's and the layer's: no separators, no dot in front."""
    words = [_NOT_IN_NAMES.sub("_", word)[:FILE_NAME_LIMIT].strip("._-") for word in (slide_name, layer.name)]
    return "-".join(filter(None, words)) + suffix if any(words) else layer.id + suffix
