import gzip
import json
from types import SimpleNamespace

import pytest
from flask import Flask

from app import errors, layers
from tests.formats.outlines import collection, feature, square
from tests.versions import add_slide
from wsi_ml.geometry import Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(client, address of the slide, layer): 900 squares of two classes, side 1 to 900 thousandths, on a diagonal."""
    root = tmp_path_factory.mktemp("library")
    library = Library.create(root)
    slide_id, _, _ = add_slide(library, "one", Size(1000, 1000))
    add_slide(library, "two", Size(600, 600), seed=1)
    path = root / "squares.geojson"
    squares = [
        feature([square(n, n, (n + 1) / 1000)], properties={"classification": f"<{n % 2}>", "measurements": _score(n)})
        for n in range(900)
    ]
    path.write_bytes(collection(*squares))
    layer, _ = import_layer(root, slide_id, path)
    app = Flask("test")
    app.extensions["ocular"] = SimpleNamespace(library=library, layers=LayerStore(library.root))
    app.register_blueprint(layers.bp)
    errors.register(app)
    yield app.test_client(), f"/api/slides/{slide_id}/layers", layer
    assert LayerStore(root).check() == []


def _score(n):
    return {"score": n / 1000} if n else {}


def test_list_and_one_layer(site):
    client, address, layer = site
    listed = client.get(address).json["layers"]
    assert [each["id"] for each in listed] == [layer.id]
    one = client.get(f"{address}/{layer.id}").json
    assert one == listed[0]
    assert [(each["name"], each["color"], each["count"]) for each in one["classes"]] == [
        ("<0>", "#0072b2", 450),
        ("<1>", "#e69f00", 450),
    ]
    assert sum(each["area_um2"] for each in one["classes"]) == pytest.approx(
        sum(((n + 1) / 1000) ** 2 for n in range(900)) * 0.0625, rel=1e-9
    )


def test_features_in_a_box(site):
    client, address, layer = site
    answer = client.get(f"{address}/{layer.id}/features?bbox=100,100,102,102.5")
    assert answer.mimetype == "application/geo+json"
    found = answer.json
    assert (found["type"], found["total"], found["truncated"]) == ("FeatureCollection", 3, False)
    assert [each["geometry"]["coordinates"] for each in found["features"]] == [
        [square(n, n, (n + 1) / 1000)] for n in (102, 101, 100)
    ]
    first = found["features"][0]
    assert first["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "<0>", "color": [0, 114, 178]},
        "measurements": {"score": 0.102},
    }


def test_limit_class_and_score(site):
    client, address, layer = site
    query = f"{address}/{layer.id}/features"
    found = client.get(f"{query}?limit=5").json
    assert (len(found["features"]), found["total"], found["truncated"]) == (5, 900, True)
    assert client.get(f"{query}?class=%3C1%3E").json["total"] == 450
    assert client.get(f"{query}?class=%3C1%3E&class=%3C0%3E").json["total"] == 900
    assert client.get(f"{query}?class=none").json == {
        "type": "FeatureCollection",
        "total": 0,
        "truncated": False,
        "features": [],
    }
    assert client.get(f"{query}?min_score=0.89&limit=50000").json["total"] == 11  # ten, and the one without a score
    assert client.get(f"{query}?bbox=0,0,5,5&min_score=0.004&class=%3C0%3E").json["total"] == 2


@pytest.mark.parametrize(
    "query",
    [
        "bbox=1,2,3",
        "bbox=1,2,3,4,5",
        "bbox=a,b,c,d",
        "bbox=nan,0,1,1",
        "bbox=0,0,inf,1",
        "bbox=0,0,1e9,1",
        "bbox=5,0,1,1",
        "bbox=0,0,1,٣",
        "bbox= 0,0,1,1",
        "bbox=",
        "bbox=0,0,1,1&bbox=0,0,2,2",
        "limit=0",
        "limit=-1",
        "limit=50001",
        "limit=1.5",
        "limit=x",
        "limit=",
        "limit=²",
        "min_score=nan",
        "min_score=1.1",
        "min_score=-0.1",
        "min_score=",
        "colour=red",
    ],
)
def test_bad_parameters_are_problems(site, query):
    client, address, layer = site
    answer = client.get(f"{address}/{layer.id}/features?{query}")
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert answer.json["code"] == "bad_request" and query.split("=")[0] in answer.json["detail"]


def test_unknown_slides_and_layers(site):
    client, address, layer = site
    foreign = next(each.id for each in _library(client).slides() if each.name == "two")
    for path, code in (
        ("/api/slides/nobody/layers", "unknown_slide"),
        (f"/api/slides/nobody/layers/{layer.id}/features", "unknown_slide"),
        (f"{address}/nothing", "unknown_layer"),
        (f"{address}/nothing/features", "unknown_layer"),
        (f"/api/slides/{foreign}/layers/{layer.id}/features", "unknown_layer"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.json["code"]) == (404, code)


def _library(client):
    return client.application.extensions["ocular"].library


def test_etag_gzip_and_head(site):
    client, address, layer = site
    path = f"{address}/{layer.id}/features"
    plain = client.get(path)
    assert "Content-Encoding" not in plain.headers and plain.headers["Vary"] == "Accept-Encoding"
    assert "immutable" in plain.headers["Cache-Control"]
    packed = client.get(path, headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.data)) == plain.json
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert (
        client.get(f"{path}?bbox=1,1,2,2", headers={"Accept-Encoding": "gzip"}).json["total"] == 2
    )  # too small to pack
    for answer, accepted in ((plain, "identity"), (packed, "gzip")):
        headers = {"If-None-Match": answer.headers["ETag"], "Accept-Encoding": accepted}
        again = client.get(path, headers=headers)
        assert (again.status_code, again.data) == (304, b"")
        assert client.get(f"{path}?limit=7", headers=headers).status_code == 200
    head = client.head(path)
    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", plain.headers["ETag"])
    assert client.post(path).status_code == 405
