"""What every writer of features needs besides them: colours, the image they lie on, and what a format cannot hold."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from wsi_ml.formats.feature import Feature
from wsi_ml.formats.report import LossReport
from wsi_ml.geometry import Size

WRITE_BATCH = 1024
NO_COLOR = "#808080"


@dataclass(frozen=True)
class Canvas:
    """The image that a file of features belongs to."""

    class_colors: Mapping[str, str]
    """`#rrggbb` by class name."""
    image_name: str
    size: Size
    """Pixels of the plane of the coordinates."""

    def color_of(self, class_name: str) -> str:
        """Colour of a class, grey for one that has none."""
        return self.class_colors.get(class_name, NO_COLOR)


def batches(features: Iterable[Feature], size: int = WRITE_BATCH) -> Iterator[tuple[Feature, ...]]:
    """Features in groups, so that memory stays bounded."""
    source = iter(features)
    while batch := tuple(itertools.islice(source, size)):
        yield batch


def note_losses(report: LossReport, number: int, feature: Feature, kept: frozenset[str], title: str) -> None:
    """Note whatever of one feature a format does not hold; `kept` is of the words below."""
    found = {
        "id": True,
        "score": feature.score is not None,
        "name": feature.name is not None,
        "color": feature.color is not None,
        "locked": feature.locked,
        "object type": feature.object_type != "annotation",
        "measurements": bool(feature.measurements),
        "metadata": bool(feature.metadata),
    }
    for word, present in found.items():
        if present and word not in kept:
            report.lose(f"{word} ({title} has no place for it)", number)
    if feature.geometry.geom_type == "MultiPolygon" and "parts" not in kept:
        report.lose("feature of several parts (each part is written on its own)", number)
    holes = 0 if "holes" in kept else sum(len(part.interiors) for part in _parts(feature))
    if holes:
        report.lose(f"hole ({title} has none)", number)


def _parts(feature: Feature) -> Iterable:
    geometry = feature.geometry
    return geometry.geoms if geometry.geom_type == "MultiPolygon" else (geometry,)
