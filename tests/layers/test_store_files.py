"""Layers kept in features files, drawing copies of the others, and the way from databases of format 1."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import uuid
from importlib import resources

import numpy as np
import pytest
import shapely

from tests.layers.shapes import batch_of, mixed_batch
from tests.versions import add_slide
from wsi_ml.errors import DamagedError, LibraryError, UnknownLayerError
from wsi_ml.formats.feature import Feature
from wsi_ml.formats.geojson import write_features
from wsi_ml.geometry import Size
from wsi_ml.layers import file_features
from wsi_ml.layers.database import DATABASE_FILE
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.file_features import feature_uuid
from wsi_ml.layers.layer import BaseBox, NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

SIZE = Size(5000, 3000)
COLORS = {"b": "#123456"}


@pytest.fixture
def store(tmp_path):
    store = LayerStore(tmp_path)
    yield store
    assert store.check() == []


@pytest.fixture(scope="module")
def batch():
    return mixed_batch()


def new(name="nuclei", kind="prediction", **provenance):
    return NewLayer("slide0000001", "v1", name, kind, {"model": "m", **provenance})


def stage(root, batch, name="staged.features"):
    (root / "work").mkdir(exist_ok=True)
    path = root / "work" / name
    with FeaturesWriter(path, ("b", "c", "a"), SIZE) as writer:
        writer.add(batch)
        return path, writer.finish()


def publish(store, batch, key=None, layer=None):
    path, facts = stage(store.root, batch)
    return store.publish_file(layer or new(), path, facts, COLORS, key)


def drawn(n, score=None, class_name="gland"):
    return Feature(shapely.box(n, n, n + 10.03, n + 10), str(uuid.uuid4()), class_name, score=score)


def test_a_file_becomes_a_layer(store, batch):
    layer = publish(store, batch)
    assert (layer.stored_in, layer.scored, layer.count) == ("file", True, 400)
    assert [(each.name, each.color) for each in layer.classes] == [
        ("a", "#0072b2"),
        ("b", "#123456"),
        ("c", "#e69f00"),
    ]
    counts = np.bincount(batch.class_numbers)
    assert [each.count for each in layer.classes] == [counts[2], counts[0], counts[1]]
    areas = shapely.area(batch.geometries)
    assert layer.classes[1].base_area == pytest.approx(areas[batch.class_numbers == 0].sum(), rel=1e-12)
    assert store.layer(layer.id) == layer and store.layer_ids() == {layer.id}
    assert not (store.root / "work" / "staged.features").exists()
    assert [path.name for path in (store.root / "layers").iterdir()] == [f"{layer.id}.features"]
    facts = layer.to_json(0.25)
    assert (facts["scored"], facts["unit_area"], facts["count"]) == (True, 1 / 512, 400)


def test_features_of_a_file_are_features_like_others(store, batch):
    layer = publish(store, batch)
    every = {each.uuid: each for each in store.all_features(layer.id)}
    assert set(every) == {feature_uuid(layer.id, number) for number in range(400)}
    for number in (0, 1, 2, 5, 7, 399):
        found = every[feature_uuid(layer.id, number)]
        assert found.geometry.wkb == batch.geometries[number].wkb
        assert found.class_name == "bca"[batch.class_numbers[number]] and found.object_type == "annotation"
        score = batch.scores[number]
        assert found.score is None if np.isnan(score) else found.score == pytest.approx(score, abs=0.51e-4)
    assert uuid.UUID(feature_uuid(layer.id, 3)).version == 5
    spaces = [uuid.uuid5(file_features._NAMESPACE, each) for each in ("a", layer.id)]
    assert feature_uuid("a", 12_345) == str(uuid.uuid5(spaces[0], "12345"))
    assert feature_uuid(layer.id, 0) == str(uuid.uuid5(spaces[1], "0"))
    page = store.features(layer.id, limit=7)
    areas = [each.geometry.area for each in page.features]
    assert areas == sorted(areas, reverse=True) and page.total == 400 and page.truncated
    few = store.features(layer.id, bbox=BaseBox(0, 0, 900, 900), classes=["b"], min_score=0.5)
    assert all(each.class_name == "b" and (each.score is None or each.score >= 0.5) for each in few.features)
    assert 0 < few.total == len(few.features) < 100


def test_geojson_from_columns_is_that_of_the_features(store, batch):
    layer = publish(store, batch)
    for query in ({}, {"limit": 3}, {"classes": ["a"], "min_score": 0.3}, {"classes": ["none"]}):
        page = store.features(layer.id, **query)
        slow = write_features(page.features, layer.colors, total=page.total, truncated=page.truncated)
        assert json.loads(b"".join(store.geojson(layer.id, **query))) == json.loads(b"".join(slow))
    whole = batch_of(
        [shapely.box(2, 3, 5, 9), shapely.MultiPolygon([shapely.box(7, 7, 8, 8), shapely.box(9, 9, 10, 10)])]
    )
    text = b"".join(store.geojson(publish(store, whole).id, limit=1))
    assert b'"Polygon","coordinates":[[[5,3],[5,9],[2,9],[2,3],[5,3]]]}' in text
    assert b'"properties":{"objectType":"annotation","classification":{"name":"b","color":[18,52,86]}}' in text


def test_instances_are_detections(store, batch):
    instances = NewLayer("slide0000001", "v1", "nuclei", "prediction", {"kind": "instance"})
    layer = publish(store, batch, layer=instances)
    assert {each.object_type for each in store.all_features(layer.id)} == {"detection"}


def test_a_key_is_published_once(store, batch):
    first = publish(store, batch, key="k1")
    assert store.layer_by_key("k1") == first and store.layer_by_key("k2") is None
    again = publish(store, batch, key="k1")
    assert again == first and not (store.root / "work" / "staged.features").exists()
    other = publish(store, batch, key="k2")
    publish(store, batch)
    publish(store, batch)
    assert len(store.layers("slide0000001")) == 4
    store.remove(first.id)
    assert store.layer_by_key("k1") is None and store.layer_by_key("k2") == other
    assert publish(store, batch, key="k1").id != first.id


def test_of_two_that_publish_a_key_at_once_one_wins(tmp_path, batch):
    staged = [stage(tmp_path, batch, f"{n}.features") for n in range(6)]
    found = []

    def run(path, facts):
        found.append(LayerStore(tmp_path).publish_file(new(), path, facts, COLORS, "k").id)

    threads = [threading.Thread(target=run, args=each) for each in staged]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = LayerStore(tmp_path)
    assert len(found) == 6 and len(set(found)) == 1 and store.layer_ids() == set(found)
    assert list((tmp_path / "work").iterdir()) == [] and store.check() == []


def test_where_publishing_fails_the_staged_file_stays(store, batch, monkeypatch):
    path, facts = stage(store.root, batch)
    with pytest.raises(LibraryError, match="CHECK"):
        store.publish_file(new(kind="rumour"), path, facts, COLORS, "k")
    with pytest.raises(LibraryError, match="CHECK"):
        store.publish_file(new(), path, facts, {"a": "red"}, "k")

    def broken(folder):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("wsi_ml.layers.layer_files.sync_folder", broken)
    with pytest.raises(OSError, match="Input/output"):
        store.publish_file(new(), path, facts, COLORS, "k")
    monkeypatch.undo()
    adopt = store.files.adopt

    def cut(*place):
        adopt(*place)
        with store.database.connection() as connection:
            connection.execute("ROLLBACK")  # so that the COMMIT fails

    monkeypatch.setattr(store.files, "adopt", cut)
    with pytest.raises(LibraryError, match="cannot commit"):
        store.publish_file(new(), path, facts, COLORS, "k")
    monkeypatch.undo()
    assert path.exists() and store.layer_ids() == set() and store.check() == []
    assert store.publish_file(new(), path, facts, COLORS, "k").count == 400


def test_a_file_that_is_not_what_is_said_is_refused(store, batch):
    path, facts = stage(store.root, batch)
    _, others = stage(store.root, mixed_batch(seed=5), "other.features")
    with pytest.raises(LibraryError, match="does not hold what is to be published"):
        store.publish_file(new(), path, others, COLORS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        store.publish_file(new(), path, facts, COLORS)
    assert store.layer_ids() == set()


@pytest.mark.parametrize("moment", ["before the file", "between file and row"])
def test_a_crash_while_publishing_leaves_nothing_to_be_seen(tmp_path, batch, moment):
    store = LayerStore(tmp_path)
    kept = publish(store, batch, key="kept")
    path, facts = stage(tmp_path, batch)
    child = os.fork()
    if child == 0:
        try:
            adopt = store.files.adopt

            def die(*place):
                if moment == "between file and row":
                    adopt(*place)
                os._exit(9)

            store.files.adopt = die
            store.publish_file(new(), path, facts, COLORS, "k")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    after = LayerStore(tmp_path)
    assert after.layer_ids() == {kept.id} and after.layer_by_key("k") is None
    assert [layer.id for layer in after.layers("slide0000001")] == [kept.id]
    faults = after.check()
    if moment == "before the file":
        assert faults == [] and path.exists()
        assert after.publish_file(new(), path, facts, COLORS, "k").count == 400
    else:
        assert len(faults) == 1 and "has no layer; delete it" in faults[0]
        next(each for each in after.files.folder.iterdir() if each.name != f"{kept.id}.features").unlink()
    assert after.check() == []


def test_removal_takes_row_and_file(store, batch):
    layer, other = publish(store, batch), publish(store, batch)
    assert store.features_file(layer.id).count == 400
    store.remove(layer.id)
    assert not store.files.path(layer.id).exists() and store.files.path(other.id).exists()
    for call in (store.layer, store.features_file, store.features, store.remove):
        with pytest.raises(UnknownLayerError):
            call(layer.id)


def test_imported_layers_get_a_drawing_copy_at_publication(store):
    features = [drawn(n * 20, None if n % 3 else n / 100, "ab"[n % 2]) for n in range(60)]
    layer = store.publish(new(kind="truth"), features, SIZE)
    assert (layer.stored_in, layer.scored) == ("database", True)
    assert store.files.path(layer.id).exists()
    check_copy(store, layer, features)
    assert store.features_file(layer.id).base_size == SIZE
    assert not store.publish(new(kind="truth"), [drawn(3)], SIZE).scored
    store.remove(layer.id)
    assert not store.files.path(layer.id).exists()


def check_copy(store, layer, features):
    """The copy holds the features in order, rounded; the database holds them exactly."""
    file = store.features_file(layer.id)
    assert file.count == len(features) and file.class_names == tuple(each.name for each in layer.classes)
    for numbers, found in file.batches():
        for number, geometry, class_number in zip(numbers, found.geometries, found.class_numbers, strict=True):
            exact = features[number]
            assert np.abs(shapely.get_coordinates(geometry) - shapely.get_coordinates(exact.geometry)).max() <= 1 / 32
            assert file.class_names[class_number] == exact.class_name
    assert [each.geometry.wkb for each in store.all_features(layer.id)] == [each.geometry.wkb for each in features]


def test_copies_that_are_missing_are_made_when_asked_for(store):
    features = [drawn(n * 20) for n in range(30)]
    layer = store.publish(new(kind="truth"), features)
    assert not store.files.path(layer.id).exists() and store.check() == []
    files = []
    threads = [threading.Thread(target=lambda: files.append(store.features_file(layer.id))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(file) for file in files}) == 1 and len(files) == 8
    check_copy(store, layer, features)
    assert files[0].base_size == Size(591, 590)  # the slide is not in the library: the layer's own extent
    assert list((store.root / "staging").iterdir()) == []


def test_copies_cover_the_slide(tmp_path):
    library = Library.create(tmp_path)
    slide_id, version, _ = add_slide(library, "one", Size(600, 400))
    store = LayerStore(tmp_path)
    layer = store.publish(NewLayer(slide_id, version, "t", "truth"), [drawn(5)])
    assert store.features_file(layer.id).base_size == library.card(slide_id).base_size


def test_one_threshold_keeps_the_same_features_everywhere(store):
    scores = [0.49994, 0.49995, 0.5, 0.50004, 0.29, 0.57, 0.58, None]
    features = [drawn(n * 20, score) for n, score in enumerate(scores)]
    layer = store.publish(new(kind="annotation"), features, SIZE)
    for threshold in (0.0, 0.29, 0.3, 0.5, 0.57, 0.58, 1.0):
        wanted = store.features_file(layer.id).query(min_score=threshold).total
        assert store.features(layer.id, min_score=threshold).total == wanted
    assert store.features(layer.id, min_score=0.5).total == 6  # 0.49995 is 0.5 in ten-thousandths


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_check_reads_every_file(tmp_path, batch):
    store = LayerStore(tmp_path)
    layer, whole = publish(store, batch), publish(store, batch)
    copied = store.publish(new(kind="truth"), [drawn(5)], SIZE)
    assert store.check() == [] and store.check("slide0000001") == []
    damage(store.files.path(layer.id), 100)
    damage(store.files.path(copied.id), 20)
    faults = LayerStore(tmp_path).check()
    assert len(faults) == 2 and "Block 0" in faults[0] and "does not match its checksum" in faults[0]
    assert faults[1].endswith("Delete it: it is a copy and is made again.")
    assert LayerStore(tmp_path).check("slide0000001") == faults and LayerStore(tmp_path).check("another") == []
    store.files.path(copied.id).unlink()
    store.files.path(layer.id).unlink()
    assert "cannot be opened" in LayerStore(tmp_path).check()[0]
    store.files.path(layer.id).write_bytes(store.files.path(whole.id).read_bytes())
    assert LayerStore(tmp_path).check() == []  # the same features: the same file
    path, _ = stage(tmp_path, mixed_batch(seed=4))
    path.rename(store.files.path(layer.id))
    assert "is not the one that was published" in LayerStore(tmp_path).check()[0]
    (store.files.folder / "notes.txt").write_text("?")
    assert any("notes.txt" in fault for fault in LayerStore(tmp_path).check())
    with pytest.raises(DamagedError, match="not the one that was published"):
        LayerStore(tmp_path).features_file(layer.id)


def test_a_file_without_any_database_is_found(tmp_path):
    path, _ = stage(tmp_path, mixed_batch(count=9))
    store = LayerStore(tmp_path)
    store.files.adopt(path, "abc")
    assert store.check() == ["The features file abc has no layer; delete it."]


# -- format 1 ----------------------------------------------------------------------------------------------------------


def format_1(root):
    """A database as format 1 wrote it: two layers, one of them with scores."""
    connection = sqlite3.connect(root / DATABASE_FILE)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(resources.files("wsi_ml.layers").joinpath("schema.sql").read_text("utf-8"))
    connection.execute("PRAGMA user_version = 1")
    for number, scored in ((1, False), (2, True)):
        connection.execute(
            "INSERT INTO layers (id, slide_id, version, name, kind, provenance, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (f"layer{number}", "slide0000001", "v1", f"layer {number}", "truth", "{}", "2025-01-01T00:00:00+00:00"),
        )
        connection.execute("INSERT INTO classes VALUES (?, 0, 'gland', '#0072b2', 3, 300)", (number,))
        for n in range(3):
            square = shapely.box(n * 20, 0, n * 20 + 10, 10)
            connection.execute(
                "INSERT INTO features (layer_number, class_number, uuid, score, base_x0, base_y0, base_x1, base_y1, "
                "base_area, geometry, properties) VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, '{}')",
                (number, f"u{number}{n}", n / 4 if scored else None, *square.bounds, square.area, square.wkb),
            )
    connection.commit()
    connection.close()


def test_a_database_of_format_1_is_brought_up_to_date(tmp_path):
    format_1(tmp_path)
    store = LayerStore(tmp_path)
    layers = store.layers("slide0000001")
    assert [(each.id, each.stored_in, each.scored, each.count) for each in layers] == [
        ("layer1", "database", False, 3),
        ("layer2", "database", True, 3),
    ]
    assert store.features("layer2", min_score=0.25).total == 2 and store.check() == []
    assert store.features_file("layer2").query(min_score=0.25).total == 2
    version = sqlite3.connect(store.path).execute("PRAGMA user_version").fetchone()
    assert version == (2,)
    assert publish(store, mixed_batch(count=9), key="k").stored_in == "file" and store.check() == []
    fresh = LayerStore(tmp_path / "fresh")
    (tmp_path / "fresh").mkdir()
    fresh.publish(new(kind="truth"), [drawn(1)])
    assert tables(store.path) == tables(fresh.path)


def tables(path):
    return sqlite3.connect(path).execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def test_a_migration_that_is_cut_short_leaves_format_1(tmp_path, monkeypatch):
    format_1(tmp_path)
    half = ["ALTER TABLE layers ADD COLUMN stored_in TEXT", "SELECT no_such_column"]
    monkeypatch.setattr("wsi_ml.layers.database._statements", lambda script: iter(half))
    with pytest.raises(LibraryError, match="no such column"):
        LayerStore(tmp_path).layers("slide0000001")
    monkeypatch.undo()
    connection = sqlite3.connect(tmp_path / DATABASE_FILE)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert len(connection.execute("PRAGMA table_info(layers)").fetchall()) == 8
    connection.close()
    assert len(LayerStore(tmp_path).layers("slide0000001")) == 2


def test_many_may_open_an_old_database_at_once(tmp_path):
    format_1(tmp_path)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(len(LayerStore(tmp_path).layers("slide0000001"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 8
