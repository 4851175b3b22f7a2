"""Measuring a nuclei predictor: agreement of label maps, tiling, post-processing of the card."""

import numpy as np
import pytest

from train import evaluate_nuclei as evaluate
from wsi_ml.data.nuclei import NucleiPicture
from wsi_ml.inference.card import PredictorCard, PredictorClass

CARD = PredictorCard(
    name="red", kind="instance", classes=(PredictorClass("Nucleus"),), channels=("interior", "boundary"), mpp=0.5,
    mpp_range=(0.4, 0.6), side=48, halo=8, stride=1, sha256="0" * 64, postprocess={"min_area_um2": 4.0},
)  # fmt: skip


class RedIsInterior:
    """A predictor whose maps are the red and the green of the window without its halo."""

    card = CARD

    def __call__(self, windows):
        assert windows.shape == (1, 48, 48, 3)
        return windows[:, 8:40, 8:40, :2].transpose(0, 3, 1, 2)


def truth():
    labels = np.zeros((40, 70), np.int32)
    labels[4:12, 4:12], labels[20:30, 20:30], labels[5:13, 50:58] = 3, 7, 8
    return labels


def test_a_label_map_agrees_with_itself_wholly_whatever_its_numbers():
    other = np.array([0, 0, 0, 5, 0, 0, 0, 1, 9], np.int32)[truth()]
    assert all(value == pytest.approx(1.0) for value in evaluate.agreement(truth(), other).values())


def test_a_missed_and_a_false_nucleus_count():
    told = truth()
    told[told == 8] = 0
    told[32:38, 60:68] = 11
    values = evaluate.agreement(truth(), told)
    assert values["precision"] == values["recall"] == values["dq"] == pytest.approx(2 / 3)
    assert values["sq"] == pytest.approx(1.0) and values["pq"] == pytest.approx(2 / 3)
    shared, missed, false = 64 + 100, 64, 48
    assert values["aji"] == pytest.approx(shared / (shared + missed + false))
    assert values["dice"] == pytest.approx(2 * shared / (2 * shared + missed + false))


def test_maps_of_windows_are_put_together_without_a_gap():
    rgb = np.random.default_rng(1).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    maps = evaluate.tell(RedIsInterior(), rgb)
    assert (maps == rgb[..., :2].transpose(2, 0, 1)).all()


def test_small_objects_go_by_the_card_s_area():
    maps = np.zeros((2, 20, 20), np.uint8)
    maps[0, 2:6, 2:6] = 255  # 16 px, 4 µm²
    maps[0, 10:13, 10:15] = 255  # 15 px
    labels = evaluate.segment(maps, CARD)
    assert (labels > 0).sum() == 16 and labels[3, 3] > 0


def test_a_row_is_the_mean_over_pictures_and_stands_in_the_table(monkeypatch):
    monkeypatch.setattr(evaluate, "stored", lambda picture: picture)
    rgb = np.where((truth() > 0)[..., None], np.uint8(255), np.uint8(0)) * np.uint8((1, 0, 0))
    row = evaluate.measure(RedIsInterior(), "squares", "exact", [NucleiPicture("a", rgb, truth())])
    assert row.nuclei == 3 and row.values["pq"] == 1.0 and row.to_json()["f1"] == 1.0
    assert "| squares | 1 | 3 | 1.000 |" in evaluate.table([row])


def test_pictures_are_scaled_to_the_stated_diameter_and_halved_by_the_kernel():
    picture = NucleiPicture("a", np.zeros((40, 70, 3), np.uint8), truth())
    assert evaluate.scaled(picture).diameter() == pytest.approx(evaluate.DIAMETER, rel=0.08)
    half = evaluate.halved(picture)
    assert half.rgb.shape == (20, 35, 3) and (half.labels == 7).sum() == 25
