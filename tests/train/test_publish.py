"""A run becomes a model of a library: whole or not at all, listed at once, and it predicts what the run learnt."""

import json

import numpy as np
import pytest
import shapely
import torch

from app import create_app
from app.cli import main as ocular
from app.settings import Settings
from tests.data.drawn_slides import TUMOURS, write_library
from tests.data.pixel_folder import write_folder
from tests.train.hand_made import dark_network, write_run
from train import cards_semi, command, loop, publish, semi_supervised
from train.publish import Wish, default_name
from train.set_facts import OWN_LICENCE, facts_of, licence_of
from wsi_ml.inference.predicting import PredictRequest, predict
from wsi_ml.inference.predictor import open_predictor
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.licences import card_facts, is_research_only
from wsi_ml.slides.library import Library


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(cards_semi, "CORE", 64)


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "library").root


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "dark")


def published(run, library, *more):
    return publish.main(["--run", str(run), "--library", str(library), *more])


def files_of(library):
    return sorted(each.name for each in (library / "models").glob("[!.]*"))


def card_of(library, name):
    return json.loads((library / "models" / f"{name}.json").read_text())


def test_a_published_run_is_listed_without_a_restart_and_draws_what_it_learnt(tmp_path, run, capsys):
    library = write_library(tmp_path / "library", "a")
    client = create_app(Settings(library=library)).test_client()
    assert "dark" not in {each["name"] for each in client.get("/api/models").json["models"]}
    assert published(run, library, "--title", "Violet tissue") == 0
    assert capsys.readouterr().out == "dark\n"

    listed = next(each for each in client.get("/api/models").json["models"] if each["name"] == "dark")
    assert (listed["kind"], listed["title"], listed["background"]) == ("dense", "Violet tissue", ["Other"])
    assert listed["label_kinds"] == ["exact"] and listed["licence"] == "MIT" and listed["research_only"] is False
    assert (listed["training"]["steps"], listed["training"]["minutes"]) == (6, 2.0)
    assert ocular(["models", "--library", str(library)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("dark "))
    assert "labels exact" in line and "licence MIT" in line and line.endswith("Tumour")

    (slide,) = Library(library).slides()
    layer = predict(library, PredictRequest(slide.id, "dark"), device="cpu", threads=1)
    batches = [batch for _, batch in FeaturesFile(library / "layers" / f"{layer.id}.features").batches()]
    told = shapely.union_all([shape for batch in batches for shape in batch.geometries])
    truth = shapely.box(*(2 * side for side in TUMOURS["a"]))
    assert [each.name for each in layer.classes] == ["Tumour"]
    assert told.intersection(truth).area / told.union(truth).area > 0.99
    assert layer.provenance["model_sha256"] == listed["sha256"]


def test_an_unfinished_run_says_what_to_do_and_its_state_can_be_published(tmp_path, library, capsys):
    run = write_run(tmp_path / "half", done=4)
    assert published(run, library) == 2
    assert "half stands at step 4 of 6: go on with --resume, or publish" in capsys.readouterr().err
    assert files_of(library) == []
    assert published(run, library, "--state") == 0
    card = card_of(library, "half")
    assert card["training"]["unfinished"] == "step 4 of 6" and card["notes"].startswith("Not finished: the state of")


def test_a_model_of_the_same_name_is_replaced_only_when_told(tmp_path, run, library, capsys):
    assert published(run, library, "--name", "mine") == 0 and published(run, library, "--name", "other") == 0
    before = files_of(library)
    assert len(before) == 4
    assert published(run, library, "--name", "mine") == 0 and files_of(library) == before, "the same again"
    changed = write_run(tmp_path / "changed", dark_network(150.0))
    assert published(changed, library, "--name", "mine") == 2
    assert "has a model mine already; give --name, or --replace" in capsys.readouterr().err
    assert files_of(library) == before
    assert published(changed, library, "--name", "mine", "--replace") == 0
    after = files_of(library)
    assert len(after) == 4 and after != before, "the old weights are gone, the new ones there"
    assert all(card_of(library, name)["weights"] in after for name in ("mine", "other"))
    assert open_predictor("mine", folders=[library / "models"]).card.sha256 == card_of(library, "mine")["sha256"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nuclei-fast", "nuclei-fast is a model of Ocular's own"),
        ("tissue", "tissue is a model of Ocular's own"),
        ("trust-me", "trust-me is a model of Ocular's own"),
        ("a b", "its name may hold letters, digits, dots, dashes and underscores only"),
        ("../up", "its name may hold letters"),
    ],
)
def test_a_name_that_cannot_be_leaves_nothing(run, library, capsys, name, words):
    assert published(run, library, "--name", name) == 2
    assert words in capsys.readouterr().err and files_of(library) == []


def test_names_of_folders_become_names_of_models(tmp_path):
    assert [default_name(tmp_path / each) for each in ("semi_S+C-10", "..x", "###")] == ["semi-s-c-10", "x", "model"]


def test_what_ends_between_weights_and_card_offers_nothing_and_can_be_done_again(run, library, monkeypatch):
    whole = loop.write_atomic

    def killed(path, data):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        whole(path, data)

    monkeypatch.setattr(loop, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        published(run, library)
    assert [file.rpartition(".")[2] for file in files_of(library)] == ["safetensors"]
    monkeypatch.undo()
    monkeypatch.setattr(cards_semi, "CORE", 64)
    assert published(run, library) == 0 and len(files_of(library)) == 2


def test_weights_are_fp16_where_that_tells_the_same(tmp_path, run, library):
    assert published(run, library) == 0
    small = (library / "models" / card_of(library, "dark")["weights"]).stat().st_size
    large = dark_network()
    with torch.no_grad():
        large.classifier[0].weight[0, 0] = 1e6
    assert published(write_run(tmp_path / "large", large), library) == 0
    exact = (library / "models" / card_of(library, "large")["weights"]).stat().st_size
    assert exact > 1.5 * small, "a number that fp16 cannot hold keeps all in fp32"


def test_no_run_no_library_and_a_script_without_models_are_told(tmp_path, run, library, capsys):
    assert published(tmp_path / "none", library) == 2
    assert "none is no run of a training script: its network.json cannot be read" in capsys.readouterr().err
    assert published(run, tmp_path) == 2
    assert "There is no library" in capsys.readouterr().err
    facts = json.loads((run / "network.json").read_text())
    (run / "network.json").write_text(json.dumps({**facts, "script": "elsewhere"}))
    assert published(run, library) == 2
    assert "dark is a run of train.elsewhere, of which no model is published" in capsys.readouterr().err


def test_scores_of_an_evaluation_come_into_the_card(run, library):
    row = {"run": "dark", "source": "drawn", "part": "test", "pictures": 9, "dsc": 0.75, "iou": 0.6}
    (run / "results.json").write_text(json.dumps({"runs": [{**row, "run": "another", "dsc": 0.1}, row]}))
    assert published(run, library, "--commit", "abc") == 0
    card = card_of(library, "dark")
    assert card["scores"] == [
        {"set": "drawn", "words": "pixels of the part test", "pictures": 9, "dsc": 0.75, "iou": 0.6}
    ]
    assert card["training"]["commit"] == "abc" and str(run.parent) not in json.dumps(card)


def test_the_key_publishes_when_the_run_ends_and_a_missing_library_is_told_before_it_begins(tmp_path, library, capsys):
    keys = {"preset": "tiny", "source": "folder", "data": write_folder(tmp_path / "data", side=32), "side": 32,
            "widths": "8,8,12,16", "batch": 2, "steps": 2, "threads": 1, "device": "cpu", "precision": "fp32",
            "warm_up": 1, "run": tmp_path / "Own_run"}  # fmt: skip
    told = [f"--set={name}={value}" for name, value in keys.items()]
    assert semi_supervised.main([*told, f"--set=publish={tmp_path / 'nowhere'}"]) == 2
    assert "There is no library in “nowhere”" in capsys.readouterr().err and not (tmp_path / "Own_run").exists()
    assert semi_supervised.main([*told, f"--set=publish={library}"]) == 0
    assert "published: own-run" in capsys.readouterr().err
    card = card_of(library, "own-run")
    assert [each["name"] for each in card["classes"]] == ["Other", "Target"]
    assert card["licence"].startswith("not stated: trained on data that is not part of Ocular")
    predictor = open_predictor("own-run", device="cpu", threads=1, folders=[library / "models"])
    side = predictor.card.side
    assert predictor(np.full((1, side, side, 3), 200, np.uint8)).shape == (1, 2, 64, 64)


def test_a_run_that_was_stopped_is_not_published(tmp_path, library, capsys):
    command.publish_run(write_run(tmp_path / "short", done=3), library)
    assert "short was stopped at step 3: it is published when --resume has ended it" in capsys.readouterr().err
    assert files_of(library) == []


def test_one_wish_is_what_the_command_makes(run, library):
    (file,) = publish.publish(run, library, Wish("dark", title="T"))
    assert file == library / "models" / "dark.json" and card_of(library, "dark")["title"] == "T"


def test_licences_and_labels_of_sets(tmp_path):
    assert licence_of(facts_of(["drawn", "nuclei", "tissue-weak"])) == "MIT"
    assert licence_of(facts_of(["drawn", "monuseg"])) == "CC BY-NC-SA 4.0"
    assert is_research_only(licence_of(facts_of(["lizard:Lizard", "drawn"])))
    assert licence_of(facts_of(["drawn", "folder"], tmp_path)) == OWN_LICENCE
    told = {"licence": "MIT", "teacher": "a network", "labels": "teacher: told by a model"}
    (tmp_path / "teacher.json").write_text(json.dumps(told))
    facts = facts_of(["drawn", "tissue-weak", "folder", "drawn"], tmp_path)
    assert card_facts({"licence": licence_of(facts), "data": facts}) == {
        "research_only": False, "label_kinds": ["exact", "weak", "teacher"],
    }  # fmt: skip
