"""The classifier of sr-joint on windows: every cell is what the patch around it gives, and whole slides get a layer."""

import hashlib
import json

import numpy as np
import pytest
import torch

from tests.inference.fakes import add_picture
from tests.sr.networks import tissue
from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.geometry import Size
from wsi_ml.inference.card import card_from_json
from wsi_ml.inference.network_predictor import NetworkPredictor
from wsi_ml.inference.patch_network import PatchClasses
from wsi_ml.inference.predicting import PredictRequest, predict
from wsi_ml.inference.predictor import open_predictor
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.store import LayerStore
from wsi_ml.models import build, checkpoint
from wsi_ml.slides.library import Library

CONFIG = {"channels": 8, "growth": 4, "blocks": 1, "classes": 3}
PATCH, HALO, STRIDE, SIDE = 64, 64, 32, 256
CARD = {
    "format": 1, "name": "tissue-own", "kind": "patch",
    "classes": [{"name": "Glass"}, {"name": "Fat", "color": "#ddcc77"}, {"name": "Tumour", "color": "#882255"}],
    "channels": ["Glass", "Fat", "Tumour"], "background": ["Glass"], "mpp": 0.5, "mpp_range": [0.35, 0.65],
    "side": SIDE, "halo": HALO, "stride": STRIDE, "multiple": 32, "patch": PATCH, "architecture": "sr-joint",
    "config": CONFIG, "activation": "softmax", "weights": "sr-joint.safetensors", "sha256": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    model = build("sr-joint", **CONFIG).eval()
    with torch.no_grad():
        # A head that tells the drawn tissue from the drawn glass, as a trained one does.
        pictures = torch.from_numpy(np.stack([tissue(192, 192, 1), np.full((192, 192, 3), 238, np.uint8)]))
        features = model.layer2(model.layer1(model.encode(pictures.permute(0, 3, 1, 2).float() / 255)))
        means = features[:, :, 8:16, 8:16].mean(dim=(2, 3))
        away = means[0] - means[1]
        for number, side in enumerate((-1, 0, 1)):
            model.fc.weight[number] = side * 4 * away / away.square().sum()
            model.fc.bias[number] = -(model.fc.weight[number] * means.mean(dim=0)).sum()
    return model


@pytest.fixture
def folder(tmp_path, network):
    data, sha256 = checkpoint.weights_bytes(network.state_dict())
    assert hashlib.sha256(data).hexdigest() == sha256
    models = tmp_path / "library" / "models"
    models.mkdir(parents=True)
    (models / "sr-joint.safetensors").write_bytes(data)
    (models / "tissue-own.json").write_text(json.dumps(CARD | {"sha256": sha256}))
    return models


def tensor(rgb):
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def mixed(side, seed=0):
    """Half tissue, half nearly glass, with a slanted border."""
    picture = tissue(side, side, seed)
    y, x = np.mgrid[:side, :side]
    picture[x + y // 2 > side * 3 // 4] = 238
    return picture


def test_a_cell_is_the_mean_over_its_patch_of_the_features_of_one_pass(network):
    wrapped = PatchClasses(network, card_from_json(CARD))
    picture = mixed(SIDE)
    with torch.inference_mode():
        told = wrapped(tensor(picture))
        features = network.layer2(network.layer1(network.encode(tensor(picture))))
        assert told.shape == (1, 3, 4, 4) and features.shape[2:] == (32, 32)
        for row, column in ((0, 0), (1, 3), (3, 2)):
            # The patch around a cell begins 64 + 32·n + 16 − 32 px from the window's edge.
            y, x = (HALO + STRIDE * n + STRIDE // 2 - PATCH // 2 for n in (row, column))
            own = features[..., y // 8 : (y + PATCH) // 8, x // 8 : (x + PATCH) // 8].mean(dim=(2, 3))
            assert torch.allclose(told[0, :, row, column], network.fc(own)[0], atol=1e-5)


def test_a_cell_is_what_its_patch_gives_by_itself_with_a_little_around_it(network):
    """The patch and 32 px on each side, without the rest of the window: the same to 0.02 of probability."""
    wrapped = PatchClasses(network, card_from_json(CARD))
    picture, context = mixed(SIDE, 4), 32
    with torch.inference_mode():
        told = wrapped(tensor(picture)).softmax(dim=1)[0]
        assert told.std(dim=(1, 2)).max() > 0.1, "the cells must not all look alike"
        for row in range(4):
            for column in range(4):
                y, x = (HALO + STRIDE * n + STRIDE // 2 - PATCH // 2 - context for n in (row, column))
                part = tensor(picture[y : y + PATCH + 2 * context, x : x + PATCH + 2 * context])
                inside = slice(context // 8, (context + PATCH) // 8)
                features = network.layer2(network.layer1(network.encode(part)))[..., inside, inside]
                alone = network.fc(features.mean(dim=(2, 3))).softmax(dim=1)[0]
                assert float((alone - told[:, row, column]).abs().max()) < 0.02


def test_a_bare_patch_is_classified_as_in_training(network):
    wrapped = PatchClasses(network, card_from_json(CARD))
    patch = tensor(mixed(PATCH, 2))
    with torch.inference_mode():
        assert torch.allclose(wrapped.classify(patch), network(patch, "cl"), atol=1e-5)


def test_windows_stitched_equal_one_larger_window(network):
    """The map of a window twice as large holds the same values: the halo covers what the layers see."""
    large = PatchClasses(network, card_from_json(CARD | {"side": SIDE + 128}))
    small = PatchClasses(network, card_from_json(CARD))
    picture = mixed(SIDE + 128, 2)
    with torch.inference_mode():
        whole = large(tensor(picture)).softmax(dim=1)[0]
        for y in (0, 128):
            for x in (0, 128):
                part = small(tensor(picture[y : y + SIDE, x : x + SIDE])).softmax(dim=1)[0]
                rows, columns = slice(y // 32, y // 32 + 4), slice(x // 32, x // 32 + 4)
                assert float((whole[:, rows, columns] - part).abs().max()) < 0.02


def test_the_predictor_runs_windows_and_single_patches(folder):
    predictor = open_predictor("tissue-own", device="cpu", folders=[folder])
    assert isinstance(predictor, NetworkPredictor)
    maps = predictor(np.stack([mixed(SIDE), mixed(SIDE, 1)]))
    assert maps.shape == (2, 3, 4, 4) and maps.dtype == np.uint8
    assert np.abs(maps.sum(axis=1, dtype=int) - 255).max() <= 2
    told = predictor.classify(np.stack([tissue(PATCH, PATCH), mixed(PATCH)]))
    assert told.shape == (2, 3) and np.allclose(told.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(BadRequestError, match="not single patches"):
        open_predictor("tissue-fast", device="cpu").classify(np.zeros((1, 224, 224, 3), np.uint8))


@pytest.mark.parametrize("change", [{"halo": 0, "side": 128}, {"stride": 8}, {"patch": 60}, {"patch": 320}])
def test_a_card_whose_windows_do_not_fit_the_features_is_refused(network, change):
    with pytest.raises(ModelUnavailableError, match="card of tissue-own does not fit its network"):
        PatchClasses(network, card_from_json(CARD | change))


def test_the_patch_belongs_to_the_digest():
    assert card_from_json(CARD).digest != card_from_json(CARD | {"patch": 128}).digest


def test_a_slide_gets_a_layer_of_its_classes(tmp_path, folder):
    library = Library.create(tmp_path / "library")
    slide_id = add_picture(library, "mixed", mixed(640, 5))
    layer = predict(library.root, PredictRequest(slide_id, "tissue-own", parameters={"tissue": "all"}), device="cpu")
    assert {each.name for each in layer.classes} <= {"Fat", "Tumour"}
    assert layer.provenance["model"] == "tissue-own" and layer.provenance["kind"] == "patch"
    batches = list(FeaturesFile(library.root / "layers" / f"{layer.id}.features").batches())
    drawn = [geometry for _, batch in batches for geometry in batch.geometries]
    assert drawn and all(geometry.is_valid for geometry in drawn)
    base = Size(1280, 1280)
    assert 0 < sum(geometry.area for geometry in drawn) <= base.width * base.height
    assert LayerStore(library.root).check() == []
