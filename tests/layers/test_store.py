import os
import sqlite3
import threading
import uuid

import numpy as np
import pytest
import shapely

from wsi_ml.errors import DiskFullError, LibraryError, UnknownLayerError
from wsi_ml.formats.feature import Feature
from wsi_ml.layers.database import DATABASE_FILE
from wsi_ml.layers.layer import BaseBox, NewLayer
from wsi_ml.layers.store import LayerStore


def box(x, y, side, class_name="nucleus", score=None, **facts):
    return Feature(shapely.box(x, y, x + side, y + side), str(uuid.uuid4()), class_name, score=score, **facts)


def new(name="a layer", slide_id="slide0000001", version="v1", kind="truth"):
    return NewLayer(slide_id, version, name, kind, {"source": {"plane": "base"}})


@pytest.fixture
def store(tmp_path):
    store = LayerStore(tmp_path)
    yield store
    assert store.check() == []


def test_a_published_layer_is_read_back_exactly(store):
    first = Feature(
        shapely.Polygon([(0.1, 0.2), (1 / 3, 9), (9, 1e-7)], None),
        str(uuid.uuid4()),
        "gland",
        "#010203",
        "detection",
        0.5,
        "name",
        "#040506",
        True,
        {"a": 1.5, "b": "NaN"},
        {"k": "v"},
    )
    holed = shapely.Polygon(shapely.box(0, 0, 50, 50).exterior, [shapely.box(10, 10, 20, 20).exterior])
    second = Feature(shapely.MultiPolygon([holed, shapely.box(60, 60, 61, 61)]), str(uuid.uuid4()), "gland", "#010203")
    layer = store.publish(new(), [first, second, box(0, 0, 2, "a class")])
    assert [(each.name, each.color, each.count) for each in layer.classes] == [
        ("a class", "#0072b2", 1),
        ("gland", "#010203", 2),
    ]
    assert layer.classes[1].base_area == first.geometry.area + 2401
    assert store.layer(layer.id) == layer and layer.count == 3
    found = {each.uuid: each for each in store.all_features(layer.id)}
    assert found[first.uuid] == first and found[second.uuid] == second
    assert found[first.uuid].geometry.wkb == first.geometry.wkb


def test_features_come_largest_first_with_total_and_filters(store):
    features = [box(100 * n, 0, n + 1, "ab"[n % 2], score=None if n == 0 else n / 10) for n in range(10)]
    id_ = store.publish(new(), features).id
    page = store.features(id_, limit=3)
    assert [each.geometry.bounds[0] for each in page.features] == [900, 800, 700]
    assert (page.total, page.truncated) == (10, True)
    assert store.features(id_).total == 10 and not store.features(id_).truncated
    assert store.features(id_, classes=["a"]).total == 5
    assert store.features(id_, classes=["a", "b", "c"]).total == 10
    assert store.features(id_, classes=["c"]).features == []
    assert store.features(id_, min_score=0.85).total == 2  # 0.9, and the one without a score
    page = store.features(id_, bbox=BaseBox(350, 0, 700, 5), classes=["a"], min_score=0.5)
    assert [each.geometry.bounds[0] for each in page.features] == [600]


def test_exact_columns_decide_where_the_tree_rounds(store):
    # 100000.1 is 100000.1015625 or 100000.09375 in 32 bits: the tree alone would find the neighbour.
    left, right = box(99999.1, 5, 1.0), box(100000.1001, 5, 1.0)
    id_ = store.publish(new(), [left, right]).id
    edge = left.geometry.bounds[2]
    assert store.features(id_, bbox=BaseBox(edge, 0, edge, 9)).features == [_as_stored(left)]
    beyond = np.nextafter(edge, np.inf)
    assert store.features(id_, bbox=BaseBox(beyond, 0, 100000.10005, 9)).total == 0
    assert store.features(id_, bbox=BaseBox(0, 0, np.nextafter(99999.1, 0), 9)).total == 0
    tree = sqlite3.connect(store.path).execute("SELECT count(*) FROM feature_boxes WHERE x1 >= ?", (beyond,)).fetchone()
    assert tree == (2,)


def _as_stored(feature):
    return Feature(feature.geometry, feature.uuid, feature.class_name, "#0072b2")


def test_boxes_find_what_a_scan_finds(store):
    rng = np.random.default_rng(7)
    features = [box(*rng.uniform(0, 5000, 2), rng.uniform(1, 80)) for _ in range(600)]
    id_ = store.publish(new(), features).id
    store.publish(new("another on the same ground"), features[:300])
    for _ in range(40):
        x, y, w, h = rng.uniform(0, 4000, 4)
        asked = BaseBox(x, y, x + w / 4, y + h / 4)
        wanted = {each.uuid for each in features if _meets(each.geometry.bounds, asked)}
        page = store.features(id_, bbox=asked)
        assert {each.uuid for each in page.features} == wanted and page.total == len(wanted)


def _meets(bounds, asked):
    return bounds[0] <= asked.x1 and bounds[2] >= asked.x0 and bounds[1] <= asked.y1 and bounds[3] >= asked.y0


def test_publish_is_all_or_nothing(store):
    store.publish(new(), [box(0, 0, 1)])
    with pytest.raises(LibraryError, match="CHECK"):
        store.publish(new("bad score"), [box(5, 5, 1), box(9, 9, 1, score=1.5)])
    with pytest.raises(LibraryError, match="CHECK"):
        store.publish(new("bad colour"), [Feature(shapely.box(0, 0, 1, 1), "u", "c", "red; x:y")])
    with pytest.raises(LibraryError, match="CHECK"):
        store.publish(new(kind="rumour"), [box(5, 5, 1)])
    assert [layer.name for layer in store.layers("slide0000001")] == ["a layer"]


def test_layers_are_of_a_slide_and_a_version(store):
    ids = [
        store.publish(new(slide_id=s, version=v), [box(0, 0, 1)]).id
        for s, v in (("s1", "v1"), ("s1", "v2"), ("s2", "v1"))
    ]
    assert [layer.id for layer in store.layers("s1")] == ids[:2]
    assert [layer.id for layer in store.layers("s1", "v2")] == ids[1:2]
    assert store.layer_of("s2", ids[2]).id == ids[2]
    with pytest.raises(UnknownLayerError):
        store.layer_of("s1", ids[2])
    store.remove(ids[0])
    with pytest.raises(UnknownLayerError):
        store.features(ids[0])
    with pytest.raises(UnknownLayerError):
        store.remove(ids[0])
    store.remove(ids[1])
    assert store.layers("s1") == [] and len(list(store.all_features(ids[2]))) == 1


def test_before_the_first_layer_there_is_no_database(tmp_path):
    store = LayerStore(tmp_path)
    assert store.layers("s1") == [] and store.check() == []
    with pytest.raises(UnknownLayerError):
        store.layer("x")
    assert not store.path.exists()


def test_newer_or_foreign_databases_are_refused(tmp_path):
    path = tmp_path / DATABASE_FILE
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(LibraryError, match="format 3; this Ocular reads format 2"):
        LayerStore(tmp_path).layers("s1")
    path.write_bytes(b"no database at all, but long enough to be looked at as if it were one")
    with pytest.raises(LibraryError, match="cannot be used"):
        LayerStore(tmp_path).layers("s1")


def test_a_full_disk_keeps_nothing(store):
    store.publish(new(), [box(0, 0, 1)])
    with store.database.connection() as connection:
        connection.execute("PRAGMA max_page_count = 40")
    with pytest.raises(DiskFullError):
        store.publish(new("too much"), [box(n, n, 1) for n in range(5000)])
    assert [layer.name for layer in store.layers("slide0000001")] == ["a layer"]
    with store.database.connection() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")


def test_threads_and_processes_share_a_store(store):
    store.publish(new("first"), [box(0, 0, 1)])
    child = os.fork()
    if child == 0:  # the child inherits the store and must open its own connection
        try:
            store.publish(new("child"), [box(0, 0, 1)])
        finally:
            os._exit(len(store.layers("slide0000001")))
    threads = [threading.Thread(target=lambda n=n: store.publish(new(f"t{n}"), [box(n, n, 1)])) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) >= 2
    names = {layer.name for layer in store.layers("slide0000001")}
    assert names == {"first", "child", *(f"t{n}" for n in range(6))}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("DELETE FROM feature_boxes WHERE id = 2", "Feature 2 has a wrong box"),
        ("UPDATE features SET base_x1 = 3 WHERE id = 1", "Feature 1 does not match its exact bounds"),
        ("UPDATE classes SET count = 9", "counts 9 features and has 3"),
        ("UPDATE features SET class_number = 5 WHERE id = 1", "points nowhere"),
    ],
)
def test_check_finds_damage(tmp_path, damage, fault):
    store = LayerStore(tmp_path)
    store.publish(new(), [box(n * 10, 0, 5) for n in range(3)])
    assert store.check() == []
    connection = sqlite3.connect(store.path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    assert any(fault in each for each in store.check())
