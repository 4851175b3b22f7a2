"""Jobs and models over HTTP, without workers: orders, refusals, lists, cancelling, who may write."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import shapely

from app.jobs_command import job_text
from tests.conftest import PROJECT_ROOT
from tests.versions import add_slide
from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.jobs import queue as queue_module
from wsi_ml.jobs.job import JobBox, Progress
from wsi_ml.layers.layer import NewLayer

MODEL = "tissue"


@pytest.fixture
def order(slide):
    return {"kind": "predict", "slide": slide[0], "model": MODEL}


def post(client, order, **headers):
    return client.post("/api/jobs", json=order, headers=headers)


def test_an_order_is_answered_with_the_job_and_its_address(client, state, slide, order):
    answer = post(client, {**order, "region": [100, 200, 900, 1000], "preview": True, "priority": 7})
    assert answer.status_code == 201
    job = answer.json
    assert answer.headers["Location"] == f"/api/jobs/{job['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert (job["slide"], job["version"], job["model"], job["kind"]) == (slide[0], slide[1], MODEL, "predict")
    assert (job["region"], job["preview"], job["priority"], job["lane"]) == ([100, 200, 900, 1000], True, 7, "quick")
    assert (job["state"], job["position"], job["tries"], job["layer"], job["reason"]) == ("queued", 1, 0, None, None)
    assert client.get(answer.headers["Location"]).json == job
    assert state.jobs.job(job["id"]).to_json() == job


def test_the_same_order_again_is_the_same_job(client, state, slide, order):
    first = post(client, order)
    again = post(client, {**order, "parameters": {}, "region": None, "preview": False})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json == first.json and again.headers["Location"] == first.headers["Location"]
    running = state.jobs.claim("slide", "w")
    assert post(client, order).json["state"] == "running"
    square = Feature(shapely.box(10, 10, 50, 50), "5b1c9d1e-0000-4000-8000-000000000001", "Tissue")
    layer = state.layers.publish(NewLayer(slide[0], slide[1], "tissue", "prediction"), [square])
    state.jobs.finish(running, layer.id)
    done = post(client, order)
    assert (done.status_code, done.json["state"], done.json["layer"]) == (200, "done", layer.id)
    state.layers.remove(layer.id)
    anew = post(client, order)
    assert (anew.status_code, anew.json["state"]) == (201, "queued")
    assert anew.json["id"] != first.json["id"]


def test_regions_are_rounded_outwards_and_clipped_and_equal_ones_are_one_job(client, order):
    first = post(client, {**order, "region": [-50, 10.4, 300.2, 99999]}).json
    assert first["region"] == [0, 10, 301, 1533]
    assert post(client, {**order, "region": [0, 10, 301, 1533]}).json["id"] == first["id"]


def test_a_region_of_the_whole_slide_is_the_whole_slide_but_its_preview_is_quick(client, order):
    whole = post(client, order).json
    assert post(client, {**order, "region": [0, 0, 2311, 1533]}).json["id"] == whole["id"]
    preview = post(client, {**order, "region": [0, 0, 2311, 1533], "preview": True}).json
    assert preview["id"] != whole["id"]
    assert (whole["lane"], preview["lane"], preview["region"]) == ("slide", "quick", [0, 0, 2311, 1533])


def test_parameters_that_say_the_default_are_the_default(client, order):
    first = post(client, order).json
    assert post(client, {**order, "parameters": {"tissue": "otsu", "overlap": 0}}).json["id"] == first["id"]
    other = post(client, {**order, "parameters": {"tissue": "all", "threshold": 0.25}}).json
    assert other["id"] != first["id"]
    assert other["parameters"] == {"threshold": 0.25, "tissue": "all"}


def card_of(sha256, threshold=0.5):
    return PredictorCard(
        name="own", kind="dense", classes=(PredictorClass("a"), PredictorClass("b")), channels=("a", "b"), mpp=0.5,
        mpp_range=(0.4, 0.6), side=256, halo=32, stride=1, sha256=sha256, background=("a",),
        postprocess={"threshold": threshold}, about={"weights": "own.safetensors", "activation": "softmax"},
    )  # fmt: skip


def put_model(library, card):
    folder = library.root / "models"
    folder.mkdir(exist_ok=True)
    (folder / "own.safetensors").touch()
    (folder / "own.json").write_text(json.dumps(card.to_json()))


def test_a_replaced_model_makes_another_job(client, library, order):
    """A layer's provenance names the weights that made it; the queue must not take an old job for the new model's."""
    order["model"] = "own"
    ids = set()
    for card in (card_of("a" * 64), card_of("b" * 64), card_of("b" * 64, threshold=0.75)):
        put_model(library, card)
        answer = post(client, order)
        assert answer.status_code == 201
        ids.add(answer.json["id"])
        assert post(client, order).json["id"] == answer.json["id"]
    assert len(ids) == 3


def test_models_are_listed_and_a_new_one_needs_no_restart(client, library):
    def names():
        return [model["name"] for model in client.get("/api/models").json["models"]]

    assert MODEL in names() and "own" not in names()
    put_model(library, card_of("c" * 64))
    answer = client.get("/api/models")
    own = next(model for model in answer.json["models"] if model["name"] == "own")
    assert (own["kind"], own["mpp_range"], own["sha256"]) == ("dense", [0.4, 0.6], "c" * 64)
    assert [each["name"] for each in own["classes"]] == ["a", "b"]
    assert client.get("/api/models", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "code", "words"),
    [
        ({"regoin": None}, 400, "bad_request", "no key “regoin”; there are kind, slide, model, region"),
        ({"kind": "train"}, 400, "bad_request", "“kind” is predict"),
        ({"kind": None}, 400, "bad_request", "“kind” is missing"),
        ({"slide": 7}, 400, "bad_request", "“slide” is missing or no text"),
        ({"model": "x" * 65}, 400, "bad_request", "“model” is missing or no text"),
        ({"slide": "nosuchslide0"}, 404, "unknown_slide", "no slide of this id"),
        ({"model": "nosuch"}, 404, "unknown_model", "no model 'nosuch'"),
        ({"model": "../../etc/passwd"}, 404, "unknown_model", "no model"),
        ({"region": [0, 0, 10]}, 400, "bad_request", "“region” is four numbers"),
        ({"region": [0, 0, 10, "10"]}, 400, "bad_request", "“region” is four numbers"),
        ({"region": [0, 0, 10, True]}, 400, "bad_request", "“region” is four numbers"),
        ({"region": [0, 0, 10, 1e300]}, 400, "bad_request", "“region” is four numbers"),
        ({"region": "0,0,10,10"}, 400, "bad_request", "“region” is four numbers"),
        ({"region": [10, 0, 10, 10]}, 400, "bad_request", "x0 < x1"),
        ({"region": [5000, 0, 6000, 10]}, 422, "not_predictable", "off the slide"),
        ({"parameters": [1]}, 400, "bad_request", "“parameters” is an object"),
        ({"parameters": {"treshold": 1}}, 400, "bad_request", "no parameter 'treshold'; there are threshold"),
        ({"parameters": {"threshold": 2}}, 400, "bad_request", "threshold must be a number from 0 to 1"),
        ({"parameters": {"threshold": [0.5]}}, 400, "bad_request", "“threshold” is no short number or word"),
        ({"parameters": {"tissue": "x" * 65}}, 400, "bad_request", "“tissue” is no short number or word"),
        ({"preview": 1}, 400, "bad_request", "“preview” is true or false"),
        ({"preview": True}, 400, "bad_request", "“preview” needs a “region”"),
        ({"priority": 101}, 400, "bad_request", "“priority” is a whole number from -100 to 100"),
        ({"priority": 1.5}, 400, "bad_request", "“priority” is a whole number"),
        ({"priority": True}, 400, "bad_request", "“priority” is a whole number"),
    ],
)
def test_a_wrong_order_is_refused_naming_the_key(client, state, order, change, status, code, words):
    answer = post(client, {**order, **change})
    assert (answer.status_code, answer.mimetype, answer.json["code"]) == (status, "application/problem+json", code)
    assert words in answer.json["detail"]
    assert state.jobs.jobs() == []


def test_a_slide_outside_the_models_range_is_refused_at_once(client, library, order):
    put_model(library, card_of("a" * 64))
    slide_id, _, _ = add_slide(library, "coarse", Size(1000, 800), stored_mpp=1.0)
    answer = post(client, {**order, "slide": slide_id, "model": "own"})
    assert (answer.status_code, answer.json["code"]) == (422, "not_predictable")
    assert "0.4 to 0.6" in answer.json["detail"]


def test_a_removed_slide_is_gone(client, library, slide, order):
    library.remove(slide[0])
    answer = post(client, order)
    assert (answer.status_code, answer.json["code"]) == (410, "removed")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"predict"', b'{"kind": NaN}', b'{"kind": Infinity}', b"\xff\xfe{\x00}\x00",
        b'\xef\xbb\xbf{"kind": "predict"}', b'{"kind": "\\ud800"}', b'{"kind": "predict", "kind": "predict"}',
        b'{"parameters": {"threshold": 0.1, "threshold": 0.2}}', b'{"a":' * 2000, b"[" * 30000, b'{"kind": \xff}',
        b'{"priority": ' + b"9" * 5000 + b"}", b"{'kind': 1}", b'{"kind": "predict"} x',
    ],
)  # fmt: skip
def test_a_body_that_is_no_strict_json_object_is_refused(client, state, body):
    answer = client.post("/api/jobs", data=body, content_type="application/json")
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert state.jobs.jobs() == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/xml"]
)
def test_another_media_type_is_refused(client, order, content_type):
    answer = client.post("/api/jobs", data=json.dumps(order), content_type=content_type)
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")


def test_a_packed_body_is_refused(client, order):
    answer = post(client, order, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")


def test_a_body_may_have_64_kib_and_not_one_byte_more(client, order):
    body = json.dumps(order).encode()
    fits = client.post("/api/jobs", data=body.ljust(64 << 10), content_type="application/json")
    large = client.post("/api/jobs", data=body.ljust((64 << 10) + 1), content_type="application/json")
    assert (fits.status_code, large.status_code, large.json["code"]) == (201, 413, "too_large")
    assert large.json["detail"] == "The body may have 64 KiB at most."


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Origin": ""},
        {"Origin": "http://localhost.evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    ],
)  # fmt: skip
def test_writes_of_other_sites_are_refused_whatever_they_write(client, state, order, headers):
    job = post(client, order).json
    for answer in (
        post(client, {**order, "region": [0, 0, 9, 9]}, **headers),
        client.delete(f"/api/jobs/{job['id']}", headers=headers),
        client.delete(f"/api/slides/{order['slide']}/layers/nosuchlayer0", headers=headers),
    ):
        assert (answer.status_code, answer.json["code"]) == (403, "foreign_origin")
    assert [each.state for each in state.jobs.jobs()] == ["queued"]
    assert client.get("/api/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Origin": "http://localhost"}, {"Origin": "https://localhost"}, {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
    ],
)  # fmt: skip
def test_our_own_pages_and_programs_may_write(client, order, headers):
    job = post(client, order, **headers)
    assert job.status_code == 201
    assert client.delete(job.headers["Location"], headers=headers).status_code == 200


def test_a_full_queue_says_when_to_come_back(client, order, monkeypatch):
    monkeypatch.setattr(queue_module, "MOST_QUEUED", 1)
    post(client, order)
    answer = post(client, {**order, "region": [0, 0, 9, 9]})
    assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, "queue_full", "30")


def test_a_full_disk_is_507_and_leaves_nothing(client, state, order):
    post(client, order)
    with state.jobs._connection() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    answers = [post(client, {**order, "region": [0, 0, 9, 9 + number]}) for number in range(200)]
    refused = [answer for answer in answers if answer.status_code == 507]
    assert refused and refused[0].json["code"] == "disk_full"
    assert {answer.status_code for answer in answers} == {201, 507}
    assert len(state.jobs.jobs()) == 1 + len(answers) - len(refused)
    assert state.jobs.check() == []


# -- looking and cancelling ----------------------------------------------------------------------------------------


def test_lists_are_newest_first_and_filtered(client, library, state, slide, order):
    other, _, _ = add_slide(library, "spleen", Size(900, 700), seed=5)
    first, second = post(client, order).json, post(client, {**order, "slide": other}).json
    third = post(client, {**order, "region": [0, 0, 9, 9]}).json
    client.delete(f"/api/jobs/{third['id']}")

    def ids(query=""):
        return [job["id"] for job in client.get(f"/api/jobs{query}").json["jobs"]]

    assert ids() == [third["id"], second["id"], first["id"]]
    assert ids(f"?slide={slide[0]}") == [third["id"], first["id"]]
    assert ids("?state=queued") == [second["id"], first["id"]]
    assert ids(f"?state=cancelled&slide={slide[0]}") == [third["id"]]
    assert ids("?slide=nosuchslide0") == []
    for query in ("?state=waiting", "?sldie=x", "?state=queued&state=done"):
        assert client.get(f"/api/jobs{query}").json["code"] == "bad_request"


def test_asking_again_costs_nothing_while_nothing_changes(client, state, order):
    job = post(client, order).json
    for path in ("/api/jobs", f"/api/jobs/{job['id']}"):
        answer = client.get(path)
        assert answer.headers["Cache-Control"] == "no-store"
        tag = {"If-None-Match": answer.headers["ETag"]}
        unchanged = client.get(path, headers=tag)
        assert (unchanged.status_code, unchanged.data, unchanged.headers["ETag"]) == (304, b"", answer.headers["ETag"])
        assert unchanged.headers["Cache-Control"] == "no-store"
    running = state.jobs.claim("slide", "w")
    changed = client.get("/api/jobs", headers=tag)
    assert (changed.status_code, changed.json["jobs"][0]["state"]) == (200, "running")
    state.jobs.beat(running, Progress(5, 9, "windows"))
    assert client.get(f"/api/jobs/{job['id']}").json["progress"] == {"done": 5, "total": 9, "unit": "windows"}


def test_a_job_is_cancelled_once(client, state, order):
    queued = post(client, order).json
    answer = client.delete(f"/api/jobs/{queued['id']}")
    assert (answer.status_code, answer.json["state"]) == (200, "cancelled")
    assert answer.headers["Cache-Control"] == "no-store"
    again = client.delete(f"/api/jobs/{queued['id']}")
    assert (again.status_code, again.json["code"]) == (409, "conflict")
    assert again.json["detail"] == "This job has ended already (cancelled); it cannot be cancelled."
    running = post(client, order).json
    claimed = state.jobs.claim("slide", "w")
    answer = client.delete(f"/api/jobs/{running['id']}")
    assert (answer.status_code, answer.json["state"], answer.json["cancelling"]) == (200, "running", True)
    state.jobs.stopped(claimed)
    assert client.get(f"/api/jobs/{running['id']}").json["state"] == "cancelled"


def test_an_unknown_job_is_404(client, order):
    for answer in (client.get("/api/jobs/nosuchjob000"), client.delete("/api/jobs/nosuchjob000")):
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_job")
    post(client, order)
    assert client.get("/api/jobs/nosuchjob000").status_code == 404


def test_metrics_and_readiness_count_jobs(client, order):
    post(client, order)
    assert client.get("/readyz").json["parts"]["jobs"] == {"queued": 1, "running": 0}
    assert 'ocular_jobs{state="queued"} 1' in client.get("/metrics").text


def test_a_damaged_queue_costs_jobs_and_not_the_viewing(client, library, slide, order):
    (library.root / "jobs.sqlite").write_bytes(b"not a database" * 1000)
    answer = post(client, order)
    assert (answer.status_code, answer.json["code"]) == (503, "library_unusable")
    assert client.get("/api/jobs").status_code == 503
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["parts"]["jobs"]) == (200, "library_unusable")
    assert client.get("/metrics").status_code == 200
    assert client.get(f"/api/slides/{slide[0]}").status_code == 200


def test_a_job_in_one_line(state, client, order):
    post(client, {**order, "region": [0, 0, 9, 9]})
    post(client, order)
    quick, whole = state.jobs.jobs()[::-1]
    assert quick.region == JobBox(0, 0, 9, 9)
    assert job_text(quick).split("  ", 1)[1].startswith("queued, place 1")
    assert job_text(quick).endswith(f"tissue on {order['slide']}, region 0,0,9,9")
    running = state.jobs.claim("slide", "w")
    state.jobs.beat(running, Progress(5, 9, "windows"))
    assert "running, 5 of 9 windows" in job_text(state.jobs.job(whole.id))
    state.jobs.fail(running, "No tissue.")
    assert job_text(state.jobs.job(whole.id)).endswith("whole slide: No tissue.")


def test_the_web_and_the_queue_import_no_torch():
    code = (
        "import sys, app, wsi_ml.jobs.queue, wsi_ml.jobs.supervisor, wsi_ml.jobs.order; print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
