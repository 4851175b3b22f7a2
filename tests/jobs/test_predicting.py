"""A prediction as a job: its previews go when the whole slide is there, its model stays warm."""

from __future__ import annotations

import json

import pytest
import shapely

from tests.versions import add_slide
from wsi_ml.errors import UnknownModelError
from wsi_ml.formats.feature import Feature
from wsi_ml.geometry import Size
from wsi_ml.jobs import predicting
from wsi_ml.jobs.order import order
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.layer import NewLayer
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library

SQUARE = Feature(shapely.box(10, 10, 50, 50), "5b1c9d1e-0000-4000-8000-000000000001", "Nucleus")


class Context:
    """What a runner gets, with no queue behind it."""

    device, threads = "cpu", 1

    def __init__(self):
        self.seen, self.published = [], 0

    def progress(self, done, total, unit):
        self.seen.append((done, total, unit))

    def cancelled(self):
        return False

    def before_publish(self):
        self.published += 1


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "library")


def test_previews_of_the_same_slide_model_and_parameters_go_and_nothing_else(library):
    store = LayerStore(library.root)

    def publish(slide="slide0001", version="v1", kind="prediction", model="m", preview=True, **parameters):
        provenance = {"model": model, "parameters": parameters, "preview": preview}
        return store.publish(NewLayer(slide, version, "layer", kind, provenance), [SQUARE])

    kept = [
        publish(model="other"), publish(threshold=0.5), publish(preview=False), publish(kind="annotation"),
        publish(version="v0"), publish(slide="slide0002"),
        store.publish(NewLayer("slide0001", "v1", "truth", "truth"), [SQUARE]),
    ]  # fmt: skip
    gone = [publish(), publish()]
    whole = publish(preview=False)
    assert predicting.remove_previews(store, whole) == [layer.id for layer in gone]
    assert store.layer_ids() == {layer.id for layer in [*kept, whole]}


class FakePredictor:
    """A predictor that was opened, and how."""

    def __init__(self, *how):
        self.how = how


def test_a_model_stays_loaded_until_another_is_wanted_or_it_is_replaced(library, monkeypatch):
    from tests.app.test_jobs_api import card_of

    folder = library.root / "models"
    folder.mkdir()
    monkeypatch.setattr(predicting, "open_predictor", lambda *how: FakePredictor(*how))
    warm = predicting.WarmPredictor()

    def put(card):
        (folder / "own.json").write_text(json.dumps(card.to_json()))

    put(card_of("a" * 64))
    first = warm("own", "cpu", 2, [folder])
    assert first.how == ("own", "cpu", 2, (folder,))
    assert warm("own", "cpu", 2, [folder]) is first
    assert warm("own", "cpu", 1, [folder]) is not first
    second = warm("own", "cpu", 2, [folder])
    put(card_of("b" * 64))
    assert warm("own", "cpu", 2, [folder]) is not second
    assert warm("tissue", "cpu", 2, [folder]).how[0] == "tissue"
    with pytest.raises(UnknownModelError):
        warm("nosuch", "cpu", 2, [folder])


def test_a_job_becomes_a_layer_that_tells_where_it_came_from(library):
    slide_id, version, _ = add_slide(library, "liver", Size(2400, 1600))
    queue, context = JobQueue(library.root), Context()
    asked = {"kind": "predict", "slide": slide_id, "model": "tissue", "parameters": {"tissue": "all"}}

    def run(lane, **more):
        job, _ = queue.submit(order(library.root, asked | more))
        claimed = queue.claim(lane, "w")
        assert claimed.id == job.id
        layer_id = predicting.run(library.root, claimed, context)
        queue.finish(claimed, layer_id)
        return LayerStore(library.root).layer(layer_id)

    preview = run("quick", region=[100, 100, 1100, 900], preview=True)
    assert preview.provenance["preview"] is True and preview.provenance["region"] == [100, 100, 1100, 900]
    assert context.published == 1 and context.seen[-1][0] == context.seen[-1][1]
    whole = run("slide")
    assert (whole.slide_id, whole.version, whole.kind) == (slide_id, version, "prediction")
    assert whole.provenance["model"] == "tissue" and whole.provenance["parameters"] == {"tissue": "all"}
    assert LayerStore(library.root).layer_ids() == {whole.id}
    assert queue.check() == []
