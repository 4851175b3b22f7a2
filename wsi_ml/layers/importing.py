"""An annotation file to a layer: all or nothing, with a loss report."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.files import read_bytes
from wsi_ml.formats.reading import open_annotations
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Repairer, check_inside
from wsi_ml.layers.layer import Layer, NewLayer
from wsi_ml.layers.planes import plane_map
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.card import Card
from wsi_ml.slides.library import Library


def import_layer(
    library_root: Path | str,
    slide_id: str,
    path: Path | str,
    *,
    kind: str = "truth",
    name: str | None = None,
    plane: str = "base",
    repair: bool = False,
) -> tuple[Layer, LossReport]:
    """Import an annotation file for the current version of a slide and return the layer with what was lost.

    `plane` is the pixel grid of the file: `base`, `stored` or `scan` (level 0 of the vendor's file, untrimmed). The
    same file with the same arguments again returns the layer of the first time. Raises AnnotationFileError (nothing is
    kept), UnknownSlideError, BadRequestError for an unknown plane.
    """
    path = Path(path)
    card = Library(library_root).card(slide_id)
    store = LayerStore(library_root)
    text = read_bytes(path)
    source = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text), "plane": plane, "repair": repair}
    new = NewLayer(slide_id, card.version, name or layer_name(path), kind, {"source": source})
    for layer in store.layers(slide_id, card.version):
        if (layer.name, layer.kind, layer.provenance.get("source")) == (new.name, new.kind, source):
            return layer, LossReport.from_json(layer.provenance["report"])
    features, report = read_for_slide(text, card, plane=plane, repair=repair)
    new = replace(new, provenance={"source": source, "report": report.to_json()})
    return store.publish(new, features, card.base_size), report


def read_for_slide(
    text: bytes, card: Card, *, plane: str = "base", repair: bool = False
) -> tuple[list[Feature], LossReport]:
    """Features of a file of any known format in base-plane pixels, every one on the slide.

    Raises AnnotationFileError, BadRequestError for an unknown plane.
    """
    to_base = plane_map(plane, card).to_base
    opened = open_annotations(text)
    report = LossReport(opened.reader.title)
    if opened.reader.on_scan and plane != "scan" and plane_map(plane, card) != plane_map("scan", card):
        report.notes.append(
            f"The coordinates were taken as pixels of the plane “{plane}”, which differ from the scan’s, and programs "
            f"that write {report.format} show the scan. If the outlines lie elsewhere, import with --plane scan."
        )
    repairer = Repairer(report, repair)
    features = []
    colors: dict[str, str] = {}
    for place, feature in opened.features(report, repair=repair):
        inside = check_inside(to_base(feature.geometry), card.base_size, place, repairer)
        if inside is None:
            report.kept -= 1
            continue
        color = feature.class_color
        if color is not None and colors.setdefault(feature.class_name, color) != color:
            report.lose("class colour that differs from the first of that class", place.feature)
        features.append(replace(feature, geometry=inside))
    if not features:
        raise AnnotationFileError(f"The file holds no polygon to import. {' '.join(report.lines())}")
    return features, report


def layer_name(path: Path) -> str:
    """Name of a layer that is given none: the file's, without its extensions."""
    return path.name.removesuffix(".gz").removesuffix(".zip").rsplit(".", 1)[0] or path.name
