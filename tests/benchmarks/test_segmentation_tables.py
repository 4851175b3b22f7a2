"""Studies collected and printed: exact cells, seeds, verdicts, the floor, faults."""

import json

import pytest
from PIL import Image

from benchmarks import charts, segmentation_tables, semi_tables
from benchmarks.segmentation_tables import Direction, RunResult
from benchmarks.semi_directions import Judge, above, best, found_directions


def semi_run(name, dsc, seed=80, **results):
    row = {
        "source": "nuclei", "dsc": dsc, "iou": dsc / (2 - dsc), "accuracy": 0.9,
        "learnt_from": {"segmentation": 3, "classification": 30},
        "confusion": {"classes": ["Other", "Nucleus"], "rows": [[50, 10], [10, 30]]},
        "picture_confusion": [[1, 0], [1, 6]], **results,
    }  # fmt: skip
    keys = {"steps": "400", "side": "64", "widths": "8,16", "halvings": "1", "batch": "8", "present": "0.2"}
    facts = {"keys": keys, "seed": seed, "steps": 400, "minutes": 1.2, "hardware": "one core", "parameters": 61020}
    return RunResult("semi_labels", name, facts, row)


def write_run(folder, name, results, **facts):
    (folder / name).mkdir(parents=True)
    (folder / name / "results.json").write_text(json.dumps(results))
    (folder / name / "study.json").write_text(json.dumps({"trained": True, "seed": 80, **facts}))


def line_of(text, *cells):
    return next(line for line in text.splitlines() if line.startswith("| " + " | ".join(cells) + " |"))


def test_finished_runs_are_copied_small_and_read_back(tmp_path):
    runs, results = tmp_path / "runs" / "semi_x", tmp_path / "results" / "semi"
    row = {"dsc": 0.5, "iou": 1 / 3, "picture": "a.png", "hardware": "core"}
    write_run(runs, "a", {"runs": [row]}, keys={"steps": "2", "run": "/somewhere"}, minutes=2.0, script="semi")
    write_run(runs, "unfinished", {"runs": [row]}, trained=False)
    assert segmentation_tables.collect(runs, results, semi_tables.shrink) == 1
    text = (results / "semi_x" / "a.json").read_text()
    assert "a.png" not in text and str(tmp_path) not in text
    (found,) = segmentation_tables.read_results(results)
    assert (found.study, found.name, found.row, found.results["dsc"]) == ("semi_x", "a", "a", 0.5)
    assert found.facts["minutes"] == 2.0 and segmentation_tables.effort([found]).startswith("1 runs, 2 minutes in all")


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.json").write_text("{")
    with pytest.raises(SystemExit, match=r"x/a.json is no JSON"):
        segmentation_tables.read_results(tmp_path)
    (tmp_path / "x" / "a.json").write_text('{"format": 9}')
    with pytest.raises(SystemExit, match="has format 9, not 1"):
        segmentation_tables.read_results(tmp_path)


def test_figures_are_written_as_the_papers_write_them():
    assert segmentation_tables.figure(0.8314) == ".831" and segmentation_tables.figure(-0.02, 2) == "-.02"
    assert segmentation_tables.figure(1.0) == "1.000" and segmentation_tables.figure(10.0, 1) == "10.0"
    assert segmentation_tables.over_seeds([0.8, 0.84], 2) == ".82 ± .03"
    assert segmentation_tables.over_seeds([0.8, None]) == "–" == segmentation_tables.over_seeds([])
    assert segmentation_tables.spread([[0.1, 0.3], [0.5], [0.2, 0.2, 0.2]]) == pytest.approx((0.02 / 3) ** 0.5)
    assert segmentation_tables.spread([[0.1]]) is None


def test_verdicts_are_counted_and_those_within_the_spread_marked():
    found = [
        Direction("a", "+.1", "+.2", True),
        Direction("b", "+.1", "−.2", False, True),
        Direction("c", "", "–", None),
    ]
    text = segmentation_tables.directions(found)
    assert text.startswith("1 of 2 directions that were measured reproduced; 1 of these verdicts rest on less")
    assert line_of(text, "a").endswith("| yes |") and line_of(text, "c").endswith("| not measured |")
    assert "what another seed changes is not known." in segmentation_tables.directions(found, seeds=False)
    assert line_of(text, "b").endswith("| **no**, within the seeds' spread |")


def test_rows_stand_beside_the_paper_with_their_seeds(tmp_path):
    runs = [semi_run("s-10", 0.6), semi_run("sc-10", 0.7), semi_run("sc-10-81", 0.74, seed=81),
            semi_run("ce-ce", 0.65), semi_run("mil-10", 0.5)]  # fmt: skip
    text = semi_tables.body(runs, tmp_path)
    cost = "| 400 | 80, 81 | 1.2 ± .0 | 3 / 30 |"
    assert (
        line_of(text, "10 %", "S+C") == f"| 10 % | S+C | .831 / .692 | .720 ± .028 | .563 ± .035 | .900 ± .000 {cost}"
    )
    assert line_of(text, "10 %", "S").startswith("| 10 % | S | .728 / .573 | .600 | .429 | .900 | 400 | 80 |")
    assert line_of(text, "5 %", "S").startswith("| 5 % | S | .648 / .480 | – | – | – | – | – | – |")
    assert line_of(text, "3").startswith("| 3 | .8479 / .7360 | .7200 ± .0283 |")
    assert line_of(text, "CE+CE").startswith("| CE+CE | .8411 / .7258 | .6500 |")
    assert line_of(text, "multiple instances: `mil`", "10 %").startswith(
        "| multiple instances: `mil` | 10 % | .712 / .553 | .500 |"
    )
    assert "widths 8-16, 400 steps of 8 pictures of 64 px at ×10" in text and "outlined by hand" in text
    assert "nuclei cover more than 20 %" in text
    # 40 of 100 pixels are nucleus, 7 of 8 pictures of its class.
    assert line_of(text, "all nucleus") == "| all nucleus | .571 | .400 | .875 |"
    assert line_of(text, "no nucleus") == "| no nucleus | .000 | .000 | .125 |"
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.width == 2 * charts.WIDTH


def test_directions_follow_from_the_figures():
    runs = [semi_run("s-10", 0.6), semi_run("sc-10", 0.7), semi_run("s-50", 0.8), semi_run("sc-50", 0.79),
            semi_run("sc-50-81", 0.83, seed=81), semi_run("beta-1", 0.72)]  # fmt: skip
    text = found_directions(None, runs)
    assert line_of(text, "S+C above S where pixel labels are few (up to 20 %)").endswith("| 10 %: +.100 | yes |")
    # One seed against the mean of two, which lie .028 apart.
    assert line_of(text, "S+C above S where they are many (from 50 %)").endswith("| yes, within the seeds' spread |")
    assert line_of(text, "β = 3 is best").endswith(
        "| 3 .8479, 4 .8450, 2 .8437, 1 .8431, 5 .8423, 6 .8419 | 1 .7200, 3 .7000 | **no**, within the seeds' spread |"
    )
    assert "mean gain +.100 up to 20 %, +.010 from 50 % | yes, within the seeds' spread |" in text
    assert line_of(text, "α = 1 is best").endswith("| not measured |")
    assert "S alone has .800 with 50 % of the pixel labels, at least 95 % of its best (.800)" in text
    judge = Judge(runs)
    assert judge.spread == pytest.approx(0.04 / 2**0.5)
    assert not above(judge, "x", [("a", "s-10", "s-50")], "").holds
    assert best(judge, "x", [("3", "sc-10"), ("1", "s-10")], "3", "").holds


def test_without_runs_the_report_says_so(tmp_path):
    file = segmentation_tables.write_report("semi", tmp_path)
    assert "No run was measured." in file.read_text()


def test_marks_are_round_numbers_around_the_values():
    assert charts.marks([0.6, 0.87]) == [0.6, 0.7, 0.8, 0.9]
    assert charts.marks([0.5, 0.5]) == [0.5, 0.5005]
