"""Cards are read strictly, models are found by name, and nothing else can be opened by one."""

import json

import numpy as np
import pytest
import torch

from tests.inference.fakes import GLASS, STAIN, add_picture, dense_card, own_model
from wsi_ml.errors import ModelOutputError, ModelUnavailableError, UnknownModelError
from wsi_ml.inference.card import card_from_json, read_card
from wsi_ml.inference.predictor import Shared, SlideFitted, available_predictors, find_card, open_predictor
from wsi_ml.inference.tissue_predictor import tissue_card
from wsi_ml.sr.upscaler import available_upscalers


@pytest.fixture
def models(tmp_path):
    own_model(tmp_path / "models")
    return tmp_path / "models"


def test_a_card_is_the_same_after_a_round_trip(models):
    for card in (read_card(models / "own.json"), dense_card(about={"weights": "w", "activation": "softmax"})):
        assert card_from_json(json.loads(json.dumps(card.to_json()))) == card
    card = read_card(models / "own.json")
    assert (card.core, card.map_side, card.drawn, card.colors) == (64, 64, ("Nucleus",), {"Nucleus": "#117733"})
    assert card.about["architecture"] == "nuclei-unet" and "side" not in card.about


def test_what_shapes_a_prediction_shapes_the_digest(models):
    value = json.loads((models / "own.json").read_text())
    digest = card_from_json(value).digest
    for change in (
        {"sha256": "00"},
        {"side": 256},
        {"postprocess": {"seed_threshold": 0.4}},
        {"activation": "softmax"},
    ):
        assert card_from_json(value | change).digest != digest
    for change in ({"scores": [{"dice": 0.5}]}, {"licence": "MIT-0"}, {"mpp_range": [0.3, 0.7]}):
        assert card_from_json(value | change).digest == digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "own.json has format 2; this Ocular reads format 1"),
        ({"kind": "sr"}, "kind 'sr' is none of patch, dense"),
        ({"kind": "dense"}, "channels do not fit kind dense"),
        ({"channels": ["boundary", "interior"]}, "channels do not fit kind instance"),
        ({"classes": []}, "classes are missing"),
        ({"classes": [{"name": "A"}, {"name": "A"}]}, "named twice"),
        ({"classes": [{"name": "Nucleus", "color": "red"}]}, "colour is not #rrggbb"),
        ({"classes": "Nucleus"}, "own.json is damaged"),
        ({"background": ["Nucleus"]}, "background names unknown classes, or every one"),
        ({"background": ["Glass"]}, "background names unknown classes"),
        ({"mpp": 0.9}, "mpp lies outside mpp_range"),
        ({"mpp_range": [0.65, 0.35]}, "mpp lies outside mpp_range"),
        ({"mpp_range": [0.5]}, "own.json is damaged"),
        ({"halo": 96}, "leave no map"),
        ({"stride": 3}, "no multiple of stride"),
        ({"weights": "../own.safetensors"}, "not a file's plain name"),
        ({"weights": ""}, "not a file's plain name"),
        ({"activation": "relu"}, "activation is none of softmax, sigmoid"),
        ({"name": "../own"}, "letters, digits"),
        ({"name": "other"}, "calls itself “other”; rename it to other.json"),
    ],
)
def test_a_wrong_card_is_refused_by_name_and_left_out_of_the_list(models, change, words):
    path = models / "own.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelUnavailableError, match=words):
        read_card(path)
    assert "own" not in [card.name for card in available_predictors([models])]


def test_a_card_without_a_field_or_that_is_no_object_is_refused(models):
    path = models / "own.json"
    value = json.loads(path.read_text())
    del value["stride"]
    path.write_text(json.dumps(value))
    with pytest.raises(ModelUnavailableError, match=r"own\.json has no field 'stride'"):
        read_card(path)
    path.write_text("[1]")
    with pytest.raises(ModelUnavailableError, match="no JSON object"):
        find_card("own", [models])
    path.write_text("{")
    with pytest.raises(ModelUnavailableError, match=r"own\.json cannot be read"):
        open_predictor("own", folders=[models])


def test_models_are_listed_without_a_restart_and_only_with_their_weights(tmp_path):
    folder = tmp_path / "models"
    assert "own" not in [card.name for card in available_predictors([folder])]
    own_model(folder)
    names = [card.name for card in available_predictors([folder])]
    assert "own" in names and "tissue" in names and names == sorted(names)
    assert not {card.name for card in available_upscalers()} & set(names)
    (folder / "own.safetensors").unlink()
    assert "own" not in [card.name for card in available_predictors([folder])]


def test_a_users_card_cannot_take_the_built_in_name(tmp_path):
    own_model(tmp_path / "models", "tissue")
    assert find_card("tissue", [tmp_path / "models"]) == (tissue_card(), None)


@pytest.mark.parametrize("name", ["none", "", "../models/own", "own.json", "sr-fast", "o/wn", "own\n", "x" * 80])
def test_a_name_opens_a_model_of_the_list_and_nothing_else(models, name):
    with pytest.raises(UnknownModelError, match=r"there are .*own.*, tissue"):
        open_predictor(name, folders=[models])


def test_a_path_opens_a_card_anywhere(models):
    assert open_predictor(models / "own.json", device="cpu").card.name == "own"


def test_damaged_weights_and_a_missing_gpu_are_named(models):
    if not torch.cuda.is_available():
        with pytest.raises(ModelUnavailableError, match="no GPU"):
            open_predictor("own", device="cuda", folders=[models])
    (models / "own.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelUnavailableError, match=r"own\.safetensors are damaged"):
        open_predictor("own", folders=[models])


def windows(count, side=192, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_a_network_gives_probabilities_times_255(models):
    predictor = open_predictor("own", device="cpu", folders=[models])
    assert isinstance(predictor, Shared) and predictor.numbers.startswith("cpu ")
    given = windows(3)
    maps = predictor(given)
    assert maps.shape == (3, 2, 64, 64) and maps.dtype == np.uint8 and maps.flags.c_contiguous
    assert np.array_equal(maps, predictor(given)) and maps.std() > 10
    with torch.inference_mode():
        logits = predictor.model(torch.from_numpy(given).permute(0, 3, 1, 2).float() / 255)
    exact = (logits.sigmoid() * 255).round().numpy()
    assert np.abs(maps.astype(int) - exact).max() <= 12  # bf16
    assert np.abs(maps.astype(int) - exact).mean() < 1


def test_softmax_channels_sum_to_one(tmp_path):
    own_model(tmp_path, activation="softmax")
    maps = open_predictor("own", device="cpu", folders=[tmp_path])(windows(2))
    assert np.abs(maps.sum(axis=1, dtype=int) - 255).max() <= 1


def test_callers_share_the_cores(models):
    predictor = open_predictor("own", device="cpu", threads=4, folders=[models])
    assert [predictor.callers(count) for count in (100, 4, 3, 1, 0)] == [4, 4, 3, 1, 1]


def test_output_that_does_not_fit_the_card_or_is_no_number_is_refused(tmp_path):
    own_model(tmp_path, halo=56)
    with pytest.raises(ModelOutputError, match="its card and its network do not fit"):
        open_predictor("own", device="cpu", folders=[tmp_path])(windows(1))
    own_model(tmp_path)
    predictor = open_predictor("own", device="cpu", folders=[tmp_path])
    with torch.no_grad():
        predictor.model.last.bias.fill_(float("nan"))
    with pytest.raises(ModelOutputError, match="own gave NaN or infinite values"):
        predictor(windows(1))


def test_the_built_in_predictor_tells_tissue_from_glass(library):
    picture = np.empty((1200, 1400, 3), np.uint8)
    picture[:] = GLASS
    picture[300:900, 400:1000] = STAIN
    pyramid = library.pyramid(add_picture(library, "slide", picture))
    predictor = open_predictor("tissue")
    assert isinstance(predictor, SlideFitted) and isinstance(predictor, Shared)
    fitted = predictor.for_slide(pyramid)
    window = np.pad(picture, ((16, 0), (16, 0), (0, 0)), mode="edge")[:1056, :1056]
    glass, tissue = fitted(window[None])[0]
    assert glass.shape == (128, 128) and (glass.astype(int) + tissue == 255).all()
    assert (tissue[40:110, 52:122] == 255).all() and (tissue[:36] < 60).all() and (tissue[:, :48] < 60).all()
