"""What `train.evaluate` measures: a run's averaged weights, a model by its card, or a method without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train import loop
from wsi_ml.data.pairs import load_slides, store_pixels
from wsi_ml.errors import BadRequestError, ModelOutputError, ModelUnavailableError, UnknownModelError
from wsi_ml.inference.card import PredictorCard, is_predictor, read_card
from wsi_ml.inference.predictor import find_card
from wsi_ml.models import build, checkpoint, parameter_count
from wsi_ml.models.losses import IMAGENET_DEVIATION, IMAGENET_MEAN
from wsi_ml.models.rrdb import RrdbEncoder
from wsi_ml.models.sr_joint import SrJoint
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.linear import fit_linear
from wsi_ml.sr.network import fastest_type, make_ready
from wsi_ml.sr.scores import Upscale, lanczos
from wsi_ml.sr.upscaler import Upscaler

Tell = Callable[[np.ndarray], np.ndarray]
"""uint8 N×S×S×3 → float32 N×classes, probabilities."""
METHODS = ("bicubic", "lanczos", "linear")
NETWORK_FILE = "network.json"
TELL_BATCH = 32
LINEAR_EVERY = 3
"""Every such tile of a training slide is one the linear upsampler is fitted on."""
_NETWORK_KEYS = ("script", "architecture", "config", "classes", "weights", "normalise", "seed", "row", "held_out")


@dataclass(frozen=True)
class Candidate:
    """A model under measurement; `upscale` or `tell` is None where it does not do that."""

    name: str
    row: str
    """Row of the paper's tables that it fills; see benchmarks/joint_tables.py."""
    facts: dict[str, Any]
    """Architecture, parameters, hash, steps, seed, minutes, hardware: what a table says of it."""
    upscale: Upscale | None = None
    tell: Tell | None = None
    classes: tuple[str, ...] = ()
    held_out: frozenset[str] | None = None
    """Slides it was not trained on, where it says so."""
    trained_on: frozenset[str] = field(default_factory=frozenset)
    """Slides it was trained on, where it says so."""
    picture: str = "stored"
    """Pixels it tells classes from: `stored` (×20) or `base` (×40)."""

    def told(self, pictures: np.ndarray) -> np.ndarray:
        """Probabilities N×classes of pictures; raises ModelOutputError when they do not fit its list of classes."""
        assert self.tell is not None  # noqa: S101 -- asked of classifiers only
        shares = self.tell(pictures)
        if shares.shape != (len(pictures), len(self.classes)):
            raise ModelOutputError(
                f"{self.name} gave {shares.shape[1]} probabilities a patch; its list of classes has "
                f"{len(self.classes)} names."
            )
        return shares

    def check_held_out(self, slides: tuple[str, ...]) -> None:
        """Raise BadRequestError when one of the slides was trained on: scores would say nothing."""
        known = [slide for slide in slides if slide in self.trained_on]
        if self.held_out is not None:
            known += [slide for slide in slides if slide not in self.held_out]
        if known:
            raise BadRequestError(
                f"{self.name} was trained on {known[0]}; name slides that it never saw with --slides, or train with "
                "that slide in the key `test`."
            )


def open_run(run: Path, device: torch.device) -> Candidate:
    """The averaged network of a run of sr_gan, joint or classifier; raises ModelUnavailableError for another folder."""
    facts = _network_facts(run)
    step, _, tensors = loop.read_state(run)
    weights = loop.part(tensors, str(facts["weights"]))
    model = build(str(facts["architecture"]), **facts["config"])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ModelUnavailableError(f"The state of {run.name} does not fit its {NETWORK_FILE}: {first}") from error
    _, sha256 = checkpoint.weights_bytes(weights)
    about = {
        "architecture": facts["architecture"], "config": facts["config"], "parameters": parameter_count(model),
        "sha256": sha256, "script": facts["script"], "steps": step, "seed": facts["seed"], **training_time(run),
    }  # fmt: skip
    upscale, tell = _uses(model, str(facts["normalise"]), device)
    name = run.name
    row = str(facts["row"] or facts["architecture"])
    if facts["script"] == "classifier":
        upscale = None  # of `sr-joint` only the classifier was trained
        row = "sr-joint-classes" if row == "sr-joint" else row
    elif facts["script"] == "sr_gan":
        tell = None
    return Candidate(
        name, row, about, upscale, tell, tuple(facts["classes"]), frozenset(facts["held_out"]),
        picture=str(facts.get("input", "stored")),
    )  # fmt: skip


def open_card(name: str, device: torch.device) -> Candidate:
    """A model by the path of its card or by its name: an upscaler, or a predictor of kind `patch`."""
    file = Path(name)
    if name.endswith(".json"):
        if not file.is_file():
            raise FileNotFoundError(f"There is no card {name}.")
        return _predictor(read_card(file), file, device) if is_predictor(file) else _upscaler(open_upscaler(file))
    try:
        card, found = find_card(name)
    except UnknownModelError:
        return _upscaler(open_upscaler(name))
    if found is None:
        raise BadRequestError(f"{name} has no weights and tells no classes of patches; it cannot be measured here.")
    return _predictor(card, found, device)


def open_method(name: str, data_root: Path, without: tuple[str, ...]) -> Candidate:
    """One of METHODS; `linear` is fitted on the tile sets under `data_root`, except the slides in `without`."""
    if name == "bicubic":
        return _upscaler(open_upscaler("bicubic"))
    if name == "lanczos":
        return Candidate(name, name, {"architecture": "Pillow's Lanczos filter", "parameters": 0}, upscale=lanczos)
    slides = load_slides(data_root, without, 0, 0)
    tiles = [tile for each in slides.values() for tile in each[::LINEAR_EVERY]]
    made = fit_linear((store_pixels(tile), tile) for tile in tiles)
    facts = {
        "architecture": "linear 9×9 over three colours, least squares", "parameters": made.weights.size + 12,
        "pictures": len(tiles),
    }  # fmt: skip
    return Candidate(name, name, facts, upscale=made, held_out=frozenset(without), trained_on=frozenset(slides))


def training_time(run: Path) -> dict[str, Any]:
    """`minutes` of a run over all its stretches, and the `hardware` its journal names; empty without a journal."""
    try:
        lines = (run / loop.JOURNAL_FILE).read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return {}
    seconds, last = 0.0, None
    for entry in entries:
        if entry.get("event") != "start" and last is not None:
            seconds += entry["time"] - last
        last = entry["time"]
    hardware = [str(entry["hardware"]) for entry in entries if entry.get("hardware")]
    return {"minutes": round(seconds / 60, 1), **({"hardware": hardware[-1]} if hardware else {})}


def as_rgb(pictures: np.ndarray, device: torch.device, normalise: str = "") -> Tensor:
    """N×H×W×3 uint8 → N×3×H×W float 0…1, or normalised by ImageNet where `normalise` is `imagenet`."""
    rgb = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float().div_(255.0)
    if normalise != "imagenet":
        return rgb
    mean, deviation = (
        torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return (rgb - mean) / deviation


def _network_facts(run: Path) -> dict[str, Any]:
    """The run's network.json with every key there; raises ModelUnavailableError naming what is missing."""
    try:
        facts = json.loads((run / NETWORK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(
            f"{run.name} is no run of train.sr_gan, train.joint or train.classifier: {NETWORK_FILE} cannot be read "
            f"({type(error).__name__})."
        ) from error
    missing = [key for key in _NETWORK_KEYS if key not in facts]
    if missing:
        raise ModelUnavailableError(f"{NETWORK_FILE} of {run.name} has no {', '.join(missing)}.")
    return facts


def _uses(model: nn.Module, normalise: str, device: torch.device) -> tuple[Upscale | None, Tell | None]:
    """What a network can do: enlarge, tell classes, or both."""
    model = model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(model, SrJoint):
        return _enlarging(model, device), _telling(model, normalise, device)
    upscale = _enlarging(model, device)
    if upscale is not None:
        return upscale, None
    if isinstance(model, RrdbEncoder) or not hasattr(model, "config") or not hasattr(model.config, "classes"):
        raise ModelUnavailableError(f"{type(model).__name__} neither enlarges ×2 nor tells classes.")
    return None, _telling(model, normalise, device)


def _enlarging(model: nn.Module, device: torch.device) -> Upscale | None:
    """In fp32: the same network goes on telling classes, and scores owe nothing to the machine."""
    ready = make_ready(model, device, torch.float32)
    if ready is None:
        return None
    prepared, run = ready

    def upscale(rgb: np.ndarray) -> np.ndarray:
        return run(prepared, torch.tensor(rgb[None]).to(device))[0].cpu().numpy()

    return upscale


def _telling(model: nn.Module, normalise: str, device: torch.device) -> Tell:
    """Probabilities by the classifier alone, whole patches at once, in the precision that is fastest here."""
    dtype = fastest_type(device)
    mode = {"mode": "cl"} if isinstance(model, SrJoint) else {}

    def tell(pictures: np.ndarray) -> np.ndarray:
        told = []
        for first in range(0, len(pictures), TELL_BATCH):
            rgb = as_rgb(pictures[first : first + TELL_BATCH], device, normalise)
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = model(rgb, **mode)
            told.append(functional.softmax(logits.float().flatten(1), dim=1).cpu().numpy())
        shares = np.concatenate(told)
        if not np.isfinite(shares).all():
            raise ModelOutputError("The classifier gave NaN or infinite values.")
        return shares

    return tell


def _upscaler(upscaler: Upscaler) -> Candidate:
    card = upscaler.card
    steps = card.training.get("steps")
    facts = {
        "architecture": card.architecture or card.notes, "config": card.config, "parameters": card.parameters,
        "sha256": card.sha256, **({"steps": steps} if steps else {}),
    }  # fmt: skip
    trained_on = frozenset(slide for each in card.data for slide in each.get("slides", ()))
    return Candidate(card.name, card.name, facts, upscale=upscaler, trained_on=trained_on)


def _predictor(card: PredictorCard, file: Path, device: torch.device) -> Candidate:
    """A predictor's network on single patches, as it was trained: no window, no neighbours."""
    about = card.about
    if card.kind != "patch":
        raise BadRequestError(f"{card.name} is of kind {card.kind}; train.evaluate measures kind patch.")
    config = about.get("config", {})
    model = checkpoint.load(file.parent / about["weights"], card.sha256, about.get("architecture", ""), config)
    facts = {
        "architecture": about.get("architecture", ""), "config": config, "parameters": about.get("parameters"),
        "sha256": card.sha256, "steps": about.get("training", {}).get("steps"),
    }  # fmt: skip
    _, tell = _uses(model, "", device)
    classes = tuple(each.name for each in card.classes)
    row = "sr-joint" if about.get("architecture") == "sr-joint" else card.name
    return Candidate(card.name, row, facts, tell=tell, classes=classes)
