"""An annotation file to a layer and a layer to a file: all or nothing, with a loss report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats import geojson
from wsi_ml.formats.feature import Feature
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
    text = geojson.read_bytes(path)
    source = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text), "plane": plane, "repair": repair}
    new = NewLayer(slide_id, card.version, name or layer_name(path), kind, {"source": source})
    for layer in store.layers(slide_id, card.version):
        if (layer.name, layer.kind, layer.provenance.get("source")) == (new.name, new.kind, source):
            return layer, LossReport.from_json(layer.provenance["report"])
    features, report = read_for_slide(text, card, plane=plane, repair=repair)
    return store.publish(replace(new, provenance={"source": source, "report": report.to_json()}), features), report


def read_for_slide(
    text: bytes, card: Card, *, plane: str = "base", repair: bool = False
) -> tuple[list[Feature], LossReport]:
    """Features of a GeoJSON text in base-plane pixels, every one on the slide; raises AnnotationFileError."""
    to_base = plane_map(plane, card).to_base
    report = LossReport(geojson.FORMAT)
    repairer = Repairer(report, repair)
    features = []
    colors: dict[str, str] = {}
    for place, feature in geojson.read_features(text, report, repair=repair):
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


def export_geojson(library_root: Path | str, slide_id: str, layer_id: str, *, plane: str = "base") -> Iterator[bytes]:
    """A layer as QuPath GeoJSON in the pixels of `plane`, in chunks; raises UnknownLayerError and UnknownSlideError."""
    store = LayerStore(library_root)
    layer = store.layer_of(slide_id, layer_id)
    from_base = plane_map(plane, Library(library_root).card(slide_id, layer.version)).from_base
    features = (replace(each, geometry=from_base(each.geometry)) for each in store.all_features(layer_id))
    return geojson.write_features(features, layer.colors)


def layer_name(path: Path) -> str:
    """Name of a layer that is given none: the file's, without its extensions."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.name
