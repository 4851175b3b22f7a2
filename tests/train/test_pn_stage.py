"""Stages of drawn patients: clusters, rule and forest, tables, kappa; and what is refused."""

import json

import numpy as np
import pytest

from train import pn_stage
from wsi_ml.data.heatmaps import ENDING, Heatmap, heatmap_bytes
from wsi_ml.errors import BadRequestError

needs_sklearn = pytest.mark.skipif(pn_stage.DBSCAN is None, reason="scikit-learn (the extra stage) is not installed")
CELL_MM = 0.128
SIDES = {"negative": 0, "micro": 5, "macro": 24}


def heat_of(name, side, seed=0, rows=40):
    """A map of low probabilities with a square of high ones."""
    rng = np.random.default_rng(seed)
    cells = np.array([[row, column] for row in range(rows) for column in range(rows)])
    told = rng.uniform(0, 0.5, len(cells)).astype(np.float32)
    inside = ((cells >= 4) & (cells < 4 + side)).all(axis=1)
    told[inside] = rng.uniform(0.7, 1.0, int(inside.sum()))
    return Heatmap(name, cells, told, CELL_MM)


@pytest.fixture
def patients(tmp_path):
    """Ten patients of two slides: five without tumour, five with a macrometastasis."""
    folder, rows = tmp_path / "heat", [("patient", "stage")]
    folder.mkdir()
    for number in range(10):
        kinds = ("negative", "macro" if number % 2 else "negative")
        for node, kind in enumerate(kinds):
            heat = heat_of(f"patient_{number:03d}_node_{node}", SIDES[kind], 2 * number + node)
            (folder / f"{heat.name}{ENDING}").write_bytes(heatmap_bytes(heat))
            rows.append((f"{heat.name}.tif", kind))
        rows.append((f"patient_{number:03d}.zip", "pN1" if number % 2 else "pN0"))
    table = tmp_path / "stages.csv"
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return folder, table


def arguments(patients, output, *more):
    return ["--heatmaps", str(patients[0]), "--stages", str(patients[1]), "--output", str(output), *more]


@needs_sklearn
def test_clusters_join_what_is_near_and_leave_out_what_is_alone():
    square = np.array([[row, column] for row in range(5) for column in range(5)])
    far, lone = square + 30, np.array([[15, 15]])
    found = pn_stage.clusters_of(np.concatenate([square, far, lone]))
    assert len(set(found[:25])) == len(set(found[25:50])) == 1 and found[0] != found[25] and found[50] == -1
    assert (pn_stage.clusters_of(square[:19]) == -1).all()  # 19 patches are fewer than 20
    assert len(pn_stage.clusters_of(np.empty((0, 2)))) == 0


@needs_sklearn
def test_the_rule_measures_the_largest_region():
    assert [pn_stage.rule_of(heat_of("s", side)) for side in SIDES.values()] == list(SIDES)
    # 5 patches of 0.128 mm: an axis of 4·5/√12 patches is 0.74 mm.
    assert pn_stage.features_of(heat_of("s", 5))[1] * CELL_MM == pytest.approx(0.739, abs=1e-3)


@needs_sklearn
@pytest.mark.parametrize("method", pn_stage.METHODS)
def test_drawn_patients_are_staged_and_written_as_the_challenge_wants_it(patients, tmp_path, method, monkeypatch):
    monkeypatch.setattr(pn_stage, "TREES", 20)
    assert pn_stage.main(arguments(patients, tmp_path / "out", "--method", method)) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["kappa"] == 1.0 and found["slide_accuracy"] == 1.0
    assert (found["patients_judged"], found["slides_judged"]) == (10, 20)
    lines = (tmp_path / "out" / "stages.csv").read_text().splitlines()
    assert lines[:4] == ["patient,stage", "patient_000.zip,pN0", "patient_000_node_0.tif,negative",
                         "patient_000_node_1.tif,negative"]  # fmt: skip
    assert "patient_009.zip,pN1" in lines


@needs_sklearn
def test_no_slide_is_told_by_a_forest_that_saw_its_patient(patients, monkeypatch):
    seen = []

    class Watched:
        def __init__(self, *_, **__):
            pass

        def fit(self, features, classes):
            self.rows = {row.tobytes() for row in features}

        def predict(self, features):
            seen.append((self.rows, [row.tobytes() for row in features]))
            return np.array(["negative"] * len(features))

    monkeypatch.setattr(pn_stage, "RandomForestClassifier", Watched)
    monkeypatch.setattr(pn_stage, "features_of", lambda heat: np.array([float(heat.name[8:11]), 1.0]))
    heats = [*pn_stage.read_heatmaps(patients[0]), heat_of("patient_900_node_0", 0)]
    told = pn_stage.told_by_forest(heats, pn_stage.read_stages(patients[1])[0], 5, 1)
    assert len(told) == 21 and len(seen) == 6
    assert all(not rows & set(asked) for rows, asked in seen)


def test_stages_follow_from_the_nodes():
    nodes = {"patient_001_node_0": "micro", "patient_001_node_1": "itc", "patient_002_node_0": "itc"}
    assert pn_stage.stages_of(nodes) == {"patient_001.zip": "pN1mi", "patient_002.zip": "pN0(i+)"}


def test_wrong_tables_folders_and_too_few_patients_are_refused(patients, tmp_path, capsys):
    table = tmp_path / "other.csv"
    table.write_text("patient_000_node_0.tif,huge\n")
    with pytest.raises(BadRequestError, match="'huge'"):
        pn_stage.read_stages(table)
    table.write_text("patient_000.zip,pN0\n")
    with pytest.raises(BadRequestError, match="no slides"):
        pn_stage.read_stages(table)
    assert pn_stage.main(arguments((tmp_path, patients[1]), tmp_path / "out")) == 2
    assert "holds no heatmaps" in capsys.readouterr().err
    if pn_stage.DBSCAN is not None:
        assert pn_stage.main(arguments(patients, tmp_path / "out", "--folds", "30")) == 2
        assert "10 patients" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_scikit_learn_one_sentence_says_what_to_install(patients, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pn_stage, "DBSCAN", None)
    assert pn_stage.main(arguments(patients, tmp_path / "out")) == 2
    assert "pip install -e .[stage]" in capsys.readouterr().err
