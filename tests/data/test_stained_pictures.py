"""Hand-outlined nuclei in other stains as a set of paper C: anew at every look, repeatable, drawn by weight."""

import csv

import numpy as np
import pytest
from PIL import Image

from tests.data.test_nuclei_batches import disc_picture
from wsi_ml.data.nuclei import HAND_SET
from wsi_ml.data.stained_pictures import stained_pictures
from wsi_ml.data.task_batches import TaskBatches, TaskBatchSettings
from wsi_ml.errors import BadRequestError


@pytest.fixture
def data(tmp_path):
    """A hand set of three pictures, the third crowded."""
    folder = tmp_path / HAND_SET
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    with (folder / "index.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id"])
        for name, side in (("a", 64), ("b", 64), ("c", 192)):
            picture = disc_picture(name, side)
            Image.fromarray(picture.rgb).save(folder / "images" / f"{name}.png")
            Image.fromarray(picture.labels.astype(np.uint16)).save(folder / "labels" / f"{name}.png")
            rows.writerow([name])
    return tmp_path


def batches(pictures, batch=6, seed=3):
    return TaskBatches({"nuclei": pictures}, [], (), TaskBatchSettings(batch, 48, 48), seed)


def test_a_picture_is_shown_in_another_stain_at_every_look(data):
    pictures = stained_pictures(data, ("b",), 48, 5, 0, 0)
    assert [picture.name for picture in pictures] == ["a", "c"]
    looks = [pictures[0].square(48, np.random.default_rng(seed)) for seed in range(12)]
    assert all(look.rgb.shape == (48, 48, 3) and look.labels.shape == look.types.shape == (48, 48) for look in looks)
    means = np.array([look.rgb.mean((0, 1)) for look in looks])
    assert means.std(0).min() > 10
    assert 6 < sum(bool(look.labels.any()) for look in looks) <= 12  # a seventh of the looks shows no nucleus
    again = pictures[0].square(48, np.random.default_rng(4))
    assert all(np.array_equal(one, two) for one, two in zip(again, looks[4], strict=True))


def test_crowded_pictures_come_more_often(data):
    pictures = stained_pictures(data, (), 48, 5, 0, 0)
    a, b, c = (picture.weight for picture in pictures)
    assert a == b and c / a == pytest.approx(3.0) and a + b + c == pytest.approx(3.0)  # √36 against √4
    source = batches(pictures, 50)
    items = np.concatenate([[turn.item for turn in source.turns(index)] for index in range(40)])
    assert np.bincount(items) / len(items) == pytest.approx([0.2, 0.2, 0.6], abs=0.04)
    assert source.turns(3) == batches(pictures, 50).turns(3)


def test_rows_have_targets_of_what_is_shown(data):
    batch = batches(stained_pictures(data, (), 48, 5, 0, 0)).batch(0)
    assert batch.rgb.shape == (6, 48, 48, 3) and set(np.unique(batch.target)) == {0, 1, 2}
    assert (batch.weights >= 1).all()


def test_what_cannot_be_is_refused(data):
    with pytest.raises(BadRequestError, match="all of it is held out"):
        stained_pictures(data, ("a", "b", "c"), 48, 5, 0, 0)
    (picture,) = stained_pictures(data, ("a", "b"), 48, 5, 0, 0)
    for side, vary in ((64, True), (48, False)):
        with pytest.raises(BadRequestError, match="its sampler's size only"):
            picture.square(side, np.random.default_rng(0), vary)
    with pytest.raises(FileNotFoundError, match=HAND_SET):
        stained_pictures(data / "nowhere", (), 48, 5, 0, 0)
