"""Batches that mix tasks: who comes when, targets after the variation, any subset of tasks, what is refused."""

from collections import Counter

import numpy as np
import pytest

from tests.data.task_circles import circles_picture, flat_patches
from wsi_ml.data.instance_targets import contour_target, interior_target, weight_map
from wsi_ml.data.nuclei import NucleiPicture
from wsi_ml.data.task_augment import cut_square, draw_affine, vary_pixels
from wsi_ml.data.task_batches import TaskBatches, TaskBatchSettings, dense_row, disc_side, middle
from wsi_ml.data.task_pictures import TaskPicture, at_diameter, drawn_pictures, hand_pictures, research_pictures
from wsi_ml.errors import BadRequestError

TASKS = ("gland", "lumen", "nuclei")
SMALL = {"side": 48, "patch_side": 32}


def source(tasks=TASKS, patches=6, counts=(5, 3, 2), seed=7, **settings):
    pictures = {
        task: [circles_picture(task, number) for number in range(count)]
        for task, count in zip(TASKS, counts, strict=True)
        if task in tasks
    }
    values = TaskBatchSettings(**{"batch": 6, **SMALL, **settings})
    return TaskBatches(pictures, flat_patches(patches), ("a", "b", "c"), values, seed)


def test_a_batch_has_the_form_of_its_kind_and_is_a_function_of_its_number():
    batches = source()
    kinds = set()
    for index in range(8):
        batch, again = batches.batch(index), source().batch(index)
        assert all(np.array_equal(one, two) for one, two in zip(batch, again, strict=True))
        patches = bool((batch.task == 3).all())
        side = 32 if patches else 48
        kinds.add(patches)
        assert batch.rgb.shape == (6, side, side, 3) and batch.rgb.dtype == np.uint8
        assert batch.target.shape == batch.types.shape == batch.weights.shape == (6, side, side)
        assert (batch.target.dtype, batch.weights.dtype) == (np.uint8, np.float32)
        assert ((batch.labels >= 0) == patches).all() and (patches or (batch.task < 3).all())
    assert kinds == {True, False}
    assert not np.array_equal(batches.batch(1).rgb, source(seed=8).batch(1).rgb)


def test_the_papers_sampler_has_its_chances():
    batches = source()
    turns = [batches.turns(index) for index in range(2000)]
    patches = sum(rows[0].task == 3 for rows in turns)
    assert all(len({row.task == 3 for row in rows}) == 1 for rows in turns)
    assert patches / 2000 == pytest.approx(0.3, abs=0.03)  # 3 standard deviations
    counts = Counter(row.task for rows in turns if rows[0].task != 3 for row in rows)
    shares = np.array([counts[task] for task in range(3)]) / sum(counts.values())
    assert shares == pytest.approx([1 / 3] * 3, abs=0.016)
    mixed = [len({row.task for row in rows}) > 1 for rows in turns if rows[0].task != 3]
    assert np.mean(mixed) > 0.98
    items = Counter(row.item for rows in turns for row in rows if row.task == 0)
    assert set(items) == set(range(5))


def test_fixed_batches_are_of_one_task():
    turns = [source(sampler="fixed").turns(index) for index in range(60)]
    assert all(len({row.task for row in rows}) == 1 for rows in turns)
    assert {rows[0].task for rows in turns} == {0, 1, 2, 3}


def test_the_programs_sampler_takes_turns():
    batches = source(sampler="authors")
    groups = [[batches.turns(4 * group + place) for place in range(4)] for group in range(3)]
    for first, *dense in groups:
        assert {row.task for row in first} == {3}
        assert [row.task for row in dense[0]] == [0, 1, 2, 0, 1, 2]
        # Every row shows every task once, so every task shows as many samples as a batch has rows.
        assert all({rows[place].task for rows in dense} == {0, 1, 2} for place in range(6))
    # The samples of a task in order: none comes again before all have come; a smaller set begins anew.
    for task, count in enumerate((5, 3, 2, 6)):
        seen = [row.item for group in groups for rows in group for row in rows if row.task == task]
        turns = Counter(seen)
        assert len(seen) == 18 and len(turns) == count and max(turns.values()) - min(turns.values()) <= 1
    nuclei = Counter(row.item for rows in groups[0] for row in rows if row.task == 2)
    assert nuclei == {0: 3, 1: 3}
    assert Counter(row.item for row in groups[0][0]) == dict.fromkeys(range(6), 1)
    assert len(batches) == 4 * 1 and len(source(sampler="authors", counts=(13, 3, 2))) == 4 * 3


@pytest.mark.parametrize("sampler", ["paper", "authors", "fixed"])
@pytest.mark.parametrize(("tasks", "patches"), [(("nuclei",), 0), (("gland", "nuclei"), 0), ((), 4), (("lumen",), 4)])
def test_any_subset_of_tasks(tasks, patches, sampler):
    batches = source(tasks, patches, sampler=sampler)
    assert batches.tasks == (*tasks, *(("patch",) if patches else ()))
    seen = {row.task for index in range(20) for row in batches.turns(index)}
    assert seen == set(range(len(batches.tasks)))
    assert len(batches.batch(0).rgb) == 6 and len(batches) >= 1


@pytest.mark.parametrize(("target", "make"), [("base", interior_target), ("plus", contour_target)])
@pytest.mark.parametrize("task", TASKS)
def test_targets_are_those_of_the_square_that_is_shown(task, target, make):
    picture, side = circles_picture(task, typed=True), disc_side(task)
    settings = TaskBatchSettings(side=64, target=target)
    rgb, made, weights, types, label = dense_row(picture, task, settings, np.random.default_rng(0), vary=False)
    assert np.array_equal(rgb, picture.rgb) and np.array_equal(types, picture.types) and label == -1
    assert np.array_equal(made, make(picture.labels, side))
    assert np.array_equal(weights, weight_map(picture.labels, side))
    assert (side == 11) == (task == "gland")


def test_one_map_moves_pixels_and_labels_alike():
    picture = circles_picture("nuclei", side=96, count=9)
    inside = (picture.labels > 0).astype(np.uint8) * 200
    rng = np.random.default_rng(4)
    for _ in range(5):
        shown, labels = cut_square((np.dstack([inside] * 3), picture.labels), 64, rng)
        assert np.array_equal(shown[..., 0] > 0, labels > 0) and labels.dtype == np.int32


def test_what_mirroring_continues_becomes_instances_of_their_own():
    picture = circles_picture("nuclei", side=32, count=1)
    settings = TaskBatchSettings(side=96, patch_side=32)
    _, target, _, _, _ = dense_row(picture, "nuclei", settings, np.random.default_rng(1), vary=False)
    # Mirror images of one disc, three a side: each is eroded by itself.
    assert (target == 1).sum() > 5 * (dense_row(
        picture, "nuclei", TaskBatchSettings(side=32), np.random.default_rng(1), vary=False)[1] == 1).sum()  # fmt: skip


def test_affine_maps_stay_in_their_ranges():
    rng = np.random.default_rng(2)
    found = np.array([np.abs(np.linalg.det(draw_affine(rng))) for _ in range(500)])
    assert found.min() >= 1 / 1.1**2 and found.max() <= 1 / 0.9**2


def test_pixels_vary_within_bounds():
    rgb = circles_picture("nuclei").rgb
    rng = np.random.default_rng(3)
    varied = [vary_pixels(rgb, rng) for _ in range(12)]
    assert all(each.shape == rgb.shape and each.dtype == np.uint8 for each in varied)
    assert len({each.tobytes() for each in varied}) == 12
    assert all(abs(float(each.mean()) - float(rgb.mean())) < 60 for each in varied)


def test_drawn_scenes_know_three_tasks_exactly():
    found = drawn_pictures(3, 1, TASKS, base_side=512, scene_side=1536)
    gland, lumen, nuclei = (found[task][0] for task in TASKS)
    assert gland.rgb.shape == (256, 256, 3) and gland.labels.any() and nuclei.labels.any()
    assert (gland.labels[lumen.labels > 0] > 0).all()  # a gland holds its lumen
    assert np.array_equal(nuclei.types > 0, nuclei.labels > 0) and set(np.unique(nuclei.types)) <= {0, 1, 2, 3}
    for number in np.unique(nuclei.labels)[1:]:
        assert len(np.unique(nuclei.types[nuclei.labels == number])) == 1
    with pytest.raises(BadRequestError, match="Drawn scenes know"):
        drawn_pictures(3, 1, ("cells",), base_side=512, scene_side=1536)


def test_pictures_of_unknown_scale_get_nuclei_of_one_size():
    picture = circles_picture("nuclei", side=96)
    scaled = at_diameter(NucleiPicture("a", picture.rgb, picture.labels))
    assert NucleiPicture("a", scaled.rgb, scaled.labels).diameter() == pytest.approx(14.0, rel=0.05)


def test_what_cannot_be_trained_on_is_refused(tmp_path):
    picture = circles_picture("nuclei")
    settings = TaskBatchSettings(batch=2, **SMALL)
    empty = TaskPicture("empty", picture.rgb, picture.labels * 0)
    with pytest.raises(BadRequestError, match="nuclei has no picture with an instance"):
        TaskBatches({"nuclei": [empty]}, [], (), settings, 0)
    with pytest.raises(BadRequestError, match="nothing to train on"):
        TaskBatches({}, [], (), settings, 0)
    with pytest.raises(BadRequestError, match="not among the 1 told"):
        TaskBatches({}, flat_patches(), ("a",), settings, 0)
    with pytest.raises(BadRequestError, match="64 × 64 px and its label map 64 × 32"):
        TaskPicture("half", picture.rgb, picture.labels[:32])
    with pytest.raises(BadRequestError, match="no square of 32"):
        middle(picture.rgb[:20], 32)
    for wrong in ({"target": "both"}, {"sampler": "best"}, {"side": 50}, {"patch_share": 1.5}):
        with pytest.raises(BadRequestError):
            TaskBatchSettings(**wrong)
    for read in (lambda: hand_pictures(tmp_path, ()), lambda: research_pictures(tmp_path)):
        with pytest.raises(FileNotFoundError, match="holds no"):
            read()
