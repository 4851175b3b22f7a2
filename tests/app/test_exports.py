import json
from types import SimpleNamespace

import pytest
from flask import Flask

from app import errors, exports, openapi
from tests.formats.outlines import collection, feature, read, square
from tests.formats.qupath_rules import faults_of
from tests.versions import add_slide
from wsi_ml.formats.writing import WRITERS
from wsi_ml.geometry import Size
from wsi_ml.layers.importing import import_layer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(client, address of the layer's export): 3000 squares of two classes, two thirds of them scored, one holed."""
    root = tmp_path_factory.mktemp("library")
    library = Library.create(root)
    slide_id, _, _ = add_slide(library, "one", Size(4000, 4000))
    path = root / "sq é;\\nuares.geojson"
    squares = [
        feature(
            [square(n, n, 1)] if n else [square(0, 0, 9), square(1, 1, 3)],
            properties={"classification": f"c{n % 2}", "measurements": {"score": n % 3 / 2} if n % 3 else {}},
        )
        for n in range(3000)
    ]
    path.write_bytes(collection(*squares))
    layer, _ = import_layer(root, slide_id, path)
    app = Flask("test")
    app.extensions["ocular"] = SimpleNamespace(library=library, layers=LayerStore(library.root))
    app.register_blueprint(exports.bp)
    errors.register(app)
    yield app.test_client(), f"/api/slides/{slide_id}/layers/{layer.id}/export"


def test_export_is_a_file_that_never_changes(site):
    client, address = site
    answer = client.get(address)
    assert (answer.status_code, answer.mimetype) == (200, "application/geo+json")
    assert faults_of(answer.data) == [] and len(answer.json["features"]) == 3000
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    disposition = answer.headers["Content-Disposition"]
    assert disposition == "attachment; filename=one-sq_e_nuares.geojson; filename*=UTF-8''one-sq_%C3%A9_nuares.geojson"
    again = client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get(f"{address}?plane=stored").headers["ETag"] != answer.headers["ETag"]
    assert client.get(f"{address}?plane=base&format=geojson").headers["ETag"] == answer.headers["ETag"]
    assert client.head(address).status_code == 200


@pytest.mark.parametrize("format_", [name for name in WRITERS if name != "geoparquet"])
def test_formats_and_filters(site, format_):
    client, address = site
    answer = client.get(f"{address}?format={format_}&class=c1&min_score=0.6&plane=stored")
    assert answer.mimetype == WRITERS[format_].media_type
    found, _ = read(answer.data)
    wanted = [n for n in range(3000) if n % 2 == 1 and (n % 3 == 0 or n % 3 == 2)]
    assert len(found) == len(wanted)
    assert sorted(each.geometry.bounds[0] for each in found) == [n / 2 for n in wanted]
    assert answer.headers["Content-Disposition"].endswith(f"_nuares{WRITERS[format_].suffix}")


def test_the_answer_is_streamed(site):
    client, address = site
    answer = client.get(f"{address}?format=asap", buffered=False)
    chunks = list(answer.response)
    assert len(chunks) > 3 and answer.content_length is None
    assert len(read(b"".join(chunks))[0]) == 3000


def test_the_report_says_what_the_file_would_not_keep(site):
    client, address = site
    answer = client.get(f"{address}/report?format=coco&class=c0")
    assert (answer.status_code, answer.headers["Cache-Control"][:7]) == (200, "private")
    assert (answer.json["read"], answer.json["kept"], answer.json["lossless"]) == (1500, 1500, False)
    assert [(each["what"][:4], each["count"]) for each in answer.json["losses"]] == [("hole", 1)]
    assert client.get(f"{address}/report").json["lossless"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("format=shp", "There is no format “shp”"),
        ("format=", "There is no format “”"),
        ("plane=moon", "There is no plane “moon”"),
        ("class=c3", "The layer has no class “c3”"),
        ("min_score=2", "“min_score” is a number from 0 to 1"),
        ("min_score=NaN", "“min_score” is a number from 0 to 1"),
        ("format=asap&format=coco", "“format” is given 2 times"),
        ("page=1", "There is no parameter “page”"),
    ],
)
def test_bad_queries(site, query, words):
    client, address = site
    for end in ("", "/report"):
        answer = client.get(f"{address}{end}?{query}")
        assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
        assert words in answer.json["detail"]


def test_unknown_layers_and_slides(site):
    client, address = site
    assert client.get(address.replace("/layers/", "/layers/x")).status_code == 404
    assert client.get("/api/slides/nobody12/layers/x/export").json["code"] == "unknown_slide"


def test_missing_pyarrow_is_a_request_that_cannot_be_met(site, monkeypatch):
    client, address = site
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    answer = client.get(f"{address}?format=geoparquet")
    assert answer.status_code == 400 and "ocular-wsi[gis]" in answer.json["detail"]


def test_described_formats_are_those_there_are():
    path = openapi.PATHS["/api/slides/{slide_id}/layers/{layer_id}/export"]
    described = {each["name"]: each["schema"] for each in path["get"]["parameters"]}
    assert described["format"] == {"enum": list(WRITERS)} and set(described) >= {"plane", "class", "min_score"}
    assert json.dumps(path)
