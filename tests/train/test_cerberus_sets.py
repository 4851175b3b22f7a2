"""Heads and sets by keys alone: types of glands, points, folders; what is refused; runs on drawn folders."""

import dataclasses
import json

import numpy as np
import pytest

from tests.data.instance_sets import write_conic, write_glas, write_own
from tests.data.task_circles import circles_picture
from train import cerberus, loop, script
from train.cerberus_config import Config
from train.cerberus_data import open_data, type_names_of
from train.cerberus_held_out import held_out_sets, read_run, with_points
from train.evaluate_cerberus import evaluate, open_teller
from wsi_ml.data import nuclei
from wsi_ml.data.instance_files import NUCLEI_TYPES
from wsi_ml.errors import BadRequestError

HERE = loop.Ranks(0, 1, 0)
SMALL = {
    "preset": "tiny", "width": 4, "batch": 4, "side": 32, "patch_side": 16, "steps": 3, "log_every": 1,
    "validate_every": 3, "save_every": 3, "threads": 1, "device": "cpu", "precision": "fp32", "average": 0.5,
    "validation_pictures": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    own = write_own(folder / "own", 8)
    return {"own": f"folder:{own}", "conic": f"conic:{write_conic(folder / 'conic', 8)}",
            "glas": f"glas:{write_glas(folder / 'glas')}"}  # fmt: skip


def train(folder, **keys):
    return cerberus.main([f"--set={name}={value}" for name, value in {**SMALL, "run": folder, **keys}.items()])


def facts_of(folder):
    return json.loads((folder / script.NETWORK_FILE).read_text())


@pytest.fixture(scope="module")
def base_run(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "base"
    keys = {"tasks": "gland,nuclei", "gland_sets": sets["glas"], "nuclei_sets": sets["conic"]}
    assert train(folder, **keys) == 0
    return folder


def test_a_run_learns_from_folders_and_notes_what_it_held_out(base_run):
    first = json.loads((base_run / loop.JOURNAL_FILE).read_text().splitlines()[0])
    assert first["pictures"] == {"gland": 4, "nuclei": 4} and first["instances"] == {"gland": 16, "nuclei": 16}
    held = facts_of(base_run)["held_out"]
    assert {"testA_1", "testB_1"} <= set(held) and sum(name.startswith("consep_") for name in held) == 2


@pytest.mark.parametrize(
    ("keys", "channels"),
    [
        ({"tasks": "nuclei_type"}, {"nuclei_type": 7}),
        ({"tasks": "gland_type"}, {"gland_type": 3}),
        ({"tasks": "nuclei_points"}, {"nuclei_points": 2}),
        ({"tasks": "nuclei_points", "points_of": "Epithelial nucleus"}, {"nuclei_points": 2}),
        ({"tasks": "nuclei_type,gland_type,nuclei_points"}, {"nuclei_type": 7, "gland_type": 3, "nuclei_points": 2}),
    ],
)
def test_new_heads_by_keys_leave_all_else_bit_identical(base_run, sets, tmp_path, keys, channels):
    folder = tmp_path / "heads"
    beside = {"start_run": base_run, "gland_sets": sets["glas"], "nuclei_sets": sets["conic"]}
    assert train(folder, **beside, **keys) == 0
    assert facts_of(folder)["config"]["tasks"] == {"gland": 3, "nuclei": 3, **channels}
    before, after = (loop.part(loop.read_state(each)[2], "average") for each in (base_run, folder))
    assert all(np.array_equal(after[name], before[name]) for name in before)
    fresh = {name.split(".")[1] for name in after if name not in before}
    assert fresh == set(channels)
    assert set(facts_of(base_run)["held_out"]) <= set(facts_of(folder)["held_out"])


def test_points_of_a_type_are_learnt_from_its_instances_alone(sets):
    keys = {"tasks": ("nuclei_points",), "nuclei_sets": (sets["conic"],)}
    config = cerberus.settled(Config(preset="tiny", points_of=(NUCLEI_TYPES[0],), **keys), HERE)
    data = open_data(config, cerberus.batch_settings(config, HERE))
    (all_of,) = data.source.pictures.values()
    assert {len(np.unique(picture.labels)) - 1 for picture in all_of} == {2}  # of four, every other
    with pytest.raises(BadRequestError, match="points_of names 'Tumour'; types are Neutrophil"):
        open_data(Config(points_of=("Tumour",), **keys), None)


def test_types_are_those_of_the_sets(sets):
    assert type_names_of(Config(nuclei_sets=("dsb2018", sets["conic"])), "nuclei_type") == NUCLEI_TYPES
    assert type_names_of(Config(gland_sets=(sets["glas"],)), "gland_type") == ("Benign gland", "Malignant gland")
    with pytest.raises(BadRequestError, match="tell other types of nuclei"):
        type_names_of(Config(nuclei_sets=("drawn", sets["conic"])), "nuclei_type")
    with pytest.raises(BadRequestError, match="No set of gland knows types"):
        type_names_of(Config(), "gland_type")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"gland_sets": "dsb2018"}, "gland_sets has 'dsb2018', which is no set of gland"),
        ({"lumen_sets": "crag:x"}, "lumen_sets has 'crag:x'"),
        ({"nuclei_sets": "conic:nowhere"}, "is no folder"),
        ({"tasks": "nuclei_type,gland_type", "type_weights": "0,1"}, "type_weights are of one task"),
        ({"test": "nobody"}, "No set holds a picture or slide nobody"),
        ({"tasks": "nuclei_points", "point_radius": "0"}, "point_radius 0.0 is below 1 px"),
    ],
)
def test_wrong_sets_end_with_one_sentence(sets, tmp_path, capsys, keys, words):
    given = {"tasks": "nuclei", "nuclei_sets": sets["conic"], **keys}
    assert train(tmp_path / "run", **given) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def hand_pictures(root, names):
    """Pictures of these names in place of DSB 2018's."""
    return [], [dataclasses.replace(circles_picture("nuclei", 0), name=name) for name in names]


@pytest.mark.parametrize(
    ("held_out", "clusters", "research"),
    [
        ((), 3, "MoNuSeg 2018 training"),  # trained on neither
        (nuclei.TEST, 3, "MoNuSeg 2018 training"),
        ((*nuclei.TEST[:2], "TCGA-2"), 1, "MoNuSeg 2018 training, held out"),
        (("hand-1",), 0, "MoNuSeg 2018 training"),  # trained on all that is measured else
    ],
)
def test_of_a_set_that_was_trained_on_only_what_was_held_out_is_measured(
    tmp_path, monkeypatch, held_out, clusters, research
):
    every = dict.fromkeys((*nuclei.TEST, *nuclei.VALIDATION, "hand-1"))
    monkeypatch.setattr(nuclei, "read_hand_set", lambda root: every)
    monkeypatch.setattr("train.cerberus_held_out.hand_pictures", hand_pictures)
    two = hand_pictures(tmp_path, ("TCGA-1", "TCGA-2"))[1]
    monkeypatch.setattr("train.cerberus_held_out.research_pictures", lambda root: two)
    monkeypatch.setattr("train.cerberus_held_out.drawn_pictures", lambda *args: {})
    (tmp_path / "monuseg-train-nc").mkdir()
    *hand, last = held_out_sets(Config(), held_out, tmp_path, ["nuclei"])
    assert len(hand) == clusters and all(found.name.startswith("dsb2018 test") for found in hand)
    shown = [picture.name for found in hand for picture in found.pictures]
    assert shown == list(nuclei.TEST[:2] if clusters == 1 else nuclei.TEST[: 15 * (clusters > 0)])
    kept = ["TCGA-2"] if research.endswith("held out") else ["TCGA-1", "TCGA-2"]
    assert last.name == research and [each.name for each in last.pictures] == kept


def test_the_test_part_of_own_folders_is_measured_and_called_what_it_is(sets, tmp_path, monkeypatch):
    monkeypatch.setattr("train.cerberus_held_out.drawn_pictures", lambda *args: {})
    folder = tmp_path / "run"
    keys = {"tasks": "gland,nuclei_points", "gland_sets": sets["own"], "nuclei_sets": sets["own"],
            "points_of": NUCLEI_TYPES[0]}  # fmt: skip
    assert train(folder, **keys) == 0
    config, held_out, steps = read_run(folder)
    assert steps == 3 and {"3", "7"} <= set(held_out)
    assert list(held_out_sets(config, held_out, tmp_path, ["gland"])) == []  # pictures 3 and 7 know no glands
    monkeypatch.setattr("train.cerberus_held_out._hand", lambda *args: iter(()))
    (own,) = held_out_sets(config, held_out, tmp_path, ["nuclei"])
    assert own.name == "folder own, test" and "agreement with a model" in own.truth
    points = with_points(own, config, "nuclei_points")
    assert [len(np.unique(each.labels)) - 1 for each in points.pictures] == [2, 2]
    assert with_points(own, config, "gland_points") is None
    teller = open_teller(folder, loop.pick_device("cpu", 0), 64, 32)
    rows = evaluate(teller, tmp_path)
    assert [(row["task"], row["objects"]) for row in rows] == [("nuclei_points", 4)]
    assert rows[0]["f1"] <= 1.0 and "agreement" in rows[0]["truth"]
