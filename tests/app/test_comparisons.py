"""Truth against prediction over HTTP and by the command line: the same numbers, strict parameters."""

from __future__ import annotations

import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import shapely

from app.cli import main
from tests.versions import add_slide
from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.layers import comparing
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.features_writer import FeaturesWriter
from wsi_ml.layers.layer import NewLayer
from wsi_ml.slides.library import new_slide_id


def truths() -> list[Feature]:
    boxes = [shapely.box(100 * at, 100, 100 * at + 40, 140) for at in range(5)]
    return [Feature(box, f"00000000-0000-4000-8000-{at:012d}", "nucleus") for at, box in enumerate(boxes)]


def predictions() -> FeatureBatch:
    """Three of the five truths, one of them half missed, and one more; scores 0.9, 0.6, 0.5, 0.2."""
    boxes = [(0, 100, 40, 140), (100, 100, 130, 140), (200, 100, 220, 140), (700, 700, 720, 720)]
    return FeatureBatch(
        np.array([shapely.box(*box) for box in boxes], object),
        np.zeros(4, np.uint16),
        np.array([0.9, 0.6, 0.5, 0.2], np.float32),
    )


@pytest.fixture
def site(client, state, library, slide):
    """(address, truth id, prediction id)."""
    slide_id, version, _ = slide
    truth = state.layers.publish(NewLayer(slide_id, version, "truth", "truth"), truths())
    staged = library.root / "staged.features"
    with FeaturesWriter(staged, ["nucleus"], library.card(slide_id).base_size) as writer:
        writer.add(predictions())
        facts = writer.finish()
    new = NewLayer(slide_id, version, "nuclei", "prediction")
    prediction = state.layers.publish_file(new, staged, facts, {"nucleus": None}, None)
    return f"/api/slides/{slide_id}/compare", truth.id, prediction.id


def test_figures_of_the_slide(client, site, library):
    address, truth, prediction = site
    found = client.get(f"{address}?truth={truth}&prediction={prediction}").json
    overall = found["overall"]
    assert (overall["tp"], overall["fp"], overall["fn"]) == (2, 2, 3)
    assert overall["sq"] == pytest.approx((1 + 0.75) / 2)
    assert overall["pq"] == pytest.approx(1.75 / (2 + 1 + 1.5))
    assert overall["dice"] == pytest.approx(2 * (1600 + 1200 + 800) / (8000 + 1600 + 1200 + 800 + 400))
    square = library.card(address.split("/")[3]).base_mpp ** 2
    assert overall["truth_area_um2"] == pytest.approx(8000 * square)
    assert (found["mode"], found["agreement_with_a_model"]) == ("match", False)
    assert found["classes"]["nucleus"]["tp"] == 2


def test_threshold_and_box(client, site):
    address, truth, prediction = site
    layers = f"truth={truth}&prediction={prediction}"
    sure = client.get(f"{address}?{layers}&min_score=0.7").json["overall"]
    assert (sure["tp"], sure["fp"], sure["fn"]) == (1, 0, 4)
    left = client.get(f"{address}?{layers}&bbox=0,0,150,1000").json["overall"]
    assert (left["tp"], left["fp"], left["fn"]) == (2, 0, 0)
    assert left["truth_area_um2"] < client.get(f"{address}?{layers}").json["overall"]["truth_area_um2"]


def test_the_other_way_round_is_agreement_with_a_model(client, site):
    address, truth, prediction = site
    assert client.get(f"{address}?truth={prediction}&prediction={truth}").json["agreement_with_a_model"] is True


def test_pairs_for_the_browser(client, site):
    address, truth, prediction = site
    body = client.get(f"{address}/pairs?truth={truth}&prediction={prediction}").data
    assert body[:4] == b"OCP1"
    (count,) = struct.unpack_from("<I", body, 4)
    assert np.frombuffer(body, "<u4", count, 8).tolist() == [0, 1, 2]
    assert np.frombuffer(body, "<u4", count, 8 + 4 * count).tolist() == [0, 1, 2]
    assert np.frombuffer(body, "<f4", count, 8 + 8 * count).tolist() == [1.0, 0.75, 0.5]


def test_curve_and_errors(client, site):
    address, truth, prediction = site
    layers = f"truth={truth}&prediction={prediction}"
    curve = client.get(f"{address}/curve?{layers}").json
    assert len(curve["thresholds"]) == 101
    assert curve["overall"]["recall"][60] == pytest.approx(2 / 5)
    assert curve["overall"]["recall"][61] == pytest.approx(1 / 5)
    assert curve["overall"]["precision"][100] is None
    assert curve["overall"]["average_precision"] == pytest.approx(2 / 5)
    errors = client.get(f"{address}/errors?{layers}&order=score&limit=3").json
    assert errors["total"] == 5
    assert [(each["kind"], each["number"], each["score"]) for each in errors["errors"]] == [
        ("fp", 2, 0.5),
        ("fp", 3, 0.2),
        ("fn", 2, None),
    ]
    assert errors["errors"][1]["box"] == [700, 700, 720, 720]


def test_unchanged_answers_are_not_sent_again(client, site):
    address, truth, prediction = site
    url = f"{address}?truth={truth}&prediction={prediction}"
    first = client.get(url)
    again = client.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(f"{url}&min_score=0.3", headers={"If-None-Match": first.headers["ETag"]})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("truth={t}", 400, "truth=…&prediction=…"),
        ("truth={t}&prediction=nothing", 404, "layer"),
        ("truth={t}&prediction={p}&classes=some", 400, "classes"),
        ("truth={t}&prediction={p}&iou=2", 400, "iou"),
        ("truth={t}&prediction={p}&bbox=1,2,3", 400, "bbox"),
        ("truth={t}&prediction={p}&score=1", 400, "score"),
    ],
)
def test_bad_questions_are_named(client, site, query, status, word):
    address, truth, prediction = site
    answer = client.get(f"{address}?{query.format(t=truth, p=prediction)}")
    assert answer.status_code == status
    assert word in answer.json["detail"]


def test_layers_of_another_slide_are_unknown_here(client, site, library):
    _, truth, prediction = site
    other, _, _ = add_slide(library, "other", Size(600, 600), seed=3)
    assert client.get(f"/api/slides/{other}/compare?truth={truth}&prediction={prediction}").status_code == 404
    unknown = client.get(f"/api/slides/{new_slide_id()}/compare?truth={truth}&prediction={prediction}")
    assert unknown.json["code"] == "unknown_slide"


def test_kept_numbers_are_used_again_and_damage_does_no_harm(client, site, library, state):
    address, truth, prediction = site
    url = f"{address}?truth={truth}&prediction={prediction}&min_score=0.4"
    first = client.get(url).json
    (kept,) = (library.root / "comparisons").glob("*.npz")
    for damage in (kept.read_bytes(), b"", b"no archive", kept.read_bytes()[:200]):
        kept.write_bytes(damage)
        state.comparisons.of.cache_clear()
        assert client.get(url).json == first


def test_requests_at_once_measure_once(client, app, site, monkeypatch):
    address, truth, prediction = site
    calls = []
    measured = comparing.measure

    def measure(*arguments):
        calls.append(1)
        time.sleep(0.2)
        return measured(*arguments)

    monkeypatch.setattr(comparing, "measure", measure)
    urls = [f"{address}{part}?truth={truth}&prediction={prediction}" for part in ("", "/pairs", "/curve", "/errors")]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda url: app.test_client().get(url), urls))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(calls) == 1


def test_command_line_says_the_same(client, site, library, capsys):
    address, truth, prediction = site
    served = client.get(f"{address}?truth={truth}&prediction={prediction}&min_score=0.55").json
    command = ["compare", "liver", "--library", str(library.root), "--truth", truth, "--prediction", prediction]
    assert main([*command, "--min-score", "0.55", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {key: printed[key] for key in served} == served
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "against the truth layer; score ≥ 0.00, IoU > 0.50, matched within classes" in text
    assert "AJI" in text
    assert main([*command, "--iou", "1.5"]) == 1
    assert "--iou is a number from 0 to 1" in capsys.readouterr().err
