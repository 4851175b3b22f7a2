"""Slides of a library with the regions of one of their layers: train on what was annotated in the viewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import shapely

from wsi_ml.data.msu import stored_parts
from wsi_ml.data.patch_reader import AnnotatedSlide, PatchReader
from wsi_ml.errors import BadRequestError
from wsi_ml.formats.feature import UNCLASSIFIED
from wsi_ml.layers.layer import Layer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library, Slide
from wsi_ml.slides.reading import LibrarySlide, open_slide

KINDS = ("truth", "annotation")


def library_pixels(root: Path, slides: Sequence[Slide]) -> list[PatchReader]:
    """The current versions of slides of a library, to take patches from."""
    return [PatchReader(open_slide(LibrarySlide(root, slide.id))) for slide in slides]


def annotated_library(root: Path, layer: str = "") -> list[AnnotatedSlide]:
    """Slides of the library in `root` that have a layer of that name or id, with its regions; by slide's name.

    Without a name, the newest truth or annotation layer of each slide. A prediction is taken only where it is named:
    to train on it is to copy another model. Features without a class are left out. Raises BadRequestError where no
    slide has such a layer.
    """
    library, store = Library(root), LayerStore(root)
    found, seen = [], set()
    for slide in library.slides():
        layers = store.layers(slide.id, slide.current)
        seen |= {each.name for each in layers}
        chosen = _chosen(layers, layer)
        if chosen is not None:
            (pixels,) = library_pixels(root, [slide])
            found.append(AnnotatedSlide(pixels, _regions(store, chosen, pixels.region_scale)))
    if not found:
        wanted = f"a layer named “{layer}”" if layer else "a truth or annotation layer"
        there = f"; there are {', '.join(sorted(seen))}" if seen else ""
        raise BadRequestError(f"No slide of the library has {wanted}{there}. Import one with `ocular import`.")
    return found


def _chosen(layers: Sequence[Layer], layer: str) -> Layer | None:
    """The layer that is meant: by id, by name, or the newest that a person made."""
    fitting = [
        each for each in layers if (layer in (each.id, each.name) if layer else each.kind in KINDS)
    ]  # fmt: skip
    return fitting[-1] if fitting else None


def _regions(store: LayerStore, layer: Layer, scale: float) -> dict[str, list[shapely.Polygon]]:
    regions: dict[str, list[shapely.Polygon]] = {}
    for feature in store.all_features(layer.id):
        if feature.class_name != UNCLASSIFIED:
            regions.setdefault(feature.class_name, []).extend(stored_parts(feature.geometry, scale))
    return regions
