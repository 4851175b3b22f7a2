"""Predictors and slides for tests of inference: integer arithmetic, so that equal means equal to the bit."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.versions import stage_version
from wsi_ml.geometry import Size
from wsi_ml.inference.card import PredictorCard, PredictorClass
from wsi_ml.inference.predictor import find_card
from wsi_ml.models import build
from wsi_ml.models.checkpoint import weights_bytes
from wsi_ml.slides.library import MODELS_FOLDER, STAGING_FOLDER, Library

HALO, RADIUS = 16, 12
GLASS = (243, 243, 245)
STAIN = (196, 120, 176)


def dense_card(side: int = 160, stride: int = 2, name: str = "blur", **more) -> PredictorCard:
    """A dense predictor of two classes, `Pale` and `Dark`; a window tells side − 32 stored pixels."""
    facts = {
        "kind": "dense", "classes": (PredictorClass("Pale"), PredictorClass("Dark", "#882255")),
        "channels": ("Pale", "Dark"), "mpp": 0.5, "mpp_range": (0.4, 0.62), "halo": HALO, "sha256": "ab" * 32,
        "background": ("Pale",), "postprocess": {"min_area_um2": 0.0},
    }  # fmt: skip
    return PredictorCard(name=name, side=side, stride=stride, **(facts | more))


class BlurPredictor:
    """How dark the 25 × 25 stored pixels round each map pixel are: depends on 12 pixels around, less than its halo."""

    def __init__(self, card: PredictorCard | None = None, seconds: float = 0.0):
        self.card = card or dense_card()
        self.calls: list[int] = []
        self._seconds = seconds
        self._lock = threading.Lock()

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        with self._lock:
            self.calls.append(len(windows))
        time.sleep(self._seconds)
        return np.stack([darkness(window, self.card.stride) for window in windows])


class SharedPredictor(BlurPredictor):
    """The same, called by three threads at once."""

    numbers = "cpu integers"

    def callers(self, batches: int) -> int:
        return 3


def darkness(window: np.ndarray, stride: int) -> np.ndarray:
    """H×W×3 → 2 × (H − 32)/stride × (W − 32)/stride, any H and W."""
    grey = window.astype(np.int64).sum(axis=2)
    table = np.pad(grey, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    side = 2 * RADIUS + 1
    sums = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    inner = sums[HALO - RADIUS : sums.shape[0] - HALO + RADIUS, HALO - RADIUS : sums.shape[1] - HALO + RADIUS]
    dark = np.clip(3 * (255 - inner[::stride, ::stride] // (3 * side * side)) - 60, 0, 255)
    return np.stack([255 - dark, dark]).astype(np.uint8)


def one_pass(stored: np.ndarray, card: PredictorCard) -> np.ndarray:
    """The map of a whole stored plane at once, its edges repeated outwards."""
    below, right = -stored.shape[0] % card.stride, -stored.shape[1] % card.stride
    padded = np.pad(stored, ((HALO, HALO + below), (HALO, HALO + right), (0, 0)), mode="edge")
    return darkness(padded, card.stride)


def spotted_picture(size: Size, seed: int = 3, spots: int = 3) -> np.ndarray:
    """Stained round pieces on pale glass, grainy, RGB uint8."""
    rng = np.random.default_rng(seed)
    picture = np.empty((size.height, size.width, 3), np.float32)
    picture[:] = GLASS
    y, x = np.mgrid[: size.height, : size.width]
    for _ in range(spots):
        at_x, at_y = rng.uniform(0.2, 0.8, 2) * size
        inside = np.hypot(x - at_x, y - at_y) < rng.uniform(0.14, 0.22) * min(size)
        picture[inside] = STAIN
        wave = 35 * np.sin(x / 17 + rng.uniform(0, 6)) * np.sin(y / 23)
        picture[inside] += wave[inside, None]
    return (picture + rng.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)


def add_picture(
    library: Library, name: str, stored: np.ndarray, stored_mpp: float = 0.5, base_size: Size | None = None
) -> str:
    """Put a stored picture into a library as a slide; gives its id."""
    folder = library.root / STAGING_FOLDER / name
    base_size = base_size or Size(2 * stored.shape[1], 2 * stored.shape[0])
    return library.add(folder, stage_version(folder, stored, base_size, stored_mpp, salt=name), name)


def file_bytes(library_root: Path, layer_id: str) -> bytes:
    """The features file of a layer."""
    return (library_root / "layers" / f"{layer_id}.features").read_bytes()


def add_model(library_root: Path, card: PredictorCard | None = None) -> PredictorCard:
    """Put the card of a fake model into a library, with an empty file in place of its weights; gives it as read."""
    card = card or dense_card()
    card = replace(card, about={"weights": f"{card.name}.safetensors", "activation": "softmax", **card.about})
    folder = library_root / MODELS_FOLDER
    folder.mkdir(exist_ok=True)
    (folder / f"{card.name}.safetensors").touch()
    (folder / f"{card.name}.json").write_text(json.dumps(card.to_json()))
    return card


def open_fake(
    model: str, *, device: str = "auto", threads: int = 0, folders: tuple[Path, ...] = (), seconds: float = 0.0
) -> BlurPredictor:
    """An opener for `predict`: a BlurPredictor with the card of that name."""
    return BlurPredictor(find_card(model, folders)[0], seconds)


def own_model(folder: Path, name: str = "own", **more: object) -> dict:
    """A small network with random weights and its card, as a user puts them into a library."""
    torch.manual_seed(5)
    network = build("nuclei-unet", channels=16)
    with torch.no_grad():
        # The four sub-pixels of a cell alike: the map has regions, not grains.
        one = torch.randn(2, *network.last.weight.shape[1:])
        network.last.weight.copy_((one - one.mean(dim=1, keepdim=True)).repeat_interleave(4, dim=0))
    data, sha256 = weights_bytes(network.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.safetensors").write_bytes(data)
    card = {
        "format": 1, "name": name, "kind": "instance", "classes": [{"name": "Nucleus", "color": "#117733"}],
        "channels": ["interior", "boundary"], "mpp": 0.5, "mpp_range": [0.35, 0.65], "side": 192, "halo": 64,
        "stride": 1, "multiple": 8, "sha256": sha256, "weights": f"{name}.safetensors", "architecture": "nuclei-unet",
        "config": {"channels": 16}, "activation": "sigmoid", "licence": "MIT",
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(card | more))
    return card | more
