"""`/api/models` and `ocular models` list upscalers and predictors alike; a user's upscaler is a source at once."""

import json

import structlog

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


DAMAGED = {
    "no-json.json": "{",
    "a-list.json": "[]",
    "nested.json": "[" * 100_000,
    "infinite.json": '{"format": 1, "kind": "dense", "name": "infinite", "mpp": 1e999}',
    "no-kind.json": '{"format": 1, "name": "no-kind"}',
    "colour.json": {"name": "colour", "classes": [{"name": "A", "color": 5}]},
    "count.json": {"name": "count", "parameters": "many"},
    "sets.json": {"name": "sets", "data": "none"},
    "renamed.json": {"name": "another"},
    "no-weights.json": {"name": "no-weights"},
    "sr.json": {"kind": "sr", "name": "sr", "scale": 4},
}
OWN = {
    "format": 1, "name": "own", "kind": "dense", "classes": [{"name": "A", "color": None}], "channels": ["A"],
    "background": [], "mpp": 0.5, "mpp_range": [0.4, 0.6], "side": 64, "halo": 0, "stride": 1, "activation": "softmax",
    "architecture": "nuclei-unet", "config": {}, "weights": "own.safetensors", "sha256": "ab", "parameters": 7,
    "licence": "CC BY-NC-SA 4.0", "data": [{"set": "s", "labels": "outlined by hand", "licence": "CC BY-NC-SA 4.0"}],
}  # fmt: skip


def write_own(folder):
    """One good card of research licence, and every damaged one."""
    folder.mkdir(exist_ok=True)
    (folder / "own.json").write_text(json.dumps(OWN))
    (folder / "own.safetensors").write_bytes(b"")
    for name, value in DAMAGED.items():
        named = {**OWN, "weights": "none.safetensors"} if name == "no-weights.json" else OWN
        (folder / name).write_text(value if isinstance(value, str) else json.dumps({**named, **value}))


def test_a_damaged_card_costs_its_own_model_and_is_named_once_in_the_log(library, client):
    before = {each["name"] for each in client.get("/api/models").json["models"]}
    write_own(library.root / MODELS_FOLDER)
    with structlog.testing.capture_logs() as lines:
        answers = [client.get("/api/models") for _ in range(2)]
    assert {each["name"] for each in answers[1].json["models"]} == before | {"own"}
    assert b"Infinity" not in answers[1].data
    told = [line["detail"] for line in lines if line["event"] == "model not offered"]
    assert len(told) == len(DAMAGED) and all(any(name in line for line in told) for name in DAMAGED)
    own = next(each for each in answers[1].json["models"] if each["name"] == "own")
    assert own["research_only"] is True and own["label_kinds"] == ["hand"]


def test_the_command_says_what_is_not_offered_and_what_is_for_research_only(library, capsys):
    write_own(library.root / MODELS_FOLDER)
    assert main(["models", "--library", str(library.root)]) == 0
    shown = capsys.readouterr()
    line = next(line for line in shown.out.splitlines() if line.startswith("own "))
    assert "labels hand" in line and "licence CC BY-NC-SA 4.0" in line and "RESEARCH ONLY" in line
    faults = [line for line in shown.err.splitlines() if line.startswith("ocular: not offered: ")]
    assert len(faults) == len(DAMAGED)
    assert (
        "ocular: not offered: The weights none.safetensors of the model card no-weights.json are not there." in faults
    )
    assert main(["models", "--library", str(library.root), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["not_offered"]) == len(DAMAGED)
    assert next(each for each in facts["models"] if each["name"] == "own")["research_only"] is True


def test_an_upscaler_for_research_only_is_offered_but_never_the_best_available(library, slide, monkeypatch):
    app = create_app(Settings(library=library.root))
    client, state = app.test_client(), app.extensions[EXTENSION]
    card = write_model(library.root / MODELS_FOLDER, "mine", "sr-joint", TINY)
    file = library.root / MODELS_FOLDER / "mine.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "licence": "CC BY-NC 4.0"}))
    monkeypatch.setattr(state.upscalers, "_shipped", library.root / "nowhere")
    state.versions._refreshed = 0.0
    sources = {each["source"]: each for each in client.get(f"/api/slides/{slide[0]}").json["sources"]}
    assert sources["mine"]["label"] == "Super-resolution ×40 (mine), research only"
    assert sources["mine"]["model"] == {"name": "mine", "sha256": card.sha256, "research_only": True}
    assert "model" not in sources["auto"] and not sources["auto"]["synthesised"]
