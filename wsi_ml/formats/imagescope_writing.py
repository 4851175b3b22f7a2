"""Layers as Aperio ImageScope reads them: a layer of the file for each class, holes as negative regions."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

import shapely

from wsi_ml.formats.canvas import Canvas, batches, note_losses
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.imagescope import FORMAT, ROOT
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.values import SCORE
from wsi_ml.formats.xmltext import quoted

KEEPS = frozenset({"name", "score", "metadata", "holes"})
_CHUNK = 1 << 20


@dataclass
class _ClassFile:
    """The regions of one class, in a file of their own until all are known; `headers` numbers their attributes."""

    file: IO[bytes]
    headers: dict[str, int] = field(default_factory=dict)
    regions: int = 0


def write_features(features: Iterable[Feature], canvas: Canvas, report: LossReport) -> Iterator[bytes]:
    """An ImageScope file in chunks; the report is complete once all are taken.

    The format groups regions by class, so they wait in temporary files, one a class; memory stays bounded.
    """
    with contextlib.ExitStack() as stack:
        classes: dict[str, _ClassFile] = {}
        for batch in batches(features):
            for feature in batch:
                note_losses(report, report.read, feature, KEEPS, FORMAT)
                if feature.class_name not in classes:
                    classes[feature.class_name] = _ClassFile(stack.enter_context(tempfile.TemporaryFile()))
                _write_regions(feature, classes[feature.class_name], report)
                report.read += 1
                report.kept += 1
        yield f'<?xml version="1.0"?>\n<{ROOT}>\n'.encode()
        for number, name in enumerate(sorted(classes), 1):
            yield from _layer(number, name, classes[name], canvas.color_of(name), report)
        yield f"</{ROOT}>\n".encode()


def _layer(number: int, name: str, found: _ClassFile, color: str, report: LossReport) -> Iterator[bytes]:
    red, green, blue = bytes.fromhex(color[1:])
    headers = "".join(
        f'        <AttributeHeader Id="{id_}" Name={quoted(header, report)} ColumnWidth="-1"/>\n'
        for header, id_ in found.headers.items()
    )
    yield (
        f'  <Annotation Id="{number}" Name={quoted(name, report)} ReadOnly="0" NameReadOnly="0" LineColorReadOnly="0" '
        f'Incremental="0" Type="4" LineColor="{blue << 16 | green << 8 | red}" Visible="1" Selected="0" '
        f'MarkupImagePath="" MacroName="">\n    <Attributes/>\n    <Regions>\n'
        f"      <RegionAttributeHeaders>\n{headers}      </RegionAttributeHeaders>\n"
    ).encode()
    found.file.seek(0)
    while chunk := found.file.read(_CHUNK):
        yield chunk
    yield b"    </Regions>\n    <Plots/>\n  </Annotation>\n"


def _write_regions(feature: Feature, found: _ClassFile, report: LossReport) -> None:
    """Each part of a feature as a region, its holes as negative regions after it."""
    texts = dict(feature.metadata)
    if feature.score is not None:
        texts[SCORE] = repr(feature.score)
    attributes = "".join(
        f'<Attribute Name="{found.headers.setdefault(key, len(found.headers) + 1)}" Id="0" '
        f"Value={quoted(value, report, report.read)}/>"
        for key, value in texts.items()
    )
    text = quoted(feature.name or "", report, report.read)
    for polygon in shapely.get_parts(feature.geometry):
        found.file.write(_region(found, polygon.exterior, text, attributes, "0"))
        for ring in polygon.interiors:
            found.file.write(_region(found, ring, '""', "", "1"))


def _region(found: _ClassFile, ring: shapely.LinearRing, text: str, attributes: str, negative: str) -> bytes:
    found.regions += 1
    points = shapely.get_coordinates(ring)[:-1].tolist()
    vertices = "".join(f'          <Vertex X="{x!r}" Y="{y!r}" Z="0"/>\n' for x, y in points)
    return (
        f'      <Region Id="{found.regions}" Type="0" Zoom="1" Selected="0" ImageLocation="" ImageFocus="-1" '
        f'Text={text} NegativeROA="{negative}" InputRegionId="0" Analyze="1" DisplayId="{found.regions}">\n'
        f"        <Attributes>{attributes}</Attributes>\n        <Vertices>\n{vertices}        </Vertices>\n"
        f"      </Region>\n"
    ).encode()
