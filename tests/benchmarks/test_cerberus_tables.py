"""Tables of paper C from a few made-up results: means over sets, rows, directions, what is missing."""

import re

from benchmarks.cerberus_tables import MIXED, PATCH, STL, body, found_directions, score, scores, shrink
from benchmarks.segmentation_tables import RunResult, by_row


def row(task, name, pq, rows=9):
    return {"task": task, "set": name, "truth": "exact", "rows": rows, "objects": 40, "pq": pq, "dq": pq, "sq": 0.8,
            "aji": pq, "dice": 0.9, "windows": [1, 2]}  # fmt: skip


def run(name, seed, tasks, rows):
    results = {
        "run": name, "tasks": tasks, "width": 12, "blocks": [1, 1, 1, 1], "target": "plus", "batch": 4, "side": 192,
        "patch_side": 96, "scenes": 2, "scene_parts": 5, "window": [576, 512], "rows": rows,
    }  # fmt: skip
    facts = {"seed": seed, "steps": 240, "minutes": 3.0, "hardware": "a core", "parameters": 1000}
    return RunResult("cerberus_tasks", name, facts, shrink(results))


def of_all(name, seed, gland, lumen):
    return run(f"{name}-{seed}", seed, ["gland", "lumen", "nuclei"], [
        row("gland", "drawn scene", gland), row("lumen", "drawn scene", lumen),
        row("nuclei", "dsb2018 test: a", 0.5, 1), row("nuclei", "dsb2018 test: b", 0.8, 2),
    ])  # fmt: skip


def test_clusters_count_by_their_pictures_and_seeds_are_kept_apart():
    runs = [of_all("all-mixed", 80, 0.5, 0.3), of_all("all-mixed", 81, 0.7, 0.3)]
    assert score(runs[0], "nuclei", "dsb2018 test", "pq") == (0.5 + 2 * 0.8) / 3
    assert score(runs[0], "nuclei", "MoNuSeg", "pq") is None
    assert scores(MIXED, "gland", "drawn scene", "pq", by_row(runs)) == [0.5, 0.7]
    assert scores(STL, "gland", "drawn scene", "pq", by_row(runs)) == []
    assert "windows" not in runs[0].results["rows"][0]


def test_directions_are_computed():
    rows = by_row([
        run("gland-80", 80, ["gland"], [row("gland", "drawn scene", 0.5)]),
        run("lumen-80", 80, ["lumen"], [row("lumen", "drawn scene", 0.2)]),
        of_all("all-mixed", 80, 0.6, 0.15), of_all("all-patch", 80, 0.55, 0.4),
    ])  # fmt: skip
    found = {each.words: each for each in found_directions(rows)}
    assert found[f"gland: {MIXED} beats {STL}"].holds and found[f"gland: {MIXED} beats {STL}"].paper == ".566 → .617"
    assert found[f"lumen: {MIXED} beats {STL}"].holds is False
    assert found[f"lumen: {PATCH} beats {MIXED}"].ours == ".150 → .400"
    assert found["multi-task learning helps lumina more than glands"].holds is False
    fixed = [each for each in found.values() if "fixed" in each.words]
    assert len(fixed) == 2 and all(each.holds is None for each in fixed)
    assert all(each.paper == "said without a figure" for each in fixed)


def test_the_page_has_the_papers_figures_beside_ours(tmp_path):
    heads = run("types-80", 80, ["nuclei_type"], [
        {"task": "nuclei_type", "set": "drawn scene", "truth": "exact", "rows": 9, "objects": 40, "mpq": 0.41,
         "mpq_plus": 0.42, "f1": 0.9, "f1/Lymphocyte": 0.7},
    ])  # fmt: skip
    patch = run("patch-80", 80, ["patch"], [
        {"task": "patch", "set": "tissue-weak by place", "truth": "weak", "rows": 5, "map": 0.61, "macro_f1": 0.5,
         "balanced_accuracy": 0.55},
    ])  # fmt: skip
    teacher = run("teacher-gland-80", 80, ["gland"], [row("gland", "folder teacher-folder, test", 0.31)])
    both = [of_all("all-patch", seed, gland, 0.5) for seed, gland in ((80, 0.6), (81, 0.7))]
    text = body([*both, heads, patch, teacher], tmp_path)
    assert re.search(r"\| STL \| \.566 \| \.313 \| – \|", text)
    assert re.search(r"\| MTL, mixed \+ patch task \| \.640 \| \.525 \| \.650 ± \.071 \| \.500 ± \.000 \| \.700", text)
    assert ".568 ± .009" in text and "| .410 | .420 |" in text and "F1 Lymphocyte .700" in text
    assert "| STL | tissue-weak by place | .610 | .550 | .500 |" in text
    assert "| gland alone | gland | .310 | .310 | .800 | .310 | .900 | 240 | 80 | 3.0 |" in text
    assert "agreement with a model, not accuracy" in text
    assert "not comparable" in text and "width 12 (paper: 64)" in text and "| Cerberus+ | .674 ± .021 |" in text


def test_a_page_without_runs_has_the_papers_figures_alone(tmp_path):
    text = body([], tmp_path)
    assert ".617" in text and "No run was measured." in text and "not measured" in text
