"""Every format that is read, in one list; a file's format is told by what is in it, never by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats import asap, coco, darwin, geojson, imagescope, outlines_json
from wsi_ml.formats.document import JsonDocument, XmlDocument, open_document
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer

Document = JsonDocument | XmlDocument
Read = Callable[[Any, Repairer], Iterator[tuple[Place, Feature]]]


@dataclass(frozen=True)
class Reader:
    """One format: its name for people, how it is told, and how it is read."""

    title: str
    looks: str
    """What is at its top, for the error that lists what is known."""
    recognises: Callable[[Document], bool]
    read: Read
    on_scan: bool = False
    """True where the program that writes it shows the vendor's file: its pixels are those of level 0."""


def _first(document: Document) -> Any:
    """First item of a bare list, None where there is none."""
    if not isinstance(document, JsonDocument) or not isinstance(document.frame, list):
        return None
    return next(document.items(""), None)


def _keys(document: Document) -> set[str]:
    """Keys at the top of a JSON object."""
    return set(document.frame) if isinstance(document, JsonDocument) and isinstance(document.frame, dict) else set()


def _is_geojson(document: Document) -> bool:
    if not isinstance(document, JsonDocument):
        return False
    if isinstance(document.frame, list):
        first = _first(document)
        return first is None or (isinstance(first, dict) and "type" in first)
    return "features" in _keys(document) or _type(document) in ("Feature", "FeatureCollection")


def _type(document: JsonDocument) -> Any:
    return document.frame.get("type") if isinstance(document.frame, dict) else None


def _has_root(root: str) -> Callable[[Document], bool]:
    return lambda found: isinstance(found, XmlDocument) and found.root == root


def _is_msu(document: Document) -> bool:
    first = _first(document)
    return "objects" in _keys(document) or (isinstance(first, dict) and {"class", "vertices"} <= first.keys())


READERS = (
    Reader(
        geojson.FORMAT, "a FeatureCollection, a Feature or an array of features", _is_geojson, geojson.read_features
    ),
    Reader(asap.FORMAT, f"<{asap.ROOT}>", _has_root(asap.ROOT), asap.read_features, on_scan=True),
    Reader(
        imagescope.FORMAT, f"<{imagescope.ROOT}>", _has_root(imagescope.ROOT), imagescope.read_features, on_scan=True
    ),
    Reader(
        outlines_json.NCRF,
        '{"positive": […], "negative": […]}',
        lambda found: bool(_keys(found) & {"positive", "negative"}),
        outlines_json.read_ncrf,
        on_scan=True,
    ),
    Reader(
        coco.FORMAT,
        '{"images": […], "annotations": […], "categories": […]}',
        lambda found: {"images", "annotations"} <= _keys(found),
        coco.read_features,
    ),
    Reader(
        darwin.FORMAT,
        '{"version": …, "item": …, "annotations": […]}',
        lambda found: "annotations" in _keys(found) and bool(_keys(found) & {"item", "image", "schema_ref"}),
        darwin.read_features,
        on_scan=True,
    ),
    Reader(
        outlines_json.MSU,
        '[{"class": …, "vertices": […]}] or {"objects": [{"points": […]}]}',
        _is_msu,
        outlines_json.read_msu,
        on_scan=True,
    ),
)
"""In the order in which they are tried."""


@dataclass(frozen=True)
class Opened:
    """An annotation file of a known format, not yet read."""

    reader: Reader
    document: Document

    def features(self, report: LossReport, *, repair: bool = False) -> Iterator[tuple[Place, Feature]]:
        """(place in the file, feature) of each outline, in the file's own plane; what is not kept goes to the report.

        Raises AnnotationFileError at the first fault that is not to be repaired.
        """
        seen: set[str] = set()
        for place, feature in self.reader.read(self.document, Repairer(report, repair)):
            if feature.uuid in seen:
                raise AnnotationFileError(f"{place}: its id {feature.uuid} was used before; give each feature its own.")
            seen.add(feature.uuid)
            yield place, feature


def open_annotations(text: bytes) -> Opened:
    """Tell the format of a file's bytes; raises AnnotationFileError that lists what is known."""
    document = open_document(text)
    for reader in READERS:
        if reader.recognises(document):
            return Opened(reader, document)
    known = "; ".join(f"{reader.title}: {reader.looks}" for reader in READERS)
    what = f"XML of <{document.root[:40]}>" if isinstance(document, XmlDocument) else "JSON of another kind"
    raise AnnotationFileError(f"The file is of no known annotation format ({what}). At its top must be: {known}.")


def read_features(text: bytes, *, repair: bool = False) -> tuple[LossReport, Iterator[tuple[Place, Feature]]]:
    """(report, features in the file's own plane) of a file's bytes; the report is complete once all are taken."""
    opened = open_annotations(text)
    report = LossReport(opened.reader.title)
    return report, opened.features(report, repair=repair)
