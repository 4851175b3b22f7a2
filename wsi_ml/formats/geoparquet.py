"""GeoParquet 1.0, written for data frames (geopandas, DuckDB); needs pyarrow, which the extra `gis` brings."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import shapely

from wsi_ml.errors import BadRequestError
from wsi_ml.formats.canvas import Canvas, batches
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.report import LossReport

FORMAT = "GeoParquet"
ROW_GROUP = 16_384
_TEXTS = ("id", "class", "class_color", "object_type", "name", "color", "measurements", "metadata")


class _Sink(io.RawIOBase):
    """Takes what pyarrow writes and hands it on."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.chunks.append(bytes(data))
        return len(self.chunks[-1])

    def take(self) -> bytes:
        data = b"".join(self.chunks)
        self.chunks.clear()
        return data


def write_features(features: Iterable[Feature], canvas: Canvas, report: LossReport) -> Iterator[bytes]:
    """A GeoParquet file in chunks, a row group a batch; raises BadRequestError at once where pyarrow is missing."""
    try:
        # Here and not at the top: pyarrow is 55 MB of an extra, and every other format works without it.
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise BadRequestError("GeoParquet needs pyarrow; pip install 'ocular-wsi[gis]' brings it.") from None
    schema = pyarrow.schema(
        [
            *((name, pyarrow.string()) for name in _TEXTS),
            ("score", pyarrow.float64()),
            ("locked", pyarrow.bool_()),
            ("geometry", pyarrow.binary()),
        ],
        metadata={b"geo": orjson.dumps(_geo())},
    )
    return _chunks(pyarrow, parquet, schema, features, canvas, report)


def _chunks(
    pyarrow: Any, parquet: Any, schema: Any, features: Iterable[Feature], canvas: Canvas, report: LossReport
) -> Iterator[bytes]:
    sink = _Sink()
    with parquet.ParquetWriter(pyarrow.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for batch in batches(features, ROW_GROUP):
            report.read += len(batch)
            report.kept += len(batch)
            writer.write_batch(pyarrow.RecordBatch.from_pydict(_columns(batch, canvas), schema))
            yield sink.take()
    yield sink.take()


def _geo() -> dict[str, Any]:
    """The file's `geo` metadata; `crs` null says that the coordinates are of no place on Earth."""
    column = {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"], "crs": None}
    return {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _columns(batch: tuple[Feature, ...], canvas: Canvas) -> dict[str, list[Any]]:
    return {
        "id": [each.uuid for each in batch],
        "class": [each.class_name for each in batch],
        "class_color": [canvas.color_of(each.class_name) for each in batch],
        "object_type": [each.object_type for each in batch],
        "name": [each.name for each in batch],
        "color": [each.color for each in batch],
        "measurements": [orjson.dumps(each.measurements).decode() for each in batch],
        "metadata": [orjson.dumps(each.metadata).decode() for each in batch],
        "score": [each.score for each in batch],
        "locked": [each.locked for each in batch],
        "geometry": list(shapely.to_wkb([each.geometry for each in batch])),
    }
