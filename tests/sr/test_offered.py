"""Users' upscalers stand beside the shipped ones, as soon as their files are there; wrong cards are named."""

import json

import pytest

from tests.sr.networks import tissue, write_model
from tests.versions import add_slide
from wsi_ml.errors import ModelUnavailableError
from wsi_ml.geometry import Size
from wsi_ml.slides.library import MODELS_FOLDER, Library
from wsi_ml.slides.tiles import REFRESH_SECONDS, OpenVersions
from wsi_ml.sr.offered import OfferedUpscalers
from wsi_ml.sr.upscaler import available_upscalers, find_upscaler, open_upscaler, read_card

TINY = {"channels": 8, "growth": 4, "blocks": 1}


@pytest.fixture
def models(tmp_path):
    return tmp_path / "library" / MODELS_FOLDER


def own(folder, name="own", **facts):
    return write_model(folder, name, "sr-joint", TINY, **facts)


def names(folder):
    return [card.name for card in available_upscalers([folder])]


def test_own_models_come_after_the_shipped_ones_and_a_shipped_name_wins(models):
    shipped = [card.name for card in available_upscalers()]
    assert names(models) == shipped, "a folder that is not there holds none"
    own(models, "b-own")
    own(models, "a-own")
    own(models, "sr-fast")
    assert names(models) == [*shipped, "a-own", "b-own"]
    assert find_upscaler("sr-fast", [models]).parent != models
    assert find_upscaler("a-own", [models]) == models / "a-own.json"
    made = open_upscaler("a-own", "cpu", [models])(tissue(8, 9))
    assert made.shape == (16, 18, 3)
    with pytest.raises(ModelUnavailableError, match="There is no upscaler 'a-own'; there are bicubic"):
        open_upscaler("a-own", "cpu")


def test_cards_of_predictors_and_cards_without_weights_are_no_upscalers(models):
    own(models)
    (models / "tells.json").write_text(json.dumps({"format": 1, "kind": "patch", "name": "tells"}))
    (models / "lone.json").write_text((models / "own.json").read_text().replace('"own', '"lone'))
    assert [name for name in names(models) if name not in [card.name for card in available_upscalers()]] == ["own"]
    with pytest.raises(ModelUnavailableError, match="no upscaler 'tells'"):
        find_upscaler("tells", [models])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "own.json has format 2; this Ocular reads format 1"),
        ({"kind": "dense"}, "kind 'dense' is no upscaler's"),
        ({"name": "Own"}, "small letters, digits and dashes"),
        ({"name": "auto"}, "'auto' is a word of addresses"),
        ({"name": "other"}, "calls itself “other”; rename it to other.json"),
        ({"scale": 4}, "scale is 4, and Ocular enlarges ×2"),
        ({"halo": 1000}, "halo is 1000, not 0 to 256"),
        ({"halo": 63}, "halo is no multiple"),
        ({"halo": 8.0}, "must be whole numbers"),
        ({"halo": "8"}, "own.json is damaged"),
        ({"multiple": 3}, "halo is no multiple of multiple"),
        ({"mpp_range": [0.6, 0.4]}, "mpp_range is no range"),
        ({"mpp_range": [0.6]}, "own.json is damaged"),
        ({"sha256": "00"}, "sha256 is not 64 hex digits"),
        ({"weights": "../own.safetensors"}, "not a file's plain name"),
        ({"config": []}, "config is not an object"),
        ({"colour": "red"}, "own.json is damaged"),
    ],
)
def test_a_wrong_card_is_left_out_and_refused_by_name(models, change, words):
    own(models)
    value = json.loads((models / "own.json").read_text()) | change
    (models / "own.json").write_text(json.dumps(value))
    assert "own" not in names(models) and "Own" not in names(models)
    with pytest.raises(ModelUnavailableError, match=words):
        read_card(models / "own.json")


def test_cards_are_read_again_only_when_a_file_changed(models):
    offered = OfferedUpscalers([models])
    before = offered()
    assert offered() is before and "own" not in [card.name for card in before]
    own(models)
    after = offered()
    assert [card.name for card in after] == [*(card.name for card in before), "own"]
    assert offered() is after
    (models / "own.safetensors").unlink()
    assert [card.name for card in offered()] == [card.name for card in before]


def test_a_damaged_shipped_card_leaves_bicubic_and_says_why_once(tmp_path):
    (tmp_path / "sr-fast.json").write_text("{")
    complaints = []
    offered = OfferedUpscalers([], shipped=tmp_path, complain=complaints.append)
    assert [card.name for card in offered()] == [card.name for card in offered()] == ["bicubic"]
    assert len(complaints) == 1 and "sr-fast.json cannot be read" in complaints[0]


def test_a_slide_offers_a_new_model_and_forgets_a_removed_one(tmp_path, models, monkeypatch):
    library = Library.create(tmp_path / "library")
    slide_id, version, _ = add_slide(library, "liver", Size(1100, 900))
    clock = [100.0]
    monkeypatch.setattr("wsi_ml.slides.tiles.time.monotonic", lambda: clock[0])
    versions = OpenVersions(library, OfferedUpscalers([models]))

    def sources():
        clock[0] += 2 * REFRESH_SECONDS
        return list(versions.get(slide_id, version).sources)

    before = sources()
    assert before[:3] == ["stored", "bicubic", "sr-fast"] and before[-1] == "auto"
    opened = versions.get(slide_id, version)
    card = own(models)
    own(models, "coarse", mpp_range=(0.9, 1.1))
    assert sources() == [*before[:-1], "own", "auto"], "a model for another µm/px is not offered"
    assert versions.get(slide_id, version) is not opened
    assert versions.get(slide_id, version).source(f"own@{card.sha256[:12]}").upscaler == card
    assert versions.get(slide_id, version).sources["auto"].upscaler.name == "sr-fast"
    (models / "own.json").unlink()
    assert sources() == before
