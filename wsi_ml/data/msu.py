"""Folders as PATH-DT-MSU comes: slides and annotation files paired by name, in a training and a test part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import shapely

from wsi_ml.data.patch_reader import AnnotatedSlide, PatchReader
from wsi_ml.errors import AnnotationFileError, BadRequestError
from wsi_ml.formats.feature import UNCLASSIFIED
from wsi_ml.formats.files import read_bytes
from wsi_ml.formats.reading import read_features
from wsi_ml.formats.rings import OUTSIDE_TOLERANCE, Place
from wsi_ml.geometry import Size
from wsi_ml.slides.reading import open_slide

SLIDE_ENDINGS = (".psi", ".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".mrxs", ".vms", ".czi", ".svslide", ".dcm")
ANNOTATION_ENDINGS = ("_v2.5.json", "_anno.json", ".json")
"""The newest annotation first: where a slide has several, it is the one that counts."""
PARTS = ("train", "test")
CLASS_CHANCES = {"AT": 0.2, "BG": 0.1, "LP": 0.2, "MM": 0.2, "TUM": 0.3}
"""Chances of the classes in the authors' program; their order is that of the labels."""


class SlideFiles(NamedTuple):
    """A slide's file and its annotations, None where it has none."""

    slide: Path
    annotation: Path | None


def find_slides(folder: Path, part: str) -> list[SlideFiles]:
    """Slides of a part (`train` or `test`) with their annotation files, by name.

    Known layouts: `images/<part>` with `annotations/<part>`; the same without parts, or `<part>` or the folder itself
    with both kinds of file side by side, in which last case all slides are of `train`. Raises BadRequestError where
    there are no slides.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder “{folder.name}” with slides.")
    slides_in, annotations_in = _folders(folder, part)
    slides = sorted(path for path in _files(slides_in) if path.suffix.lower() in SLIDE_ENDINGS)
    if not slides:
        raise BadRequestError(
            f"The folder “{folder.name}” holds no slides of the part {part}: put them into images/{part} and their "
            f"annotations into annotations/{part}."
        )
    known = {path.name: path for path in _files(annotations_in)}
    return [SlideFiles(slide, _annotation_of(slide, known)) for slide in slides]


def _folders(folder: Path, part: str) -> tuple[Path, Path]:
    if (folder / "images" / part).is_dir():
        return folder / "images" / part, folder / "annotations" / part
    split = any((folder / "images" / each).is_dir() or (folder / each).is_dir() for each in PARTS)
    if split or part != "train":
        return folder / part, folder / part
    if (folder / "images").is_dir():
        return folder / "images", folder / "annotations"
    return folder, folder


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else iter(())


def _annotation_of(slide: Path, known: dict[str, Path]) -> Path | None:
    return next((known[slide.stem + end] for end in ANNOTATION_ENDINGS if slide.stem + end in known), None)


def read_regions(path: Path, size: Size, scale: float = 1.0) -> dict[str, list[shapely.Polygon]]:
    """Regions of an annotation file by class, for a slide of `size` in the file's plane; divided by `scale`.

    Any format that `ocular import` reads. Invalid outlines are mended as psimage does. Raises AnnotationFileError, with
    the file's name, for an outline outside the slide and for a file whose regions have no class.
    """
    regions: dict[str, list[shapely.Polygon]] = {}
    try:
        _, features = read_features(read_bytes(path), repair=True)
        for place, feature in features:
            # Mending stops at the slide's edge: what lies beyond belongs to another slide or another plane.
            _check_inside(feature.geometry, size, place)
            if feature.class_name != UNCLASSIFIED:
                regions.setdefault(feature.class_name, []).extend(stored_parts(feature.geometry, scale))
    except AnnotationFileError as error:
        raise AnnotationFileError(f"“{path.name}”: {error}") from error
    if not regions:
        raise AnnotationFileError(
            f"“{path.name}” names no class of any region; training by class needs "
            '[{"class": "TUM", "vertices": [[x, y], …]}] or another format with classes.'
        )
    return regions


def _check_inside(geometry: shapely.Geometry, size: Size, place: Place) -> None:
    left, top, right, bottom = geometry.bounds
    least, width, height = -OUTSIDE_TOLERANCE, size.width + OUTSIDE_TOLERANCE, size.height + OUTSIDE_TOLERANCE
    if left < least or top < least or right > width or bottom > height:
        raise AnnotationFileError(
            f"{place}: it covers x {left:g}…{right:g}, y {top:g}…{bottom:g}, which is outside the slide of "
            f"{size.width} × {size.height} px; the file belongs to another slide, or its coordinates to another level."
        )


def stored_parts(geometry: shapely.Geometry, scale: float) -> list[shapely.Polygon]:
    """Polygons of a geometry with coordinates divided by `scale`."""
    return list(shapely.get_parts(shapely.transform(geometry, lambda points: points / scale)))


def annotated_slides(
    files: Sequence[SlideFiles], pairs: str = "store", mpp: float | None = None
) -> list[AnnotatedSlide]:  # fmt: skip
    """Open slides with their regions; raises BadRequestError for a slide without annotations, AnnotationFileError."""
    slides = []
    for slide, annotation in files:
        if annotation is None:
            names = ", ".join(slide.stem + end for end in ANNOTATION_ENDINGS)
            raise BadRequestError(f"“{slide.name}” has no annotations: none of {names} is there.")
        pixels = PatchReader(open_slide(slide), pairs, mpp)
        slides.append(AnnotatedSlide(pixels, read_regions(annotation, pixels.outline_size, pixels.region_scale)))
    return slides
