"""`train.evaluate` on small data: runs, cards and methods; what is refused; what is written."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.drawn_folder import write_folder
from train import evaluate, loop
from train.candidates import open_run, training_time
from train.held_out import ATLAS_SLIDES
from wsi_ml.data.pairs import slide_pairs
from wsi_ml.data.tissue import CODES, TISSUE_SET
from wsi_ml.metrics.image import psnr, ssim
from wsi_ml.models import build
from wsi_ml.sr import open_upscaler

SLIDES = (*ATLAS_SLIDES, "hacettepe-com-case-12", "EAS22", "liver")
SMALL = {"channels": 8, "growth": 4, "blocks": 1}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Two tiles a slide, and patches of glass and stripes from two slides."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    tiles = root / "sr-x40-dev2"
    tiles.mkdir()
    with (tiles / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "repo"])
        for slide in SLIDES:
            for number in range(2):
                small = rng.integers(60, 240, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(tiles / f"{slide}{number}.png")
                writer.writerow([f"{slide}{number}.png", f"atlas/{slide}"])
    patches = root / TISSUE_SET
    patches.mkdir()
    stripes = np.repeat(np.tile((np.arange(224) // 8 % 2 * 120 + 60).astype(np.uint8), (224, 1))[..., None], 3, axis=2)
    with (patches / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "repo", "slide", "x", "y", "side_px_level0"])
        for code, rgb in (("BG", np.full((224, 224, 3), 240, np.uint8)), ("MUS", stripes)):
            for number in range(5):
                Image.fromarray(rgb).save(patches / f"{code}{number}.png")
                slide = "duodenum-tubular-adenoma" if number == 4 else "one"
                writer.writerow([f"{code}{number}.png", code, f"atlas/{slide}", "HE", 448 * number, 0, 448])
    return root


def write_run(folder, architecture="sr-joint", script="joint", told=6, **changed):
    """A run as the scripts leave it, with a network of random weights that tells so many classes."""
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    config = {**SMALL, **({"classes": told} if architecture == "sr-joint" else {})}
    model = build(architecture, **config)
    optimizer = torch.optim.Adam(model.parameters())
    loop.save_state(folder, 7, {}, model, loop.Average(model, 0.9), optimizer)
    facts = {
        "script": script, "architecture": architecture, "config": config, "classes": list(CODES),
        "weights": "average", "normalise": "", "input": "stored", "seed": 3, "row": architecture,
        "held_out": [*ATLAS_SLIDES, "duodenum-tubular-adenoma"], **changed,
    }  # fmt: skip
    (folder / "network.json").write_text(json.dumps(facts))
    return model.eval()


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run_main(data_root, output, *arguments):
    return evaluate.main([*map(str, arguments), "--data", str(data_root), "--output", str(output), "--threads", "1"])


def results(output):
    return json.loads((output / "results.json").read_text())


def test_bicubic_is_measured_in_the_paper_s_definition(data_root, tmp_path, capsys):
    assert run_main(data_root, tmp_path, "--card", "bicubic") == 0
    written = results(tmp_path)
    (row,) = written["sr"]
    assert [each["slide"] for each in row["slides"]] == list(ATLAS_SLIDES)
    bicubic = open_upscaler("bicubic")
    pairs = [pair for slide in ATLAS_SLIDES for pair in slide_pairs(data_root, slide)]
    assert row["mean"]["pictures"] == 6
    assert row["mean"]["model"]["psnr"] == pytest.approx(np.mean([psnr(bicubic(a), b) for a, b in pairs]), abs=1e-5)
    assert row["mean"]["model"]["ssim"] == pytest.approx(np.mean([ssim(bicubic(a), b) for a, b in pairs]), abs=1e-5)
    assert row["mean"]["model"] == row["mean"]["bicubic"]
    with Image.open(tmp_path / row["picture"]) as picture:
        assert picture.size[0] > 1300
    report = (tmp_path / "README.md").read_text()
    assert report == capsys.readouterr().out and "steps 5/7 4:4:4" in report and str(data_root) not in report


def test_a_joint_run_gives_both_branches(data_root, tmp_path):
    model = write_run(tmp_path / "runs" / "joint")
    (tmp_path / "runs" / "joint" / "journal.jsonl").write_text(
        '{"event": "start", "time": 100, "hardware": "2 cores"}\n{"step": 7, "time": 220}\n'
    )
    assert run_main(data_root, tmp_path / "out", "--run", tmp_path / "runs" / "joint", "--tiles", 1) == 0
    written = results(tmp_path / "out")
    facts = written["model"]
    assert (facts["row"], facts["steps"], facts["seed"], facts["minutes"]) == ("sr-joint", 7, 3, 2.0)
    assert facts["hardware"] == "2 cores" and written["left_out"] == []
    assert "--run joint" in written["command"]

    stored, base = slide_pairs(data_root, "BS12", 1)[0]
    with torch.inference_mode():
        made = model(torch.from_numpy(stored).permute(2, 0, 1)[None] / 255, "sr")[0].permute(1, 2, 0)
    made = made.mul(255).round().clamp(0, 255).byte().numpy()
    assert written["sr"][0]["slides"][0]["model"]["psnr"] == pytest.approx(psnr(made, base), abs=0.01)

    by_slide, by_place = written["classification"]
    assert (by_slide["patches"], by_place["patches"]) == (2, 2)
    told = [sum(column) for column in zip(*by_slide["confusion"]["rows"], strict=True)]
    assert sum(told) == 2 and by_slide["recall"]["GLA"] is None
    for file in by_slide["pictures"].values():
        assert (tmp_path / "out" / file).is_file()


def test_sets_that_were_trained_on_are_left_out_or_refused(data_root, tmp_path, capsys):
    write_run(tmp_path / "joint", held_out=[*ATLAS_SLIDES])
    assert run_main(data_root, tmp_path / "out", "--run", tmp_path / "joint", "--tiles", 1) == 0
    written = results(tmp_path / "out")
    assert [each["set"] for each in written["classification"]] == ["tissue-weak, place"]
    assert "joint was trained on duodenum-tubular-adenoma" in written["left_out"][0]
    capsys.readouterr()
    assert run_main(data_root, tmp_path / "no", "--run", tmp_path / "joint", "--slides", "liver") == 2
    assert capsys.readouterr().err.startswith("joint was trained on liver; name slides")
    assert not (tmp_path / "no" / "results.json").exists()


def test_a_generator_and_a_classifier_run_fill_their_own_rows(tmp_path):
    write_run(tmp_path / "gan", "sr-gan-generator", "sr_gan", classes=[])
    gan = open_run(tmp_path / "gan", torch.device("cpu"))
    assert gan.tell is None and gan.upscale(np.zeros((5, 6, 3), np.uint8)).shape == (10, 12, 3)
    write_run(tmp_path / "classes", script="classifier", row="sr-joint")
    classes = open_run(tmp_path / "classes", torch.device("cpu"))
    assert classes.upscale is None and classes.row == "sr-joint-classes"
    shares = classes.told(np.zeros((3, 32, 32, 3), np.uint8))
    assert shares.shape == (3, 6) and shares.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_the_best_linear_filter_is_fitted_without_the_held_out_slides(data_root, tmp_path):
    assert run_main(data_root, tmp_path, "--card", "linear", "--tiles", 1) == 0
    written = results(tmp_path)
    assert written["model"]["pictures"] == 1 and written["model"]["parameters"] == 12 * 244


def test_a_shipped_classifier_is_measured_on_single_patches(data_root, tmp_path):
    assert run_main(data_root, tmp_path, "--card", "tissue-fast") == 0
    written = results(tmp_path)
    assert written["sr"] == [] and [each["patches"] for each in written["classification"]] == [2, 2]
    assert written["classification"][0]["confusion"]["classes"] == list(CODES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--run", "nowhere"], "nowhere is no run of train.sr_gan, train.joint or train.classifier"),
        (["--card", "no-such-model"], "no-such-model"),
        (["--card", "nowhere/card.json"], "There is no card nowhere/card.json."),
        (["--card", "nuclei-fast"], "nuclei-fast is of kind instance; train.evaluate measures kind patch."),
        (["--card", "bicubic", "--slides", "spleen"], "The tile sets hold no slide spleen; they hold BS12"),
        (["--card", "bicubic", "--source", "moon"], "There is no source 'moon'"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(data_root, tmp_path, capsys, arguments, sentence):
    assert run_main(data_root, tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_a_run_whose_network_does_not_fit_is_named(data_root, tmp_path, capsys):
    write_run(tmp_path / "odd", config={**SMALL, "classes": 5})
    assert run_main(data_root, tmp_path / "out", "--run", tmp_path / "odd") == 2
    error = capsys.readouterr().err
    assert error.startswith("The state of odd does not fit its network.json: size mismatch for fc.weight")
    assert error.count("\n") == 1
    (tmp_path / "odd" / "network.json").write_text('{"script": "joint"}')
    assert run_main(data_root, tmp_path / "out", "--run", tmp_path / "odd") == 2
    assert "network.json of odd has no architecture, config" in capsys.readouterr().err


def test_a_classifier_of_x40_pixels_needs_them(data_root, tmp_path, capsys):
    write_run(tmp_path / "fine", script="classifier", input="base")
    assert run_main(data_root, tmp_path / "out", "--run", tmp_path / "fine") == 2
    assert "fine tells classes from ×40 pixels; tissue-weak, slide has none." in capsys.readouterr().err


def test_another_source_is_classified_whole_and_enlarged_in_part(tmp_path):
    """A folder as PATH-DT-MSU: its test slide's dense grid, and some pairs of each class but one."""
    write_run(tmp_path / "joint", told=3, classes=["AT", "LP", "TUM"])
    folder = write_folder(tmp_path / "msu")
    options = ["--source", "msu", "--sr-per-class", 1, "--sr-without", "TUM"]
    assert run_main(folder, tmp_path / "out", "--run", tmp_path / "joint", *options) == 0
    written = results(tmp_path / "out")
    (pairs,), (patches,) = written["sr"], written["classification"]
    assert [(each["slide"], each["pictures"]) for each in pairs["slides"]] == [("AT", 1), ("LP", 1)]
    assert [sum(row) for row in patches["confusion"]["rows"]] == [1, 1, 2] and patches["patches"] == 4
    assert "## Classes: msu" in (tmp_path / "out" / "README.md").read_text()


def test_minutes_are_those_of_all_stretches_of_a_run(tmp_path):
    lines = [
        {"event": "start", "time": 0, "hardware": "old"}, {"time": 60}, {"time": 120},
        {"event": "start", "time": 9000, "hardware": "new"}, {"time": 9060},
    ]  # fmt: skip
    (tmp_path / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert training_time(tmp_path) == {"minutes": 3.0, "hardware": "new"}
    assert training_time(tmp_path / "nowhere") == {}
