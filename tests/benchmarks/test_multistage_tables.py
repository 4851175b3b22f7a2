"""The tables of paper D: rows over seeds, directions from figures, a report that says what its labels are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import multistage_tables, segmentation_tables
from benchmarks.multistage_tables import TABLE_1, compared, heat_maps, polished, study_directions
from benchmarks.segmentation_tables import RunResult, by_row

FIGURES = {"extractor": (0.80, 0.40), "picture": (0.85, 0.30), "trunk": (0.70, 0.20), "separate": (0.96, 0.95)}


def run_of(name, seed, accuracy, area, study="multistage"):
    pooled = {"patches": 90, "tumour": 18, "not_told": 10, "accuracy": accuracy, "average_precision": area,
              "pr_trapezoid": area}  # fmt: skip
    results = {"run": {"row": name, "labels": "polygons"}, "part": "test", "pooled": pooled,
               "slides": [{"slide": "lesions-115", **pooled}]}  # fmt: skip
    keys = {"patch_side": "64", "layer": "Exact truth: lesions", "tumour": "Lesion"}
    facts = {"seed": seed, "steps": 100, "minutes": 2.0, "hardware": "a CPU", "parameters": 10, "keys": keys}
    return RunResult(study, f"{name}-{seed}", facts, results)


def runs(**more):
    figures = {**FIGURES, "end-to-end": (0.962, 0.951), **more}
    return [
        run_of(name, seed, accuracy + step, area + step)
        for name, (accuracy, area) in figures.items() for seed, step in ((80, -0.01), (81, 0.01))
    ]  # fmt: skip


def test_directions_come_of_the_figures():
    rows = by_row(runs())
    assert compared(rows, "separate", "extractor", "accuracy").holds
    assert compared(rows, "separate", "extractor", "accuracy").ours == "96.00 > 80.00"
    found = compared(rows, "extractor", "picture", "accuracy")
    assert found.holds is False and found.ours == "80.00 ≤ 85.00" and found.paper == "95.92 > 92.24"
    assert polished(rows, "accuracy").holds and polished(rows, "accuracy").ours == "+0.20, of +16.00"
    assert polished(by_row(runs(**{"end-to-end": (0.90, 0.95)})), "accuracy").holds is False
    assert compared({}, "separate", "extractor", "accuracy").holds is None
    assert len(study_directions(rows)) == 14


def test_a_difference_within_the_spread_of_seeds_is_said_to_be_close():
    rows = by_row(runs(picture=(0.805, 0.405)))
    assert compared(rows, "picture", "extractor", "accuracy").close
    assert not compared(rows, "separate", "extractor", "accuracy").close


def test_the_report_has_the_papers_figures_beside_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(multistage_tables, "ROOT", tmp_path)
    text = multistage_tables.body(runs(), tmp_path)
    for paper in TABLE_1.values():
        assert f"{paper.area[0]:.2f} ± {paper.area[1]:.2f}" in text
    assert (
        "96.00 ± 1.41" in text
        and "exact truth" in text
        and "100 patches of 64 px" in text
        and "20.0% of them tumour" in text
    )
    assert "## Table 1 on real slides, as far as it goes\n\nNot measured." in text and "heatmaps.png" not in text
    told = run_of("separate", 80, 0.9, 0.9, "multistage_teacher")
    assert "agreement with a model, not accuracy" in multistage_tables.body([told], tmp_path)


def test_stages_of_patients_are_kept_and_told(tmp_path):
    assert "not measured" in multistage_tables.stages_words(tmp_path, tmp_path / "runs")
    found = {"kappa": 0.9, "slide_accuracy": 0.5, "slides_judged": 50, "patients_judged": 10, "folds": 5, "slides": {}}
    for method in ("forest", "rule"):
        folder = tmp_path / "runs" / method
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({**found, "kappa": None if method == "rule" else 0.9}))
    told = multistage_tables.stages_words(tmp_path, tmp_path / "runs")
    assert "| forest | 10 | 50 | 50% | 90.0 |" in told and "| rule | 10 | 50 | 50% | – |" in told
    assert multistage_tables.stages_words(tmp_path, tmp_path / "none") == told


def test_a_study_of_two_parts_has_a_table_of_each():
    study = multistage_tables.REAL
    found = [
        run_of(f"{row}-on-{slide}", 80, accuracy, 0.5, study)
        for slide, accuracy in (("one", 0.61), ("two", 0.72)) for row in ("separate", "extractor")
    ]  # fmt: skip
    words = multistage_tables.study_words(study, found)
    assert len(words) == 7 and "61.00" in words[2] and "72.00" not in words[2] and "72.00" in words[5]


def test_heatmaps_of_two_runs_stand_beside_their_truth(tmp_path):
    red, blue, white = (220, 50, 50), (60, 90, 200), (255, 255, 255)
    for name, told in (("extractor", blue), ("separate", red)):
        folder = tmp_path / "runs" / f"{name}-80"
        folder.mkdir(parents=True)
        picture = np.full((16, 40, 3), white, np.uint8)
        picture[:, :16], picture[:, 24:] = red, told
        Image.fromarray(picture).save(folder / "slide-0.png")
    assert heat_maps(tmp_path, tmp_path / "runs")
    sheet = np.asarray(Image.open(tmp_path / "heatmaps.png").convert("RGB"))
    assert sheet.shape == (256, 784, 3)
    for x, colour in ((128, red), (260, white), (392, blue), (656, red)):
        assert np.abs(sheet[128, x].astype(int) - colour).max() <= 4
    assert not heat_maps(tmp_path, tmp_path / "none")


def test_results_of_an_evaluation_are_kept_small_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(multistage_tables, "ROOT", tmp_path)
    folder = tmp_path / "runs" / "multistage" / "separate-80"
    folder.mkdir(parents=True)
    scores = {"patches": 9, "tumour": 3, "not_told": 0, "accuracy": 1.0, "average_precision": 1.0, "pr_trapezoid": 1.0}
    value = {
        "command": "x", "run": {"row": "separate", "stage": "segmentation", "labels": "polygons", "minutes": 3},
        "part": "test", "slides": [{"slide": "s", **scores, "picture": "slide-0.png"}], "pooled": scores,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(value))
    facts = {"trained": True, "seed": 80, "steps": 3, "minutes": 1.0, "keys": {}, "script": "multistage"}
    (folder / "study.json").write_text(json.dumps(facts))
    arguments = ["multistage", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    segmentation_tables.main(arguments)
    kept = json.loads((tmp_path / "results" / "multistage" / "multistage" / "separate-80.json").read_text())
    assert kept["results"]["slides"] == [{"slide": "s", **scores}] and "command" not in kept["results"]
    assert "100.00" in (tmp_path / "results" / "multistage" / "README.md").read_text()
    with pytest.raises(KeyError):
        multistage_tables.shrink({})
