"""`cerberus` as a predictor: what a window tells is what a larger one tells, shares are kept, misfits are refused."""

import dataclasses

import pytest
import torch

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.inference.card import AROUND, PredictorCard, PredictorClass
from wsi_ml.inference.cerberus_maps import (
    MOST_HALO,
    NEVER,
    CerberusMaps,
    against_others,
    dense_reach,
    encoder_reach,
    halo_for,
    is_exact,
)
from wsi_ml.models.cerberus import Cerberus, CerberusConfig

ONE = (1, 1, 1, 1)
PUBLISHED = (3, 4, 6, 3)
CLASSES = ("Gland", "Muscle", "Glass")
TASKS = {"gland": 3, "lumen": 3, "nuclei": 3, "nuclei_type": 4}


def network(blocks=ONE, tasks=TASKS, width=4, seed=3):
    torch.manual_seed(seed)
    model = Cerberus(CerberusConfig(tasks, len(CLASSES), width, blocks))
    for part in model.modules():  # averages as of a network that has seen pictures
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 64, 64))
    return model.eval()


def card(task="nuclei", core=64, halo=112, stride=1, classes=("Nucleus",), postprocess=None, **about):
    named = tuple(PredictorClass(name) for name in classes)
    channels = classes if task == "patch" else ("interior", "boundary", *(classes if len(classes) > 1 else ()))
    channels += AROUND if (postprocess or {}).get("within") else ()
    kind = "patch" if task == "patch" else "instance"
    return PredictorCard(
        "test", kind, named, channels, 0.5, (0.4, 0.6), core + 2 * halo, halo, stride, "0" * 64,
        postprocess=postprocess or {}, about={"task": task, "multiple": 16, **about},
    )  # fmt: skip


def picture(side, seed=1):
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_how_far_the_network_sees_is_what_gradients_say():
    assert (encoder_reach(ONE), dense_reach(ONE)) == (50, 110)
    assert (encoder_reach(PUBLISHED), dense_reach(PUBLISHED)) == (226, 286)
    model, side = network(tasks={"nuclei": 3}), 352
    rgb = picture(side).requires_grad_()
    reached = []
    for place in (160, 167, 168, 175):
        logits = model(rgb)["nuclei"]
        found = torch.autograd.grad(logits[0, :, place, place].sum(), rgb)[0].abs().sum((0, 1))
        rows = torch.nonzero(found.sum(1))[:, 0]
        reached += [place - int(rows[0]), int(rows[-1]) - place]
    assert 90 < max(reached) <= 110  # ReLUs that rest hide some of it
    deepest = model.encoder(rgb)[-1]
    rows = torch.nonzero(torch.autograd.grad(deepest[0, :, 11, 11].sum(), rgb)[0].abs().sum((0, 1, 3)))[:, 0]
    assert max(11 * 16 - int(rows[0]), int(rows[-1]) - 11 * 16) <= 50


def test_the_halo_is_what_the_network_sees_or_the_papers():
    assert (halo_for(ONE, "nuclei"), is_exact(ONE, "nuclei")) == (112, True)
    assert (halo_for(PUBLISHED, "gland"), is_exact(PUBLISHED, "gland")) == (MOST_HALO, False)
    assert (halo_for(ONE, "patch"), is_exact(ONE, "patch")) == (120, True)
    assert halo_for(PUBLISHED, "patch") == MOST_HALO + 56


@torch.inference_mode()
@pytest.mark.parametrize(
    "own",
    [
        card(),
        card("nuclei", classes=("a", "b", "c")),
        card("lumen", stride=2, classes=("Lumen",), postprocess={"within": "gland"}),
        card("patch", halo=120, stride=32, classes=CLASSES),
    ],
    ids=["nuclei", "types", "lumen in glands", "patch"],
)
def test_windows_leave_no_trace(own):
    model = network()
    large = dataclasses.replace(own, side=own.side + 96)
    rgb = picture(large.side)
    whole = CerberusMaps(model, large)(rgb)
    for x, y in ((0, 0), (32, 0), (32, 96), (96, 64)):
        part = CerberusMaps(model, own)(rgb[:, :, y : y + own.side, x : x + own.side])
        assert part.shape == (1, len(own.channels), own.map_side, own.map_side)
        columns, rows = (slice(at // own.stride, at // own.stride + own.map_side) for at in (x, y))
        assert torch.allclose(part, whole[:, :, rows, columns], atol=2e-4)


@torch.inference_mode()
def test_a_network_that_sees_further_than_its_halo_differs_little_from_a_larger_window():
    model = network(PUBLISHED, {"gland": 3})
    own = card("gland", halo=MOST_HALO, stride=2, classes=("Gland",))
    large = dataclasses.replace(own, side=own.core + 2 * 304, halo=304)
    rgb = picture(large.side)
    part = rgb[:, :, 144:-144, 144:-144]
    told, whole = (CerberusMaps(model, each)(of).sigmoid() for each, of in ((own, part), (large, rgb)))
    difference = (told - whole).abs()
    assert 0 < float(difference.max()) < 0.02


@torch.inference_mode()
def test_channels_are_the_networks_own_shares():
    model, own = network(), card(core=32)
    rgb = picture(own.side)
    shares = model(rgb)["nuclei"].softmax(1)[:, 1:, 112:-112, 112:-112]
    assert torch.allclose(CerberusMaps(model, own)(rgb).sigmoid(), shares, atol=1e-6)
    halved = CerberusMaps(model, card(core=32, stride=2))(rgb).sigmoid()
    assert torch.allclose(halved, torch.nn.functional.avg_pool2d(shares, 2), atol=1e-5)
    extreme = torch.tensor([40.0, -40.0, 0.0])[None, :, None, None]
    assert torch.allclose(against_others(extreme).flatten(), torch.tensor([40.0, -80.0, -40.0]), atol=1e-4)


@torch.inference_mode()
def test_without_contours_there_are_none():
    told = CerberusMaps(network(tasks={"nuclei": 2}), card(core=32))(picture(256))
    assert told.shape == (1, 2, 32, 32) and (told[:, 1] == NEVER).all() and told[:, 0].std() > 0


@torch.inference_mode()
def test_a_cell_is_the_patch_around_it():
    """As the paper's program: the class of the middle 144 px of a picture that has surroundings."""
    model, own = network(), card("patch", core=64, halo=120, stride=32, classes=CLASSES)
    rgb = picture(own.side)
    cells = CerberusMaps(model, own)(rgb)
    # Cell 1 lies around 120 + 48 px, its patch from 96 to 240 px; 64 px to each side are more than is seen.
    alone = model(rgb[:, :, 32:304, 32:304], ["patch"])["patch"]
    assert cells.shape == (1, 3, 2, 2) and torch.allclose(cells[0, :, 1, 1], alone[0], atol=1e-4)
    assert not torch.allclose(cells[0, :, 0, 0], alone[0], atol=1e-3)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (card("colon"), "asks for the task colon"),
        (card(""), "asks for the task (none)"),
        (card(core=40), "multiples of 16 px"),
        (card("patch", halo=112, stride=32, classes=CLASSES), "halo + stride/2 − 72 px"),
        (card("gland", classes=("a", "b")), "asks for the task gland_type"),
    ],
)
def test_cards_that_do_not_fit_are_refused_in_words(own, words):
    with pytest.raises(ModelUnavailableError, match="test") as caught:
        CerberusMaps(network(), own)
    assert words in str(caught.value)
