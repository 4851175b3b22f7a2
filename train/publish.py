"""Put the model of a finished run into a library, where the viewer, jobs and `ocular models` have it at once.

    python -m train.publish --run runs/semi --library LIBRARY
    python -m train.publish --run runs/semi --library LIBRARY --name glands --title "Glands, 10 % of the labels"
    python -m train.publish --run runs/semi --library LIBRARY --state       # of a run that still goes on
    python -m train.publish --run runs/semi --library LIBRARY --replace     # in place of the model of that name

The key `publish=LIBRARY` of every training script does the same when the run ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import importlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train import loop
from train.config import ended
from train.run_facts import RunFacts, read_run
from wsi_ml.errors import BadRequestError, ConflictError, DiskFullError, ModelOutputError
from wsi_ml.inference import card as predictor_cards
from wsi_ml.inference.card import PredictorCard
from wsi_ml.inference.predictor import BUILT_IN, WEIGHTS_FOLDER, Placed, SlideFitted, open_predictor
from wsi_ml.inference.trust_predictor import PREFIX as TRUST_PREFIX
from wsi_ml.models import checkpoint
from wsi_ml.slides.library import MODELS_FOLDER, Library, sync_folder
from wsi_ml.sr import open_upscaler, upscaler
from wsi_ml.sr.upscaler import UpscalerCard

CARDS = {
    "semi_supervised": "train.cards_semi",
    "classifier": "train.cards_classifier",
    "cerberus": "train.cards_cerberus",
    "multistage": "train.cards_multistage",
    "nuclei": "train.cards_predictor",
    "tissue": "train.cards_predictor",
    "sr_fast": "train.cards_sr",
    "sr_gan": "train.cards_sr",
    "joint": "train.cards_sr",
}
"""Training script → the module whose `cards_of_run(run, name)` tells what its runs become. Named, not imported: each
imports its script, and the scripts come here when they end."""
HALF_TOLERANCE = 2
"""Largest difference of a map (or picture), in 255ths, between weights in fp16 and fp32 that are stored as fp16."""
SAMPLE_SEED = 5
UPSCALED_SIDE = 64
LOCK_FILE = ".publish.lock"
HASH_DIGITS = 12


@dataclass(frozen=True)
class PublishedModel:
    """A model as it goes into a library: its card, in which weights and their hash are filled in, and its tensors."""

    card: PredictorCard | UpscalerCard
    """Without `sha256` and `weights`, which `publish` knows; a predictor's `about` holds architecture, config,
    activation, parameters, licence, data, training, scores and notes."""
    tensors: dict[str, Tensor]
    """State of the network that `wsi_ml.models.build` makes of the card's architecture and config."""


@dataclass(frozen=True)
class Wish:
    """How a run is published."""

    name: str
    """Of the model; a run that becomes several gives each a name that begins with it."""
    title: str = ""
    """A line for people, shown beside the name; empty: none."""
    commit: str = ""
    """Commit of the code that trained the run; empty: not told."""
    replace: bool = False
    """A model of that name is replaced; else it is an error."""
    state: bool = False
    """A run that has not come to its end is published too, and its card says so."""


def cards_of_run(run: RunFacts, name: str) -> list[PublishedModel]:
    """What a run becomes; raises BadRequestError for a run that no model is made of."""
    module = CARDS.get(run.script)
    if module is None:
        raise BadRequestError(f"{run.folder.name} is a run of train.{run.script}, of which no model is published.")
    make: Callable[[Path, str], list[PublishedModel]] = importlib.import_module(module).cards_of_run
    return make(run.folder, name)


def publish(run: Path, library: Path, wish: Wish) -> list[Path]:
    """Publish a run and give the files of its cards; each model is there whole or not at all.

    Every model is opened and tried before anything is written. The same again does nothing. Raises BadRequestError
    (an unfinished run, a name that cannot be), ConflictError (a name that is taken), ModelUnavailableError (no run, a
    card that does not fit its network), LibraryError.
    """
    models = models_folder(library)
    facts = read_run(run)
    if not facts.finished and not wish.state:
        raise BadRequestError(
            f"{run.name} stands at step {facts.steps} of {facts.wanted}: go on with --resume, or publish its last "
            "saved state with --state."
        )
    settled = [settle(told(model, facts, wish), wish.name) for model in cards_of_run(facts, wish.name)]
    with held(models):
        for card, _ in settled:
            check_name(card, models, wish.replace)
        return [write(card, weights, models) for card, weights in settled]


def default_name(run: Path) -> str:
    """Name of the model of a run where none is given: the folder's, in small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", run.resolve().name.lower()).strip("-")[:40] or "model"


def models_folder(library: Path) -> Path:
    """The folder of a library's own models, made where it is not there yet; raises LibraryError for no library."""
    folder = Library(library).root / MODELS_FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def told(model: PublishedModel, run: RunFacts, wish: Wish) -> PublishedModel:
    """The model with what is said of every run: its title, its commit, and that it is not finished."""
    words = "" if run.finished else f"Not finished: the state of step {run.steps} of {run.wanted}. "
    card = model.card
    if isinstance(card, UpscalerCard):
        title = f"{wish.title}. " if wish.title else ""
        training = {**card.training, **({"commit": wish.commit} if wish.commit else {})}
        return dataclasses.replace(
            model, card=dataclasses.replace(card, notes=title + words + card.notes, training=training)
        )
    about = dict(card.about)
    about["training"] = {**about.get("training", {}), **({"commit": wish.commit} if wish.commit else {})}
    about["notes"] = words + about.get("notes", "")
    if wish.title:
        about["title"] = wish.title
    return dataclasses.replace(model, card=dataclasses.replace(card, about=about))


def settle(model: PublishedModel, prefix: str) -> tuple[PredictorCard | UpscalerCard, bytes]:
    """Card and weights as they will lie on disk, tried: opened as a user opens them, fp16 where it tells the same.

    `prefix` begins the weights' name: cards of one publication with equal weights share a file. Raises
    ModelUnavailableError for a card that contradicts itself or its network.
    """
    with tempfile.TemporaryDirectory() as trial:
        exact = filed(model, prefix, half=False)
        told_exact = tried(*exact, Path(trial))
        try:
            small = filed(model, prefix, half=True)
        except ModelOutputError:  # a number that fp16 cannot hold
            return exact
        told_small = tried(*small, Path(trial))
    difference = np.abs(told_small.astype(np.int16) - told_exact).max(initial=0)
    return small if difference <= HALF_TOLERANCE else exact


def filed(model: PublishedModel, prefix: str, half: bool) -> tuple[PredictorCard | UpscalerCard, bytes]:
    """The card with the hash and file name of its weights, and the weights' bytes."""
    data, sha256 = checkpoint.weights_bytes(model.tensors, half)
    weights, card = f"{prefix}-{sha256[:HASH_DIGITS]}.safetensors", model.card
    if isinstance(card, UpscalerCard):
        return dataclasses.replace(card, sha256=sha256, weights=weights), data
    return dataclasses.replace(card, sha256=sha256, about={**card.about, "weights": weights}), data


def weights_of(card: PredictorCard | UpscalerCard) -> str:
    """File name of a card's weights."""
    return card.weights if isinstance(card, UpscalerCard) else str(card.about["weights"])


def tried(card: PredictorCard | UpscalerCard, weights: bytes, folder: Path) -> np.ndarray:
    """What the model makes of a picture, uint8, opened from its files in `folder` as from a library.

    Empty for a predictor that wants a whole slide. In fp32, so that only the weights differ from trial to trial.
    """
    file = folder / f"{card.name}.json"
    (folder / weights_of(card)).write_bytes(weights)
    file.write_bytes(card_bytes(card))
    if isinstance(card, UpscalerCard):
        return open_upscaler(file)(sample(UPSCALED_SIDE))
    predictor = open_predictor(file, threads=torch.get_num_threads())
    if isinstance(predictor, SlideFitted | Placed):
        return np.zeros(0, np.uint8)
    if hasattr(predictor, "dtype"):
        predictor.dtype = torch.float32
    return predictor(sample(card.side)[None])


def sample(side: int) -> np.ndarray:
    """A picture to try a model on, side × side × 3 uint8: blobs in the colours of a stained section and some noise."""
    rng = np.random.default_rng(SAMPLE_SEED)
    rows, columns = np.mgrid[:side, :side] / 16.0
    share = (np.sin(rows + np.cos(columns)) * np.cos(columns * 0.7) * 0.5 + 0.5)[..., None]
    colours = share * (98.0, 60.0, 140.0) + (1 - share) * (236.0, 190.0, 214.0)
    return np.clip(colours + rng.normal(0, 8, (side, side, 3)), 0, 255).astype(np.uint8)


@contextmanager
def held(models: Path) -> Iterator[None]:
    """Hold a folder of models against other publications while the block runs."""
    with (models / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_name(card: PredictorCard | UpscalerCard, models: Path, replace: bool) -> None:
    """Raise BadRequestError for a name that cannot be, ConflictError for one that another model has."""
    name, file = card.name, models / f"{card.name}.json"
    if name == BUILT_IN or name.startswith(TRUST_PREFIX) or (WEIGHTS_FOLDER / f"{name}.json").is_file():
        raise BadRequestError(f"{name} is a model of Ocular's own, which would be taken in its place; give --name.")
    if file.is_file() and not replace and file.read_bytes() != card_bytes(card):
        raise ConflictError(f"The library has a model {name} already; give --name, or --replace to put this one there.")


def write(card: PredictorCard | UpscalerCard, weights: bytes, models: Path) -> Path:
    """Weights first, card second; then weights that no card names any more go. Gives the card's file.

    Raises DiskFullError.
    """
    file = models / f"{card.name}.json"
    before = old_weights(file)
    try:
        loop.write_atomic(models / weights_of(card), weights)
        loop.write_atomic(file, card_bytes(card))
        sync_folder(models)
    except OSError as error:
        raise DiskFullError(f"The model {card.name} cannot be written into the library: {error.strerror}.") from error
    if before and before not in {old_weights(each) for each in models.glob("*.json")}:
        (models / before).unlink(missing_ok=True)
    return file


def old_weights(file: Path) -> str:
    """Plain name of the weights that a card's file names; empty where there is none to be read."""
    try:
        weights = json.loads(file.read_bytes()).get("weights", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return weights if isinstance(weights, str) and Path(weights).name == weights else ""


def card_bytes(card: PredictorCard | UpscalerCard) -> bytes:
    """A card as readable JSON, checked: raises ModelUnavailableError for one that contradicts itself."""
    value: dict[str, Any] = card.to_json()
    check = upscaler.card_from_json if isinstance(card, UpscalerCard) else predictor_cards.card_from_json
    check(value, f"{card.name}.json")
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the run cannot be published."""
    parser = argparse.ArgumentParser(
        prog="python -m train.publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--library", type=Path, required=True, help="library that gets the model")
    parser.add_argument("--name", default="", help="name of the model (default: that of the run's folder)")
    parser.add_argument("--title", default="", help="a line for people, shown beside the name")
    parser.add_argument("--commit", default="", help="commit of the code that trained the run, for the card")
    parser.add_argument("--state", action="store_true", help="publish the last saved state of an unfinished run")
    parser.add_argument("--replace", action="store_true", help="put it in the place of a model of the same name")
    args = parser.parse_args(argv)
    wish = Wish(args.name or default_name(args.run), args.title, args.commit, args.replace, args.state)

    def work() -> None:
        sys.stdout.write("".join(f"{file.stem}\n" for file in publish(args.run, args.library, wish)))

    return ended(work)


if __name__ == "__main__":
    sys.exit(main())
