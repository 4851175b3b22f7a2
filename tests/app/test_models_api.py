"""`/api/models` and `ocular models` list upscalers and predictors alike; a user's upscaler is a source at once."""

import json

from app import create_app
from app.cli import main
from app.settings import Settings
from app.state import EXTENSION
from tests.sr.networks import write_model
from wsi_ml.slides.library import MODELS_FOLDER

TINY = {"channels": 8, "growth": 4, "blocks": 1}
CARD_FIELDS = {"name", "kind", "parameters", "mpp_range", "sha256", "licence"}


def test_both_kinds_are_listed_with_what_a_card_shows(client):
    models = {(each["kind"], each["name"]): each for each in client.get("/api/models").json["models"]}
    assert {("bicubic", "bicubic"), ("sr", "sr-fast"), ("instance", "nuclei-fast"), ("patch", "tissue-fast")} <= set(
        models
    )
    for each in models.values():
        assert not CARD_FIELDS - set(each), each["name"]
    sr_fast = models["sr", "sr-fast"]
    assert sr_fast["scale"] == 2 and sr_fast["scores"][0]["bicubic"]["psnr"] > 20
    assert {"set", "licence", "credit", "slides"} <= set(sr_fast["data"][0])


def test_a_users_upscaler_is_listed_and_offered_without_a_restart(library, slide, monkeypatch):
    app = create_app(Settings(library=library.root))
    client = app.test_client()
    slide_id = slide[0]

    def sources():
        state = app.extensions[EXTENSION]
        state.versions._refreshed = 0.0  # as after half a second
        return [each["source"] for each in client.get(f"/api/slides/{slide_id}").json["sources"]]

    before = sources()
    assert "mine" not in before and before[-1] == "auto"
    card = write_model(library.root / MODELS_FOLDER, "mine", "sr-joint", TINY)
    facts = next(each for each in client.get("/api/models").json["models"] if each["name"] == "mine")
    assert (facts["kind"], facts["sha256"], facts["parameters"]) == ("sr", card.sha256, card.parameters)
    assert sources() == [*before[:-1], "mine", "auto"]
    source = next(each for each in client.get(f"/api/slides/{slide_id}").json["sources"] if each["source"] == "mine")
    assert source["label"] == "Super-resolution ×40 (mine)" and source["dzi"].endswith(f"/mine@{card.sha256[:12]}.dzi")
    assert source["model"] == {"name": "mine", "sha256": card.sha256}


def test_the_command_lists_a_users_upscaler(library, capsys):
    write_model(library.root / MODELS_FOLDER, "mine", "sr-joint", TINY)
    assert main(["models", "--library", str(library.root), "--json"]) == 0
    models = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert models["mine"]["kind"] == models["sr-fast"]["kind"] == "sr" and models["tissue-fast"]["kind"] == "patch"
    assert main(["models", "--library", str(library.root)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mine "))
    assert " sr " in line and line.endswith("×2")
