"""From request to layer: whole, once, with its provenance; what cannot be predicted is refused before any work."""

import json
import os
import time
from importlib import metadata

import numpy as np
import pytest
import shapely

from tests.inference.fakes import (
    GLASS,
    BlurPredictor,
    add_model,
    add_picture,
    dense_card,
    file_bytes,
    one_pass,
    open_fake,
    spotted_picture,
)  # fmt: skip
from tests.versions import add_slide
from wsi_ml.errors import (
    BadRequestError,
    LeaseLostError,
    NotPredictableError,
    PredictionCancelledError,
    RemovedError,
    UnknownModelError,
    UnknownSlideError,
    UnknownVersionError,
)  # fmt: skip
from wsi_ml.geometry import Region, Size
from wsi_ml.inference import predicting, work
from wsi_ml.inference.predicting import PredictRequest, predict, prepare
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.layer import BaseBox
from wsi_ml.layers.store import LayerStore


@pytest.fixture
def card(library):
    return add_model(library.root)


@pytest.fixture
def opened():
    """An opener that keeps what it opened."""

    def opener(*arguments, **options):
        opener.predictors.append(open_fake(*arguments, **options))
        return opener.predictors[-1]

    opener.predictors = []
    return opener


def run(library, slide_id, opener=open_fake, **more):
    names = ("progress", "cancelled", "before_publish")
    options = {name: more.pop(name) for name in names if name in more}
    return predict(library.root, PredictRequest(slide_id, more.pop("model", "blur"), **more), opener=opener, **options)


def features_of(library, layer):
    batches = list(FeaturesFile(library.root / "layers" / f"{layer.id}.features").batches())
    return [geometry for _, batch in batches for geometry in batch.geometries]


def work_of(library):
    folder = library.root / work.WORK_FOLDER
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_layer_is_published_with_its_classes_counts_and_provenance(library, slide_id, card):
    layer = run(library, slide_id, parameters={"threshold": "0.25", "batch": 5}, name="First")
    store = LayerStore(library.root)
    assert store.layers(slide_id) == [layer] and store.check() == []
    assert (layer.name, layer.kind, layer.version) == ("First", "prediction", library.slide(slide_id).current)
    assert [(each.name, each.color) for each in layer.classes] == [("Dark", "#882255")]
    told = dict(layer.provenance)
    assert told.pop("seconds") > 0 and told.pop("started").startswith("20") and told.pop("windows") > 20
    assert told == {
        "model": "blur", "model_sha256": "ab" * 32, "kind": "dense", "parameters": {"batch": 5, "threshold": 0.25},
        "region": None, "slide_version": layer.version, "engine": "local", "numbers": "cpu", "batch": 5,
        "ocular": metadata.version("ocular-wsi"), "preview": False,
        "key": prepare(library.root, PredictRequest(slide_id, "blur", parameters={"threshold": 0.25, "batch": 5})).key,
    }  # fmt: skip
    assert work_of(library) == []


def test_the_features_are_those_of_the_map_of_one_pass(library, slide_id, card):
    layer = run(library, slide_id, parameters={"simplify_px": 0})
    stored = library.pyramid(slide_id).region(Region(0, 0, 1010, 770))
    pale, dark = one_pass(stored, card)
    union = shapely.union_all(features_of(library, layer))
    expected = (dark > pale).sum() * 4**2  # a map pixel is 4 × 4 base pixels
    assert layer.count >= 1 and union.area == pytest.approx(expected, rel=1e-3)
    assert sum(each.base_area for each in layer.classes) == pytest.approx(expected, rel=1e-3)


def test_the_same_prediction_again_is_the_same_layer_without_work(library, slide_id, card, opened):
    first = run(library, slide_id, opened)
    again = run(library, slide_id, opened, name="another name")
    assert again == first and len(opened.predictors) == 1
    assert LayerStore(library.root).layers(slide_id) == [first]


def test_other_parameters_regions_and_previews_are_other_layers(library, slide_id, card):
    box = BaseBox(600, 500, 1100, 900)
    requests = [
        {}, {"parameters": {"threshold": 0.3}}, {"region": box}, {"region": box, "preview": True}, {"preview": True},
        {"region": box, "parameters": {"tissue": "all"}},
    ]  # fmt: skip
    layers = [run(library, slide_id, **each) for each in requests]
    assert len({layer.id for layer in layers}) == len(requests)
    assert [layer.name for layer in layers[:4]] == ["blur", "blur", "blur", "blur (preview)"]
    assert layers[3].provenance["preview"] and layers[2].provenance["region"] == [600, 500, 1100, 900]


def test_a_region_holds_what_the_whole_slide_has_there(library, slide_id, card):
    box = BaseBox(600.4, 500, 1099.2, 900)
    whole = run(library, slide_id, parameters={"simplify_px": 0})
    part = run(library, slide_id, parameters={"simplify_px": 0, "tissue": "all"}, region=box)
    assert part.provenance["region"] == [600, 500, 1100, 900]
    union = shapely.union_all(features_of(library, part))
    cut = shapely.intersection(shapely.union_all(features_of(library, whole)), shapely.box(600, 500, 1100, 900))
    assert part.count and shapely.symmetric_difference(union, cut).area == 0


def test_a_region_of_the_whole_slide_is_the_whole_slide(library, slide_id, card):
    layer = run(library, slide_id)
    assert run(library, slide_id, region=BaseBox(-5, -5, 1e9, 1e9)) == layer


def test_progress_counts_windows_and_then_blocks(library, slide_id, card):
    told = []
    layer = run(library, slide_id, progress=lambda *step: told.append(step))
    windows = [step for step in told if step[2] == "windows"]
    total = layer.provenance["windows"]
    assert windows[0] == (0, total, "windows") and windows[-1] == (total, total, "windows")
    assert {step[2] for step in told[len(windows) :]} == {"blocks"} and told[-1][0] == told[-1][1]


def test_the_built_in_model_draws_the_tissue(library, slide_id):
    layer = predict(library.root, PredictRequest(slide_id, "tissue"))
    assert [each.name for each in layer.classes] == ["Tissue"] and layer.count >= 1
    stored = library.pyramid(slide_id).region(Region(0, 0, 1010, 770))
    stained = (np.abs(stored.astype(int) - GLASS).max(axis=2) > 30).sum() * 4
    assert layer.classes[0].base_area == pytest.approx(stained, rel=0.1)


def test_the_built_in_model_tells_the_tissue_of_a_drawn_slide(library, drawn, scene):
    slide_id = add_picture(library, "drawn", drawn, base_size=scene.size)
    layer = predict(library.root, PredictRequest(slide_id, "tissue"))
    told = shapely.union_all(features_of(library, layer))
    assert told.intersection(scene.tissue).area / told.union(scene.tissue).area > 0.9


# -- ends and new beginnings -------------------------------------------------------------------------------------------


def test_cancelled_work_publishes_nothing_and_goes_on_where_it_was(library, slide_id, card, opened):
    state = {"done": 0, "total": 0}

    def progress(done, total, unit):
        state.update(done=done, total=total)

    with pytest.raises(PredictionCancelledError):
        run(library, slide_id, opened, parameters={"batch": 2}, progress=progress, cancelled=lambda: state["done"] >= 8)
    assert LayerStore(library.root).layers(slide_id) == [] and len(work_of(library)) == 1
    layer = run(library, slide_id, opened, parameters={"batch": 2})
    assert sum(opened.predictors[1].calls) == state["total"] - 8
    assert work_of(library) == []
    other = add_picture(library, "again", spotted_picture(Size(1010, 770)))
    assert file_bytes(library.root, layer.id) == file_bytes(
        library.root, run(library, other, parameters={"batch": 2}).id
    )


def test_work_cancelled_while_drawing_is_not_computed_again(library, slide_id, card, opened):
    state = {"unit": ""}
    with pytest.raises(PredictionCancelledError):
        run(
            library,
            slide_id,
            opened,
            progress=lambda d, t, unit: state.update(unit=unit),
            cancelled=lambda: state["unit"] == "blocks",
        )
    assert LayerStore(library.root).layers(slide_id) == []
    layer = run(library, slide_id, opened)
    assert opened.predictors[1].calls == [] and layer.count >= 1


def test_a_worker_that_may_not_publish_does_not(library, slide_id, card, opened):
    def refuse():
        raise LeaseLostError("The job was given to another.")

    with pytest.raises(LeaseLostError):
        run(library, slide_id, opened, before_publish=refuse)
    assert LayerStore(library.root).layers(slide_id) == [] and len(work_of(library)) == 1
    run(library, slide_id, opened)
    assert opened.predictors[1].calls == [] and work_of(library) == []


def test_work_done_with_another_device_is_not_mixed_in(library, slide_id, card):
    class Other(BlurPredictor):
        numbers = "cuda bfloat16"

        def callers(self, batches):
            return 1

    done = []
    with pytest.raises(PredictionCancelledError):
        run(
            library,
            slide_id,
            parameters={"batch": 2},
            progress=lambda *step: done.append(step),
            cancelled=lambda: len(done) > 4,
        )
    others = []

    def opener(*_, **__):
        others.append(Other(card))
        return others[-1]

    layer = run(library, slide_id, opener, parameters={"batch": 2})
    assert sum(others[0].calls) == layer.provenance["windows"] and layer.provenance["numbers"] == "cuda bfloat16"


def test_who_waits_for_another_process_can_be_cancelled(library, slide_id, card):
    key = prepare(library.root, PredictRequest(slide_id, "blur")).key
    looks = []

    def cancelled():
        looks.append(time.monotonic())
        return len(looks) > 2

    with work.held(library.root / work.WORK_FOLDER, key), pytest.raises(PredictionCancelledError):
        run(library, slide_id, cancelled=cancelled)


def test_old_work_is_swept_and_fresh_or_held_work_is_kept(library, slide_id, card):
    folder = library.root / work.WORK_FOLDER
    for name, age_days in (("old", 30), ("fresh", 1), ("held", 30)):
        (folder / name).mkdir(parents=True)
        (folder / name / "windows.bin").touch()
        then = time.time() - age_days * 86400
        for path in (folder / name / "windows.bin", folder / name):
            os.utime(path, (then, then))
    with work.held(folder, "held"):
        run(library, slide_id)
        assert work_of(library) == ["fresh", "held", "held.lock"]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [0.25, 0.39, 0.63, 1.0])
def test_a_slide_outside_the_models_range_is_refused(library, card, mpp):
    slide_id, _, _ = add_slide(library, "coarse", Size(600, 500), stored_mpp=mpp)
    with pytest.raises(
        NotPredictableError, match=rf"blur is made for 0\.4 to 0\.62 µm/px and this slide is stored at {mpp:g}"
    ):
        run(library, slide_id)


@pytest.mark.parametrize("mpp", [0.4, 0.5021, 0.62])
def test_a_slide_inside_the_range_is_not(library, card, mpp):
    slide_id, _, _ = add_slide(library, "fine", Size(600, 500), stored_mpp=mpp)
    assert prepare(library.root, PredictRequest(slide_id, "blur")).key


def test_a_slide_or_region_without_tissue_is_refused_with_the_way_out(library, slide_id, card):
    blank = add_picture(library, "blank", np.full((600, 700, 3), GLASS, np.uint8))
    with pytest.raises(NotPredictableError, match="No tissue was found on this slide; tissue=all looks at every pixel"):
        run(library, blank)
    with pytest.raises(NotPredictableError, match="No tissue was found in this region"):
        run(library, slide_id, region=BaseBox(0, 0, 20, 20))
    assert run(library, blank, parameters={"tissue": "all"}).count == 0


@pytest.mark.parametrize("box", [(2020, 0, 2100, 50), (-50, 0, 0, 50), (0, 1540, 5, 1600)])
def test_a_region_off_the_slide_is_refused(library, slide_id, card, box):
    with pytest.raises(NotPredictableError, match="lies off the slide, which is 2020 × 1540 px at ×40"):
        run(library, slide_id, region=BaseBox(*box))


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 0, 5, 9), (float("nan"), 0, 5, 5), (0, 0, float("inf"), 5)])
def test_a_region_that_is_no_box_is_refused(library, slide_id, card, box):
    with pytest.raises(BadRequestError, match="x0,y0,x1,y1 with x0 < x1 and y0 < y1"):
        run(library, slide_id, region=BaseBox(*box))


def test_what_does_not_exist_is_refused_by_name(library, slide_id, card):
    with pytest.raises(UnknownModelError, match="no model 'blurr' that predicts layers; there are blur"):
        run(library, slide_id, model="blurr")
    with pytest.raises(BadRequestError, match="no parameter 'sharpness'; there are threshold"):
        run(library, slide_id, parameters={"sharpness": 1})
    with pytest.raises(BadRequestError, match=r"cannot overlap by 0\.01"):
        run(library, slide_id, parameters={"overlap": 0.01})
    with pytest.raises(UnknownSlideError):
        run(library, "nobodys1id23")
    with pytest.raises(UnknownVersionError):
        run(library, slide_id, version="0" * 16)
    library.remove(slide_id)
    with pytest.raises(RemovedError):
        run(library, slide_id)


def test_an_older_version_can_be_predicted(library, card):
    slide_id, old, _ = add_slide(library, "slide", Size(600, 500))
    add_slide(library, "slide", Size(640, 520), seed=1, slide_id=slide_id)
    layer = run(library, slide_id, version=old, parameters={"tissue": "all"})
    assert layer.version == old and layer.provenance["slide_version"] == old


def test_a_model_file_outside_the_library_is_opened_by_path_only(library, slide_id, card, tmp_path):
    path = tmp_path / "mine.json"
    own = dense_card(name="mine", about={"weights": "mine.safetensors", "activation": "softmax"})
    path.write_text(json.dumps(own.to_json()))
    with pytest.raises(UnknownModelError):
        run(library, slide_id, model=str(path))
    layer = run(library, slide_id, lambda *_, **__: BlurPredictor(own), model=path)
    assert layer.provenance["model"] == "mine" and layer.name == "mine"


def test_a_key_holds_everything_that_decides_the_features(library, slide_id, card, monkeypatch):
    def key(**more):
        return prepare(library.root, PredictRequest(slide_id, "blur", **more)).key

    assert key() == key(parameters={"tissue": "otsu"}) == key(name="x") and len(key()) == 32
    before = key()
    monkeypatch.setattr(predicting, "ENGINE_CODE", predicting.ENGINE_CODE + 1)
    assert key() != before
    monkeypatch.undo()
    add_model(library.root, dense_card(postprocess={"min_area_um2": 1.0}))
    assert key() != before
