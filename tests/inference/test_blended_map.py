"""Networks that look at whole pictures: no window and no lattice can be seen in the map; cards that do not fit."""

import dataclasses

import numpy as np
import pytest
import torch

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.inference.blended_map import BlendedMap
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.models import build

SIDE = 32
CORE = 64
CONFIGS = {
    "esp-psp": {"classes": 2, "picture_classes": 2, "widths": (8, 8, 12, 16)},
    "resnet18-multitask": {"classes": 2, "picture_classes": 2, "widths": (8, 8, 12, 16)},
}


def card_of(name="esp-psp", side=SIDE, core=CORE, stride=1, **more):
    halo = side // 2 * stride
    card = PredictorCard(
        name="x", kind="dense", classes=(PredictorClass("Other"), PredictorClass("Gland")), channels=("Other", "Gland"),
        mpp=0.5, mpp_range=(0.35, 0.65), side=core * stride + 2 * halo, halo=halo, stride=stride, sha256="",
        about={"architecture": name, "picture": side, "multiple": halo},
    )  # fmt: skip
    return dataclasses.replace(card, **more)


@pytest.fixture(params=sorted(CONFIGS))
def network(request):
    """A network whose batch norm has seen pictures, so that its logits vary as a trained one's do."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = build(request.param, **CONFIGS[request.param])
    with torch.no_grad():
        for _ in range(6):
            network(tissue(8 * SIDE, 5).reshape(3, 8, SIDE, 8, SIDE).permute(1, 3, 0, 2, 4).flatten(0, 1), "both")
    return network.eval()


def tissue(side, seed):
    """3 × side × side, 0…1: blobs whose darkness drifts over the whole picture, so that its averages matter."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    drift = 0.35 * rows + 0.2 * np.sin(7 * columns)
    blobs = 0.2 * np.sin(rows * 60 + np.cos(columns * 41)) * np.cos(columns * 55)
    grey = np.clip(0.4 + drift + blobs + rng.normal(0, 0.03, rows.shape), 0, 1)
    return torch.from_numpy(np.stack([grey, 0.8 * grey, 0.5 + 0.5 * grey])).float()


def map_of(network, rgb, core, card=None):
    """Logits of the whole of `rgb` (a border of half a side excepted) by windows of `core`, side by side."""
    half = SIDE // 2
    blended = BlendedMap(network, card or card_of(core=core))
    told = torch.zeros(2, rgb.shape[1] - SIDE, rgb.shape[2] - SIDE)
    with torch.inference_mode():
        for y in range(0, told.shape[1], core):
            for x in range(0, told.shape[2], core):
                window = rgb[None, :, y : y + core + 2 * half, x : x + core + 2 * half]
                told[:, y : y + core, x : x + core] = blended(window)[0]
    return told


def side_by_side(network, rgb):
    """The same without blending: pictures beside each other, half a side in from the border."""
    half = SIDE // 2
    told = torch.zeros(2, rgb.shape[1] - SIDE, rgb.shape[2] - SIDE)
    with torch.inference_mode():
        for y in range(0, told.shape[1], SIDE):
            for x in range(0, told.shape[2], SIDE):
                picture = rgb[None, :, half + y : half + y + SIDE, half + x : half + x + SIDE]
                told[:, y : y + SIDE, x : x + SIDE] = network(picture, "segmentation").pixels[0]
    return told


def steps_across(told, at):
    """Mean step of the logits' difference from one column to the next, at these columns."""
    margin = told[1] - told[0]
    steps = (margin[:, 1:] - margin[:, :-1]).abs()
    return float(steps[:, [column - 1 for column in at]].mean())


def test_windows_of_any_size_give_one_map(network):
    rgb = tissue(2 * CORE + SIDE, 8)
    small, large = map_of(network, rgb, CORE), map_of(network, rgb, 2 * CORE)
    assert torch.allclose(small, large, atol=1e-4)
    assert small.std() > 0.02


def test_no_seam_can_be_seen_where_pictures_meet(network):
    rgb = tissue(4 * CORE + SIDE, 8)
    seams = range(SIDE // 2, 4 * CORE - 1, SIDE // 2)
    elsewhere = [column for column in range(3, 4 * CORE - 1) if column % (SIDE // 2) not in (0, 1, SIDE // 2 - 1)]
    blended = map_of(network, rgb, CORE)
    assert steps_across(blended, seams) < 1.15 * steps_across(blended, elsewhere)
    plain = side_by_side(network, rgb)
    assert steps_across(plain, range(SIDE, 4 * CORE - 1, SIDE)) > 1.5 * steps_across(plain, elsewhere), "it would show"


def test_a_network_of_half_the_scale_is_shown_means_of_pixels(network):
    rgb = tissue(2 * (CORE + SIDE), 4)
    card = card_of(stride=2)
    with torch.inference_mode():
        told = BlendedMap(network, card)(rgb[None])
        halved = torch.nn.functional.avg_pool2d(rgb[None], 2)
        assert torch.equal(told, BlendedMap(network, card_of())(halved))
    assert told.shape == (1, 2, card.map_side, card.map_side)


@pytest.mark.parametrize(
    "card",
    [
        card_of(halo=8),
        card_of(about={"architecture": "esp-psp", "picture": SIDE, "multiple": 8}),
        card_of(about={"architecture": "esp-psp", "multiple": 16}),
        card_of(core=72),
    ],
)
def test_a_card_that_does_not_fit_is_refused(card):
    with pytest.raises(ModelUnavailableError, match="halo must be half of picture"):
        BlendedMap(build("esp-psp", **CONFIGS["esp-psp"]), card)
