"""The teacher's regions of a library slide as a layer: polygons of epithelium and of stroma."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely

from train.teach_pictures import Told, about, tell_slide
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.inference.polygons import class_polygons, simplify_coverage
from wsi_ml.inference.teacher import LUMEN, NAME, Teacher
from wsi_ml.inference.teacher_labels import EPITHELIAL, LEAST, OTHER, classes_of
from wsi_ml.inference.tissue import TissueRule, colour_of, glass_colour, mask_of
from wsi_ml.layers.layer import Layer, NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library
from wsi_ml.slides.reading import LibrarySlide, open_slide

LAYER = f"Teacher: epithelium and stroma ({NAME})"
KIND = "prediction"
"""A teacher's word is no truth: the viewer then says that scores against it are agreement with a model, and a training
takes such a layer only by its name."""
CLASSES = ("Epithelium", "Stroma")
STROMA = 2
WHITE = 0.92
"""A pixel at least this bright, with empty glass as 1, is a hole: lumen, fat, a tear."""
LEAST_UM2 = 400.0
"""Smaller regions are not drawn."""
SIMPLIFY = 1.0
"""Pixels of the teacher's map; root of the smallest triangle that a corner may make."""


def teach_slide(root: Path, slide_id: str, teacher: Teacher, warn: Callable[[str], None] = lambda _: None) -> Layer:
    """Publish the layer of the slide's current version and return it; the same again returns the layer that is there.

    `warn` is told of a slide that looks like an immunostain, of which the teacher knows nothing. Raises
    UnknownSlideError, BadRequestError for a slide without tissue or without ×20 plane.
    """
    library = Library(root)
    name, card = library.slide(slide_id).name, library.card(slide_id)
    store = LayerStore(root)
    for layer in store.layers(slide_id, card.version):
        if layer.name == LAYER:
            return layer
    pixels = PatchReader(open_slide(LibrarySlide(root, slide_id, card.version)))
    told = tell_slide(pixels, teacher)
    pixels.reader.close()
    if not told.staining.is_he:
        warn(f"“{name}” looks like an immunostain; the teacher knows H&E only, so its regions mean little.")
    features = regions_of(told, card.base_size)
    provenance = {"model": f"lavlab-shell {NAME}", "kind": "teacher", **about(), "slide_is_he": told.staining.is_he}
    return store.publish(NewLayer(slide_id, card.version, LAYER, KIND, provenance), features, card.base_size)


def slide_classes(told: Told) -> np.ndarray:
    """uint8 h×w: 1 epithelium, 2 stroma, 0 glass, lumen and where the teacher is unsure.

    Stroma is no class of the teacher: it is tissue that is neither epithelium nor white.
    """
    mpp = told.pixels.stored_mpp * told.step
    saturation, absorption, ink = colour_of(told.small, glass_colour(told.small))
    _, tissue = mask_of(saturation, absorption, ink, mpp, TissueRule())
    classes = classes_of(told.probabilities)
    is_hole = (told.small.mean(-1) > WHITE * told.staining.glass) | (told.probabilities[LUMEN] > LEAST)
    found = np.where((classes == OTHER) & tissue & ~is_hole, STROMA, 0).astype(np.uint8)
    found[(classes == EPITHELIAL) & tissue] = EPITHELIAL
    return found


def regions_of(told: Told, base_size: Size) -> list[Feature]:
    """The slide's regions as polygons in base-plane pixels, small ones left out."""
    numbers, polygons = class_polygons(slide_classes(told))
    least = LEAST_UM2 / (told.pixels.stored_mpp * told.step) ** 2
    kept = shapely.area(polygons) >= least
    scale = told.step * told.pixels.region_scale
    shapes = shapely.transform(simplify_coverage(polygons[kept], SIMPLIFY), lambda points: points * scale)
    slide = shapely.box(0, 0, *base_size)
    found = []
    for number, shape in zip(numbers[kept].tolist(), shapes, strict=True):
        inside = shape if slide.contains(shape) else shapely.intersection(shape, slide)
        if inside.geom_type in ("Polygon", "MultiPolygon") and not inside.is_empty:
            found.append(Feature(inside, str(uuid.uuid4()), CLASSES[number - 1]))
    return found
