"""Every format that is written, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from wsi_ml.errors import BadRequestError
from wsi_ml.formats import asap, coco, geojson, geoparquet, imagescope, imagescope_writing, outlines_json
from wsi_ml.formats.canvas import Canvas
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.report import LossReport

REVISION = 1
"""Goes up when a writer gives other bytes for the same features: it is part of the ETag of an export."""

Write = Callable[[Iterable[Feature], Canvas, LossReport], Iterator[bytes]]


@dataclass(frozen=True)
class Writer:
    """One format: its name for people, the file's ending and media type, and how it is written.

    `write` gives the file in chunks, in bounded memory; the loss report is complete once all are taken.
    """

    title: str
    suffix: str
    media_type: str
    write: Write
    on_scan: bool = False
    """True where the program that reads it shows the vendor's file: it wants pixels of level 0."""


WRITERS = {
    "geojson": Writer(geojson.FORMAT, ".geojson", "application/geo+json", geojson.write_file),
    "asap": Writer(asap.FORMAT, ".xml", "application/xml", asap.write_features, on_scan=True),
    "imagescope": Writer(imagescope.FORMAT, ".xml", "application/xml", imagescope_writing.write_features, on_scan=True),
    "coco": Writer(coco.FORMAT, ".json", "application/json", coco.write_features),
    "msu": Writer(outlines_json.MSU, ".json", "application/json", outlines_json.write_msu, on_scan=True),
    "geoparquet": Writer(geoparquet.FORMAT, ".parquet", "application/vnd.apache.parquet", geoparquet.write_features),
}


def writer_of(name: str) -> Writer:
    """The writer of a format; raises BadRequestError that lists the formats."""
    if name not in WRITERS:
        raise BadRequestError(f"There is no format “{name[:20]}”: say {', '.join(WRITERS)}.")
    return WRITERS[name]
