"""`ocular trust`: a layer, and shares of the slide that add up to all of it."""

import json

import pytest

from app.cli import main
from tests.inference.fakes import add_picture, spotted_picture
from wsi_ml.geometry import Size
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.library import Library


@pytest.fixture
def library(tmp_path):
    library = Library.create(tmp_path / "library")
    add_picture(library, "spots", spotted_picture(Size(300, 200)))
    return library


@pytest.fixture
def run(library, capsys):
    def command(*arguments):
        code = main([*map(str, arguments), "--library", str(library.root)])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if "--json" in arguments else captured.out, captured.err

    return command


def test_a_layer_is_made_and_its_shares_are_told(run, library):
    code, facts, _ = run("trust", "spots", "--json")
    layer = LayerStore(library.root).layer(facts["layer"]["id"])
    assert (code, layer.name, layer.kind) == (0, "trust-sr-fast", "prediction")
    assert sum(facts["shares"].values()) == pytest.approx(1)
    assert next(iter(facts["shares"])) == "Little difference expected"
    code, text, _ = run("trust", "spots")
    head, note, *bands = text.splitlines()
    assert (code, head) == (0, f"{layer.id}  trust-sr-fast")
    assert note == "No scan at hand: estimated from how much fine detail lies there, not compared with a scan."
    assert len(bands) == 4 and all("grey levels" in band for band in bands)


def test_an_upscaler_that_is_not_there_is_named(run):
    code, _, errors = run("trust", "spots", "--model", "sr-none")
    assert code == 4 and "There is no model 'trust-sr-none'" in errors and "trust-sr-fast" in errors
