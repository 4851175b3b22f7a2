"""Features of a features file as the formats write them, and features of the formats as a features file takes them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely

from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.columns import NO_SCORE, SCORE_STEPS, FeatureColumns
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.features_format import FeaturesFacts
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import Layer

_NAMESPACE = uuid.UUID("c2d6a9a4-6f5b-5e0e-9f0e-4f43554c4152")


def feature_uuid(layer_id: str, number: int) -> str:
    """UUID of a feature that is kept in a features file alone: always the same for the same layer and number."""
    return feature_uuids(layer_id, [number])[0]


def feature_uuids(layer_id: str, numbers: Iterable[int]) -> list[str]:
    """UUIDs (version 5) of several features; written out here, for `uuid.uuid5` takes four times as long."""
    namespace = uuid.uuid5(_NAMESPACE, layer_id).bytes
    found = []
    for number in numbers:
        digest = bytearray(hashlib.sha1(b"%b%d" % (namespace, number), usedforsecurity=False).digest()[:16])
        digest[6], digest[8] = digest[6] & 0x0F | 0x50, digest[8] & 0x3F | 0x80
        text = digest.hex()
        found.append(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    return found


def feature_of_class(layer: Layer, class_number: int) -> Feature:
    """What all features of a class share; the rest is to be replaced.

    Instances (nuclei, glands) are QuPath's detections, which it draws by the million; regions are annotations.
    """
    named = layer.classes[class_number]
    object_type = "detection" if layer.provenance.get("kind") == "instance" else "annotation"
    return Feature(shapely.Polygon(), "", named.name, named.color, object_type)


def features_of(layer: Layer, columns: FeatureColumns) -> list[Feature]:
    """Columns of a layer's features file as features."""
    models = [feature_of_class(layer, number) for number in range(len(layer.classes))]
    rows = zip(
        columns.geometries(),
        feature_uuids(layer.id, columns.numbers.tolist()),
        [models[number] for number in columns.class_numbers.tolist()],
        columns.scores.tolist(),
        strict=True,
    )
    return [
        Feature(
            geometry,
            id_,
            model.class_name,
            model.class_color,
            model.object_type,
            None if score == NO_SCORE else score / SCORE_STEPS,
        )
        for geometry, id_, model, score in rows
    ]


def all_features(layer: Layer, file: FeaturesFile) -> Iterator[Feature]:
    """Every feature of a features file in the order of the file, one block in memory at a time."""
    for number in range(len(file.blocks)):
        yield from features_of(layer, file.block(number))


def write_copy(
    path: Path, class_names: Sequence[str], base_size: Size, batches: Iterable[Sequence[Feature]]
) -> FeaturesFacts:
    """Write a features file of features that come in batches, numbered in their order; raises DiskFullError."""
    numbers = {name: number for number, name in enumerate(class_names)}
    with FeaturesWriter(path, class_names, base_size) as writer:
        for features in batches:
            geometries = np.empty(len(features), object)
            geometries[:] = [feature.geometry for feature in features]
            scores = np.array([np.nan if feature.score is None else feature.score for feature in features])
            classes = np.array([numbers[feature.class_name] for feature in features], np.uint16)
            writer.add(FeatureBatch(geometries, classes, scores))
        return writer.finish()
