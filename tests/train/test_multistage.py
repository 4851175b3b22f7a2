"""Paper D's stages on drawn slides: each starts from the one before; frozen parts, resume, gradients, refusals."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.data.drawn_slides import COLOURS, drawn_slide
from train import evaluate_multistage, loop, multistage, script, slide_steps
from train.config import read_config
from train.script import Run
from train.slide_scoring import heat_picture, scores_of, tell_patches, tell_pictures, tell_rows, tell_slide
from train.slide_setup import RECIPES, Config, checksum, read_networks, settled, without_classes
from wsi_ml.data import heatmaps
from wsi_ml.data.heatmaps import read_heatmap
from wsi_ml.data.patch_grid import NOLABEL, TUMOUR
from wsi_ml.data.patch_slide_batches import MiddleRows
from wsi_ml.data.slide_maps import ENDING, SlideFeatures, read_features
from wsi_ml.models import googlenet
from wsi_ml.models.feature_unet import TakahamaUnet, TakahamaUnetConfig
from wsi_ml.models.googlenet import Branches, TakahamaExtractor, TakahamaExtractorConfig

HERE = loop.Ranks(0, 1, 0)
SIDE, PATCHES = 160, 20
PUBLISHED = googlenet.MODULES
THIN = {
    name: Branches(16 if number else 192, 4, 4, 4, 4, 4, 4) for number, name in enumerate(googlenet.MODULES)
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small():
    """A thin trunk and three slides of twenty patches: the wiring is what is tested."""
    slides = [drawn_slide(name, SIDE) for name in "abc"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(googlenet, "MODULES", THIN)
        patch.setattr(googlenet, "POOLED", 16)
        for module in (multistage, evaluate_multistage):
            patch.setattr(module, "open_slides", lambda config: slides)
        yield slides


def settings(**more):
    values = {
        "preset": "tiny", "validation": "b", "test": "c", "threads": 1, "device": "cpu", "precision": "fp32",
        "log_every": 1, "validate_every": 2, "save_every": 2, "validation_patches": 8, "batch": 4, "steps": 4,
        "chunk": 8,
    } | more  # fmt: skip
    return [f"--set={name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All stages, once."""
    root = tmp_path_factory.mktemp("runs")
    more = {
        "extractor": {},
        "features": {"extractor": root / "extractor"},
        "segmentation": {"maps": root / "features", "batch": 1},
        "end-to-end": {"extractor": root / "extractor", "segmentation": root / "segmentation", "rate": 1e-3},
        "picture": {"batch": 1, "shrink": 32},
    }
    for stage, keys in more.items():
        assert multistage.main(settings(stage=stage, run=root / stage, **keys)) == 0, stage
    return root


def lines_of(folder):
    return [json.loads(line) for line in (folder / loop.JOURNAL_FILE).read_text().splitlines()]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, HERE, torch.device("cpu"), False)


def test_each_stage_leaves_a_journal_scores_and_its_networks(runs):
    for stage in ("extractor", "segmentation", "end-to-end", "picture"):
        lines = lines_of(runs / stage)
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
        assert [line["step"] for line in lines if "average_precision" in line] == [2, 4]
        facts = json.loads((runs / stage / script.NETWORK_FILE).read_text())
        assert facts["held_out"] == ["b", "c"] and facts["classes"] == ["Normal", "Tumour"]
    assert (runs / "end-to-end" / "pictures" / "000004.png").is_file()
    assert lines_of(runs / "extractor")[0]["slides"] == {"training": ["a"], "validation": ["b"], "test": ["c"]}


def test_features_are_those_of_the_frozen_extractor(runs, small, run):
    found = {name: read_features(runs / "features" / "features" / f"{name}{ENDING}") for name in "abc"}
    networks = read_networks(runs / "extractor", ("extractor",))
    bare = without_classes(networks.extractor).eval()
    assert bare.fc is None
    assert np.array_equal(tell_slide(bare, small[1], 32, 8, False, run), found["b"].features)
    # Whatever is computed at once, a patch's features are its own.
    assert np.allclose(tell_slide(bare, small[1], 32, 7, False, run), found["b"].features, atol=1e-5)
    assert np.array_equal(found["a"].cells, small[0].cells) and found["a"].features.shape == (PATCHES, 16)


def test_features_of_imagenets_trunk_come_from_a_file_alone(runs, small, tmp_path, run):
    torch.manual_seed(9)
    published = TakahamaExtractor(TakahamaExtractorConfig())
    tensors = {name: each for name, each in published.state_dict().items() if not name.startswith(("features", "fc"))}
    save_file(
        {**tensors, "fc.weight": torch.zeros(1000, 1024), "fc.bias": torch.zeros(1000)}, tmp_path / "g.safetensors"
    )
    keys = settings(stage="features", run=tmp_path / "maps", start=tmp_path / "g.safetensors", features_of="trunk")
    assert multistage.main(keys) == 0
    found = read_features(tmp_path / "maps" / "features" / f"a{ENDING}")
    # Weights of ImageNet want its mean and deviation.
    wanted = tell_slide(published.eval(), small[0], 32, 8, True, run, features_of="trunk")
    assert np.allclose(found.features, wanted, atol=1e-5) and found.features.shape == (PATCHES, googlenet.POOLED)
    assert multistage.main(settings(stage="segmentation", run=tmp_path / "s", maps=tmp_path / "maps", steps=2)) == 0
    assert read_networks(tmp_path / "s", ("segmentation",)).segmentation.config.features == googlenet.POOLED


def test_a_run_of_features_holds_the_extractor_that_made_them(runs):
    kept = read_networks(runs / "features", ("features",))
    found = read_features(runs / "features" / "features" / f"a{ENDING}")
    assert kept.extractor.fc is None and found.made_by.split()[0] == checksum(kept.extractor)


def test_a_random_trunk_takes_the_place_of_imagenets_and_is_the_seeds_alone(small, tmp_path):
    for name, seed in (("one", 80), ("same", 80), ("other", 81)):
        keys = settings(stage="features", run=tmp_path / name, start="random", features_of="trunk", seed=seed)
        assert multistage.main(keys) == 0
    one, same, other = (read_features(tmp_path / name / "features" / f"a{ENDING}") for name in ("one", "same", "other"))
    assert np.array_equal(one.features, same.features) and not np.array_equal(one.features, other.features)
    assert json.loads((tmp_path / "one" / script.NETWORK_FILE).read_text())["normalise"] == ""


def test_a_picture_tells_what_its_own_patches_show(runs, small, run):
    networks = read_networks(runs / "picture", ("picture",))
    told = tell_pictures(networks.segmentation.eval(), small[2], 32, "slide", 32, run)
    assert told.shape == (PATCHES,) and ((told > 0) & (told < 1)).all()
    results = lines_of(runs / "picture")
    assert results[0]["pictures"] == 1 and results[0]["config"]["batch"] == 1


def test_features_at_hand_are_kept_and_those_of_another_extractor_made_anew(runs, tmp_path):
    folder = tmp_path / "maps"
    shutil.copytree(runs / "features", folder)
    keys = settings(stage="features", run=folder, extractor=runs / "extractor")
    (folder / "features" / f"a{ENDING}").unlink()
    before = (folder / "features" / f"b{ENDING}").stat().st_mtime_ns
    assert multistage.main([*keys, "--resume"]) == 0
    assert (folder / "features" / f"b{ENDING}").stat().st_mtime_ns == before
    assert (folder / "features" / f"a{ENDING}").is_file()
    assert multistage.main([*settings(stage="features", run=folder, extractor=runs / "end-to-end"), "--resume"]) == 0
    assert (folder / "features" / f"b{ENDING}").stat().st_mtime_ns != before


def test_end_to_end_starts_from_both_runs_and_changes_both_but_no_average_of_batch_norm(runs):
    start = read_networks(runs / "extractor", ("extractor",)).extractor.state_dict()
    whole = read_networks(runs / "end-to-end", ("end-to-end",))
    for name, tensor in whole.extractor.state_dict().items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(tensor, start[name]), name
    changed = whole.extractor.state_dict()["features.weight"]
    assert not torch.equal(changed, start["features.weight"]) and torch.allclose(
        changed, start["features.weight"], atol=0.05
    )
    before = read_networks(runs / "segmentation", ("segmentation",)).segmentation.state_dict()
    after = whole.segmentation.state_dict()
    assert not torch.equal(after["told.weight"], before["told.weight"])
    assert torch.allclose(after["told.weight"], before["told.weight"], atol=1e-2)


def test_end_to_end_without_learning_tells_what_separate_learning_told(runs, tmp_path):
    keys = {"extractor": runs / "extractor", "segmentation": runs / "segmentation", "rate": 1e-14}
    common = settings(stage="end-to-end", run=tmp_path, segmentation_rate=1e-14, steps=1, validate_every=1, **keys)
    assert multistage.main(common) == 0
    separate, whole = lines_of(runs / "segmentation")[-1], lines_of(tmp_path)[-1]
    for name in ("accuracy", "average_precision", "pr_trapezoid"):
        assert whole[name] == separate[name], name


def networks_in_double():
    torch.manual_seed(3)
    extractor = TakahamaExtractor(TakahamaExtractorConfig(classes=0)).double().eval()
    return extractor, TakahamaUnet(TakahamaUnetConfig(base=4)).double()


def gradients(*models):
    return torch.cat([each.grad.flatten() for model in models for each in model.parameters()])


@pytest.mark.parametrize("maps_of", ["lump"])
@pytest.mark.parametrize("chunk", [3, PATCHES])
def test_gradients_of_a_slide_equal_those_of_one_whole_pass(small, run, monkeypatch, chunk, maps_of):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # as_rgb and the loss in double precision
    slide = small[0]
    config = Config(stage="end-to-end", crop=32, chunk=chunk, map_side=16)
    maps = slide_steps.empty_maps(slide, 16, maps_of)
    extractor, segmentation = networks_in_double()
    loss = slide_steps.slide_step(slide, maps, extractor, segmentation, config, False, (5, 2), run)
    split = gradients(extractor, segmentation)
    extractor, segmentation = networks_in_double()
    rgb = torch.from_numpy(slide_steps.read_chunk(slide, range(PATCHES), 32, (5, 2)))
    whole = slide_steps.slide_loss(extractor(slide_steps.prepared(rgb, False)), maps, segmentation, run)
    whole.backward()
    assert loss == pytest.approx(whole.item(), rel=1e-12)
    assert float((split - gradients(extractor, segmentation)).abs().max()) <= 1e-12
    assert float(split.abs().max()) > 1e-3


@pytest.mark.parametrize("stage", ["segmentation", "end-to-end", "picture"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(runs, tmp_path, monkeypatch, stage):
    keys = {"extractor": runs / "extractor", "segmentation": runs / "segmentation", "rate": 1e-3}
    if stage != "end-to-end":
        keys = {"maps": runs / "features", "batch": 1, "shrink": 32}
    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_then_die(*args):
        saved(*args)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_then_die)
    with pytest.raises(Killed):
        multistage.main(settings(stage=stage, run=tmp_path / "cut", **keys))
    monkeypatch.setattr(loop, "save_state", saved)
    assert loop.read_state(tmp_path / "cut")[0] == 2
    assert multistage.main([*settings(stage=stage, run=tmp_path / "cut", **keys), "--resume"]) == 0
    whole, cut = (loop.read_state(folder)[2] for folder in (runs / stage, tmp_path / "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    assert any(name.startswith("beside.optimizer") for name in whole) == (stage == "end-to-end")


def test_patches_beyond_the_map_are_not_told(small, run):
    cells = np.array([[0, column] for column in range(20)])
    found = SlideFeatures("s", np.ones((20, 16), np.float32), cells, np.zeros(20, np.int64), "")
    told = tell_patches(TakahamaUnet(TakahamaUnetConfig(base=4)).eval(), found, 16, "slide", run)
    assert np.isnan(told).tolist() == [True] * 2 + [False] * 16 + [True] * 2
    scores = scores_of(told, found.labels)
    assert scores["patches"] == 16 and scores["not_told"] == 4 and scores["average_precision"] is None


def test_scores_and_picture_by_hand(runs, small, run):
    cells, labels = np.array([[3, 1], [3, 2], [4, 1]]), np.array([1, 0, NOLABEL])
    told = np.array([1.0, 0.0, np.nan], np.float32)
    assert scores_of(told, labels)["accuracy"] == scores_of(told, labels)["average_precision"] == 1
    picture = heat_picture(cells, labels, told)
    assert picture.shape == (2 * 8, 5 * 8, 3)
    assert picture[0, 0].tolist() == picture[0, 24].tolist() == [220, 50, 50] and picture[8, 0].tolist() == [96] * 3
    networks = read_networks(runs / "extractor", ("extractor",))
    rows = MiddleRows(small[1:2], 8, 32)
    probability, truth = tell_rows(networks.extractor.eval(), rows, False, run)
    assert probability.shape == truth.shape == (PATCHES,) and 0 <= probability.min() <= probability.max() <= 1


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("extractor", "classifier only"),
        ("segmentation", "separate"),
        ("end-to-end", "end-to-end"),
        ("picture", "segmentation only"),
    ],
)
def test_a_run_is_judged_on_its_held_out_slide_and_gives_heatmaps(runs, small, tmp_path, stage, row):
    arguments = ["--run", str(runs / stage), "--output", str(tmp_path / "out"), "--threads", "1", "--device", "cpu"]
    assert evaluate_multistage.main([*arguments, "--heatmaps", str(tmp_path / "heat")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["run"]["row"] == row and [each["slide"] for each in results["slides"]] == ["c"]
    assert results["pooled"]["patches"] + results["pooled"]["not_told"] == PATCHES
    heat = read_heatmap(tmp_path / "heat" / f"c{heatmaps.ENDING}")
    scores = scores_of(heat.probability, small[2].labels)
    assert scores["average_precision"] == results["pooled"]["average_precision"]
    assert heat.cell_mm == pytest.approx(SIDE * 0.5 / 1000) and len(list((tmp_path / "heat").iterdir())) == 3
    report = (tmp_path / "out" / "README.md").read_text()
    assert evaluate_multistage.PAPER[row][0] in report and str(tmp_path) not in report
    assert (tmp_path / "out" / "slide-0.png").is_file()


def test_runs_without_slides_to_judge_are_refused(runs, tmp_path, capsys):
    arguments = ["--run", str(runs / "features"), "--output", str(tmp_path / "out")]
    assert evaluate_multistage.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_papers_numbers():
    for preset, balance, side, epochs in (("paper", "no", 32, 10), ("camelyon", "yes", 512, 5)):
        config = settled(Config(preset=preset), HERE)
        assert (config.batch, config.rate, config.epochs) == (128, 1e-4, 30)
        assert (config.patch_side, config.crop, config.map_side, config.balance) == (256, 224, side, balance)
        config = settled(Config(preset=preset, stage="segmentation"), HERE)
        assert (config.batch, config.rate, config.rate_end, config.epochs, config.base) == (32, 1e-4, 1e-4, 50, 64)
        config = settled(Config(preset=preset, stage="end-to-end"), HERE)
        assert (config.batch, config.rate, config.segmentation_rate, config.epochs) == (1, 1e-9, 1e-7, epochs)
    assert RECIPES["paper"].maps_of == "lump" and RECIPES["camelyon"].maps_of == "slide"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("stage=all", "'all' is none of extractor"), ("map_side=20", "multiple of 16"), ("crop=192", "192 px cannot be"),
     ("validation=z", "not there: z"), ("tissue_share=1", "between 0 and 1"), ("batch=3", "no multiple"),
     ("stage=features", "needs the key extractor"), ("stage=segmentation", "needs the key maps"),
     ("stage=end-to-end", "needs the key extractor")],
)  # fmt: skip
def test_a_wrong_setting_ends_with_one_sentence_naming_it(tmp_path, capsys, wrong, word):
    accumulate = "accumulate=2" if wrong == "batch=3" else "accumulate=1"
    assert multistage.main([*settings(run=tmp_path), f"--set={accumulate}", f"--set={wrong}"]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count("\n") == 1


def test_runs_of_other_stages_are_refused(runs, tmp_path, capsys):
    assert multistage.main(settings(stage="features", run=tmp_path, extractor=runs / "segmentation")) == 2
    assert "segmentation is a run of segmentation" in capsys.readouterr().err
    assert multistage.main(settings(stage="features", run=tmp_path, extractor=tmp_path)) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert multistage.main(settings(stage="segmentation", run=tmp_path, maps=runs / "extractor")) == 2
    assert "holds no features" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["multistage_tiny", "multistage_paper"])
def test_the_recipes_name_only_keys_that_exist(name):
    assert read_config(Config, multistage.CONFIGS / f"{name}.toml", []).stage == "extractor"


def deceiving(slide):
    """The slide with a quarter of its patches looking like the other class."""
    rng = np.random.default_rng(ord(slide.name))
    for (row, column), label in zip(slide.cells.tolist(), slide.labels.tolist(), strict=True):
        if rng.random() < 0.25:
            area = slide.pixels.rgb[row * slide.side : (row + 1) * slide.side, column * slide.side :][:, : slide.side]
            colour = np.array(COLOURS["normal" if label == TUMOUR else "tumour"])
            area[:] = np.clip(colour + rng.integers(-18, 19, (slide.side, slide.side, 1)), 0, 255)
    return slide


@pytest.mark.slow
def test_all_stages_learn_a_drawn_tumour_and_surroundings_help(tmp_path, monkeypatch):
    """The real networks on a slide they never saw: what a quarter of the patches belies, the map knows."""
    monkeypatch.setattr(googlenet, "MODULES", PUBLISHED)
    monkeypatch.setattr(googlenet, "POOLED", 1024)
    slides = [deceiving(drawn_slide(name)) for name in "abcd"]
    for module in (multistage, evaluate_multistage):
        monkeypatch.setattr(module, "open_slides", lambda config: slides)
    keys = {
        "extractor": {"steps": 80, "batch": 8},
        "features": {"extractor": tmp_path / "extractor"},
        "segmentation": {"maps": tmp_path / "features", "steps": 40, "batch": 2},
        "end-to-end": {"extractor": tmp_path / "extractor", "segmentation": tmp_path / "segmentation", "steps": 2},
    }
    common = {"validation": "c", "test": "d", "log_every": 20, "validate_every": 40, "chunk": 80}
    area = {}
    for stage, more in keys.items():
        run = tmp_path / stage
        assert multistage.main(settings(**{**common, "stage": stage, "run": run, **more})) == 0
        if stage != "features":
            arguments = ["--run", str(run), "--output", str(run / "out"), "--device", "cpu", "--threads", "1"]
            assert evaluate_multistage.main(arguments) == 0
            area[stage] = json.loads((run / "out" / "results.json").read_text())["pooled"]["average_precision"]
    assert area["extractor"] > 0.4  # chance is 0.22
    assert min(area["segmentation"], area["end-to-end"]) > area["extractor"] + 0.1


@pytest.mark.slow
def test_a_small_picture_is_enough_where_colour_tells(tmp_path, monkeypatch):
    slides = [drawn_slide(name) for name in "abcd"]
    for module in (multistage, evaluate_multistage):
        monkeypatch.setattr(module, "open_slides", lambda config: slides)
    run, more = tmp_path / "picture", {"validation": "c", "test": "d", "log_every": 20, "validate_every": 40}
    assert multistage.main(settings(stage="picture", run=run, steps=120, batch=1, rate=1e-3, **more)) == 0
    arguments = ["--run", str(run), "--output", str(run / "out"), "--device", "cpu", "--threads", "1"]
    assert evaluate_multistage.main(arguments) == 0
    scores = json.loads((run / "out" / "results.json").read_text())["pooled"]
    assert scores["average_precision"] > 0.9 and scores["accuracy"] > 0.9
