"""`ocular predict` and the models it can take: a table, one JSON object, a sentence for each slide that fails."""

import json

import numpy as np
import pytest

from app.cli import main
from tests.inference.fakes import GLASS, add_picture, own_model, spotted_picture
from wsi_ml.geometry import Size
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library


@pytest.fixture
def library(tmp_path):
    library = Library.create(tmp_path / "library")
    add_picture(library, "spots", spotted_picture(Size(900, 700)))
    add_picture(library, "blank", np.full((500, 600, 3), GLASS, np.uint8))
    return library


@pytest.fixture
def run(library, capsys):
    def command(*arguments):
        code = main([*map(str, arguments), "--library", str(library.root)])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if "--json" in arguments else captured.out, captured.err

    return command


def test_a_layer_is_made_and_listed_as_a_table(run, library):
    code, text, progress = run("predict", "spots", "--model", "tissue", "--name", "Areas")
    layer = LayerStore(library.root).layers(library.slide_by_name("spots").id)[0]
    assert (code, layer.name) == (0, "Areas")
    head, row = text.splitlines()
    assert head.split() == ["slide", "name", "layer", "class", "features", "area", "mm²"]
    area = layer.classes[0].base_area * 0.25**2 / 1e6
    assert row.split() == [layer.slide_id, "spots", layer.id, "Tissue", str(layer.count), f"{area:.3f}"]
    assert "spots: computing" in progress and "spots: drawing" in progress


def test_every_slide_is_tried_and_each_failure_has_its_sentence(run, library):
    code, facts, errors = run("predict", "blank", "spots", "--model", "tissue", "--json")
    blank, spots = facts["predictions"]
    assert code == 3 and "ocular: blank: No tissue was found on this slide; tissue=all" in errors
    assert (blank["name"], blank["layer"], blank["error"]["code"]) == ("blank", None, "not_predictable")
    assert spots["error"] is None and spots["layer"]["count"] >= 1 and spots["layer"]["kind"] == "prediction"
    assert spots["layer"]["provenance"]["engine"] == "local"
    code, text, _ = run("predict", "blank", "--model", "tissue")
    assert code == 3 and text.splitlines()[1].split()[1:] == ["blank", "–", "not_predictable", "–", "–"]


def test_region_and_parameters_come_from_the_command_line(run):
    arguments = (
        "--model",
        "tissue",
        "--json",
        "--region",
        "0,0,1200,1000",
        "--set",
        "tissue=all",
        "--set",
        "threshold=0.7",
    )
    code, facts, _ = run("predict", "spots", *arguments)
    provenance = facts["predictions"][0]["layer"]["provenance"]
    assert code == 0 and provenance["region"] == [0, 0, 1200, 1000]
    assert provenance["parameters"] == {"tissue": "all", "threshold": 0.7}
    again = run("predict", "spots", *arguments)[1]
    assert again["predictions"][0]["layer"]["id"] == facts["predictions"][0]["layer"]["id"]


@pytest.mark.parametrize(
    ("arguments", "words", "expected"),
    [
        (("--model", "tissue", "--region", "1,2,3"), "--region is x0,y0,x1,y1", 1),
        (("--model", "tissue", "--region", "a,b,c,d"), "--region is x0,y0,x1,y1", 1),
        (("--model", "tissue", "--region", "9000,0,9100,50"), "lies off the slide", 3),
        (("--model", "tissue", "--set", "threshold"), "--set takes key=value", 1),
        (("--model", "tissue", "--set", "batch=1", "--set", "batch=2"), "each key once", 1),
        (("--model", "tissue", "--set", "batch=many"), "batch must be a number", 1),
        (("--model", "none"), "no model 'none' that predicts layers; there are", 4),
        (("--model", "none.json"), "none.json cannot be read", 1),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(run, arguments, words, expected):
    code, _, errors = run("predict", "spots", *arguments)
    assert code == expected and words in errors and len(errors.strip().splitlines()) == 1


def test_an_unknown_slide_stops_the_command_before_any_work(run, library):
    code, _, errors = run("predict", "spots", "sports", "--model", "tissue")
    assert code == 4 and "no slide" in errors
    assert LayerStore(library.root).layers(library.slide_by_name("spots").id) == []


def test_models_lists_what_predicts_with_kind_classes_and_range(run, library):
    own_model(library.root / "models")
    facts = {each["name"]: each for each in run("models", "--json")[1]["models"]}
    assert facts["own"]["kind"] == "instance" and facts["own"]["mpp_range"] == [0.35, 0.65]
    assert facts["tissue"]["classes"][1]["name"] == "Tissue" and facts["sr-fast"]["kind"] == "sr"
    line = next(line for line in run("models")[1].splitlines() if line.startswith("own "))
    assert "instance" in line and "0.35–0.65 µm/px" in line and line.endswith("Nucleus")
