"""Measuring a run of paper C: windows joined, rows of the table, what is refused; slow: a small task is learnt."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.task_circles import circles_picture, flat_patches
from train import cerberus, evaluate_cerberus, loop
from train.cerberus_held_out import HeldOut
from train.evaluate_cerberus import Teller, measure_instances, measure_patches, measure_points, measure_types, outlined
from train.script import Run, as_rgb
from wsi_ml.data import tissue
from wsi_ml.data.instance_targets import point_target
from wsi_ml.data.task_pictures import TaskPicture
from wsi_ml.models.cerberus import Cerberus, CerberusConfig

CPU = torch.device("cpu")


def a_teller(folder, side=64, core=32, **tasks):
    torch.manual_seed(2)
    model = Cerberus(CerberusConfig(tasks or {"nuclei": 3}, 6, 4, (1, 1, 1, 1))).eval()
    config = cerberus.Config(nuclei_sets=("drawn",), patch_side=64)
    return Teller(model, Run(folder, loop.Ranks(0, 1, 0), CPU, False), side, core, config)


def test_windows_join_to_a_map_of_the_picture(tmp_path):
    rgb = circles_picture("nuclei", side=70).rgb
    teller = a_teller(tmp_path, nuclei=3, gland=3)
    maps = teller.maps(rgb, ["nuclei", "gland"])
    assert {task: each.shape for task, each in maps.items()} == {"nuclei": (3, 70, 70), "gland": (3, 70, 70)}
    assert maps["nuclei"].sum(0) == pytest.approx(np.ones((70, 70)), abs=1e-5)
    # The window of the second row and column begins at 32 − 16.
    with torch.inference_mode():
        alone = teller.model(as_rgb(torch.from_numpy(rgb[None, 16:, 16:][:, :48, :48].copy())))
    assert alone["nuclei"].shape == (1, 3, 48, 48)
    rows = slice(16, 70)
    window = np.pad(rgb[rows, rows], ((0, 10), (0, 10), (0, 0)), mode="symmetric")
    with torch.inference_mode():
        told = teller.model(as_rgb(torch.from_numpy(window[None])))["nuclei"].softmax(1)[0].numpy()
    assert np.allclose(maps["nuclei"][:, 32:64, 32:64], told[:, 16:48, 16:48], atol=1e-5)


class Perfect:
    """Tells the truth of the picture it is given."""

    def __init__(self, pictures, swapped=()):
        self.pictures, self.swapped = pictures, swapped
        self.model = Cerberus(CerberusConfig({"nuclei": 3}, 0, 4, (1, 1, 1, 1)))
        self.config = cerberus.Config(nuclei_sets=("drawn",))

    def maps(self, rgb, tasks):
        picture = min(self.pictures, key=lambda each: np.abs(each.rgb.astype(int) - rgb).sum())
        inside = (picture.labels > 0).astype(np.float32)
        kinds = picture.types.copy()
        if picture.name in self.swapped:
            kinds[kinds > 0] = 3 - kinds[kinds > 0]
        types = np.stack([kinds == kind for kind in range(4)]).astype(np.float32)
        return {"nuclei": np.stack([1 - inside, inside, inside * 0]), "nuclei_type": types}


def test_instances_of_a_perfect_picture_and_of_one_without_a_match():
    pictures = [circles_picture("nuclei", number, typed=True) for number in range(2)]
    scores = measure_instances(Perfect(pictures), "nuclei", pictures)
    assert scores["dq"] == 1.0 and scores["sq"] == scores["pq"] > 0.75
    other = [TaskPicture("other", each.rgb, np.roll(each.labels, 16, 1)) for each in pictures]
    assert measure_instances(Perfect(pictures), "nuclei", other)["sq"] is None


def test_types_of_a_perfect_and_of_a_swapped_picture():
    pictures = [circles_picture("nuclei", number, typed=True) for number in range(2)]
    scores = measure_types(Perfect(pictures), "nuclei_type", pictures)
    assert scores["f1"] == 1.0 and scores["f1/Epithelial nucleus"] == scores["f1/Stromal nucleus"] == 1.0
    assert "f1/Lymphocyte" not in scores and scores["mpq"] > 0.8 and scores["mpq_plus"] > 0.8
    wrong = measure_types(Perfect(pictures, ("nuclei-0", "nuclei-1")), "nuclei_type", pictures)
    assert wrong["f1"] == 1.0 and wrong["mpq_plus"] == 0.0 and wrong["f1/Stromal nucleus"] == 0.0


def test_a_picture_that_is_one_object_has_a_centre_for_each_type():
    """Nothing outside: no number is taken for the background."""
    picture = circles_picture("nuclei", 0, typed=True)
    whole = TaskPicture("whole", picture.rgb, np.ones_like(picture.labels), np.ones_like(picture.types))
    scores = measure_types(Perfect([whole]), "nuclei_type", [whole])
    assert scores["f1"] == scores["mpq_plus"] == 1.0


class Spots:
    """Tells discs of 3 px around each centre, shifted."""

    def __init__(self, pictures, shift=0):
        self.pictures, self.shift, self.config = pictures, shift, cerberus.Config(point_radius=3.0)

    def maps(self, rgb, tasks):
        picture = min(self.pictures, key=lambda each: np.abs(each.rgb.astype(int) - rgb).sum())
        spots = np.roll(point_target(picture.labels, 3.0).astype(np.float32), self.shift, 1)
        return {tasks[0]: np.stack([1 - spots, spots])}


def test_points_match_within_six_pixels():
    pictures = [circles_picture("nuclei", number, side=128) for number in range(2)]
    perfect = {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert measure_points(Spots(pictures), "nuclei_points", pictures) == perfect
    assert measure_points(Spots(pictures, 5), "nuclei_points", pictures) == perfect
    assert measure_points(Spots(pictures, 8), "nuclei_points", pictures)["f1"] == 0.0


def test_patches_are_cut_to_the_side_they_were_learnt_in(tmp_path, monkeypatch):
    patches = flat_patches(6, 6, side=160)
    monkeypatch.setattr(tissue, "read_tissue_set", lambda root: patches)
    monkeypatch.setattr(tissue, "split_patches", lambda all_of, test: tissue.TissueSplit([], patches, []))
    seen, teller = [], a_teller(tmp_path)
    monkeypatch.setattr(Teller, "shares", lambda self, rgb: seen.append(rgb.shape) or np.full((1, 6), 1 / 6))
    (row,) = measure_patches(teller, tmp_path)
    assert set(seen) == {(1, 64, 64, 3)} and row["set"] == "tissue-weak by slide"


def test_outlines_are_the_outermost_pixels():
    labels = np.zeros((8, 8), np.int32)
    labels[1:6, 1:6] = 1
    shown = outlined(np.zeros((8, 8, 3), np.uint8), labels, (1, 2, 3))
    assert (shown.any(-1)).sum() == 16 and not shown[3, 3].any() and shown[1, 1].tolist() == [1, 2, 3]


def test_the_report_has_a_row_for_each_set(tmp_path, monkeypatch, capsys):
    pictures = [circles_picture("nuclei", 0, typed=True)]
    found = HeldOut("nuclei", "drawn discs", "exact", pictures)
    monkeypatch.setattr(evaluate_cerberus, "held_out_sets", lambda *args: iter([found]))
    monkeypatch.setattr(evaluate_cerberus, "facts_of_run", lambda teller: {"run": "drawn"})
    patches = flat_patches(6, 6, side=160)
    split = tissue.TissueSplit([], patches, patches)
    monkeypatch.setattr(tissue, "read_tissue_set", lambda root: patches)
    monkeypatch.setattr(tissue, "split_patches", lambda all_of, test: split)
    teller = a_teller(tmp_path, nuclei=3, nuclei_type=4)
    monkeypatch.setattr(evaluate_cerberus, "open_teller", lambda *args: teller)
    command = [f"--run={tmp_path}", f"--output={tmp_path / 'out'}", "--device=cpu"]
    assert evaluate_cerberus.main(command) == 0
    table = (tmp_path / "out" / "README.md").read_text()
    assert table == capsys.readouterr().out and "| nuclei | drawn discs | exact | 1 | 4 |" in table
    assert "| nuclei_type | drawn discs |" in table and "| patch | tissue-weak by slide | weak | 6 |" in table
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = results["rows"]
    assert results["run"] == "drawn" and results["window"] == [448, 144]
    with Image.open(tmp_path / "out" / "pictures" / "nuclei-drawn-discs.jpg") as shown:
        assert shown.size == (64 + 4 + 64, 64)  # truth, a gap, told
    assert [row["task"] for row in rows] == ["nuclei", "nuclei_type", "patch", "patch"]


def test_what_cannot_be_measured_ends_with_one_sentence(tmp_path, capsys):
    assert evaluate_cerberus.main([f"--run={tmp_path}", f"--output={tmp_path}"]) == 2
    assert "no run to start from" in capsys.readouterr().err
    assert evaluate_cerberus.main([f"--run={tmp_path}", f"--output={tmp_path}", "--core=500"]) == 2
    assert "cannot keep its middle 500 px" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tiny_preset_learns_drawn_nuclei(tmp_path):
    """One drawn scene, some minutes: nuclei of another scene are found."""
    values = {
        "preset": "tiny", "tasks": "nuclei", "nuclei_sets": "drawn", "scenes": 1, "scene_parts": 4,
        "run": tmp_path / "run", "device": "cpu", "precision": "fp32", "validation_pictures": 4, "threads": 1,
    }  # fmt: skip
    assert cerberus.main([f"--set={name}={value}" for name, value in values.items()]) == 0
    last = [json.loads(line) for line in (tmp_path / "run" / loop.JOURNAL_FILE).read_text().splitlines()][-1]
    assert last["dice/nuclei"] > 0.6 and last["pq/nuclei"] > 0.3
