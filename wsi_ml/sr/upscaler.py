"""The contract of every ×2 upscaler, the cards of those that ship, and how to open one."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wsi_ml.errors import ModelOutputError, ModelUnavailableError
from wsi_ml.sr import bicubic
from wsi_ml.sr.calibration import calibration_of

WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "models" / "weights"
CARD_FORMAT = 1
SCALE = 2
LARGEST_HALO = 256
"""Stored pixels; a tile of 256 px is then computed on nine times its area."""
RESERVED = ("stored", "scan", "auto", "bicubic")
"""Words of addresses that mean something else."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class UpscalerCard:
    """What a caller must know of an upscaler: its limits, its provenance and how well it did."""

    name: str
    kind: str
    """`sr`, or `bicubic` for plain interpolation."""
    scale: int
    """Output pixels per stored pixel and axis."""
    halo: int
    """Stored pixels around a region that its output depends on; a region grown by them needs nothing more."""
    multiple: int
    """Regions begin on multiples of it, because the network folds so many stored pixels into one; `halo` is a multiple
    too. 1: anywhere. The callable pads the far sides by itself in any case."""
    mpp_range: tuple[float, float]
    """Smallest and largest µm per stored pixel it may be used for."""
    sha256: str
    """Hex SHA-256 of the weights file, or of the definition where there are no weights."""
    parameters: int
    architecture: str = ""
    """Name for `wsi_ml.models.build`; empty without a network."""
    config: dict[str, Any] = field(default_factory=dict)
    """Arguments for `wsi_ml.models.build`."""
    weights: str = ""
    """File name of the weights, beside the card."""
    degradation: dict[str, Any] = field(default_factory=dict)
    """Kernel, JPEG quality and chroma subsampling of the stored pixels it was trained for."""
    data: list[dict[str, Any]] = field(default_factory=list)
    """Training data: set, slides, licence, credit."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    """Scores per held-out slide, with those of bicubic on the same pixels."""
    training: dict[str, Any] = field(default_factory=dict)
    """Commit, configuration and steps of the training."""
    trust: dict[str, Any] = field(default_factory=dict)
    """What `train/calibrate_trust.py` fitted: knots from detail to estimated difference, the `sha256` of the weights
    they hold for, and how they did on held-out slides; empty without. Weights and addresses do not depend on it."""
    licence: str = "MIT"
    notes: str = ""
    format: int = CARD_FORMAT

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values."""
        return dataclasses.asdict(self)


class Upscaler(Protocol):
    """A callable that doubles the sides of a picture; it pads, moves to devices and rounds by itself.

    Run on a region grown by `card.halo` stored pixels (clipped at the slide's edge) and cropped, it equals one pass
    over the whole slide within 1 grey level. It keeps no state between calls: two threads may use one at once.
    """

    card: UpscalerCard

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """RGB uint8 H×W×3 → 2H×2W×3, any H, W ≥ 1; raises ModelOutputError for NaN, infinite or constant output."""
        ...

    def batch(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        """As the call, for several pictures of any sizes; pictures of one size may go through together."""
        ...


BICUBIC_MPP_RANGE = (0.35, 0.65)
"""Stored µm/px that count as ×20: bicubic ×40 stands beside super-resolution, it is no zoom beyond any scan."""


FLAT_INPUT_RANGE = 24
"""A region whose grey levels differ by less may honestly come out constant (empty glass)."""


def refuse_one_colour(rgb: np.ndarray, upscaled: np.ndarray) -> None:
    """Raise ModelOutputError when a model made one colour of a picture that has more than noise in it."""
    # Two pixels tell nearly every picture from a constant one; the whole is read only when they agree.
    if (upscaled[0, 0] == upscaled[-1, -1]).all() and (upscaled == upscaled[0, 0]).all():
        spread = int(np.ptp(rgb.reshape(-1, 3), axis=0).max())
        if spread >= FLAT_INPUT_RANGE:
            raise ModelOutputError(f"The model gave one colour for a region whose grey levels differ by {spread}.")


def bicubic_card() -> UpscalerCard:
    """The card of plain bicubic interpolation."""
    return UpscalerCard(
        name="bicubic",
        kind="bicubic",
        scale=bicubic.SCALE,
        halo=bicubic.HALO,
        multiple=1,
        mpp_range=BICUBIC_MPP_RANGE,
        sha256=bicubic.definition_sha256(),
        parameters=0,
        notes=bicubic.DEFINITION,
    )


def card_from_json(value: dict[str, Any], file_name: str = "given") -> UpscalerCard:
    """Card of its JSON values; raises ModelUnavailableError naming the file and what is wrong with it."""
    if value.get("format") != CARD_FORMAT:
        raise ModelUnavailableError(
            f"The model card {file_name} has format {value.get('format')!r}; this Ocular reads format {CARD_FORMAT}."
        )
    try:
        low, high = value["mpp_range"]
        card = UpscalerCard(**{**value, "mpp_range": (float(low), float(high))})
        fault = _fault(card)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnavailableError(f"The model card {file_name} is damaged: {error}.") from error
    if fault:
        raise ModelUnavailableError(f"The model card {file_name} is wrong: {fault}.")
    return card


def _fault(card: UpscalerCard) -> str:
    """The first thing in a card that contradicts the contract, in words; empty when there is none."""
    low, high = card.mpp_range
    numbers = all(type(each) is int for each in (card.scale, card.halo, card.multiple, card.parameters))
    checks = (
        (card.kind == "sr", f"kind {card.kind!r} is no upscaler's, which is 'sr'"),
        (_NAME.fullmatch(card.name), "its name may hold small letters, digits and dashes only, 40 at most"),
        (card.name not in RESERVED, f"{card.name!r} is a word of addresses; give the model another name"),
        (numbers, "scale, halo, multiple and parameters must be whole numbers"),
        (card.scale == SCALE, f"scale is {card.scale}, and Ocular enlarges ×{SCALE}"),
        (0 <= card.halo <= LARGEST_HALO, f"halo is {card.halo}, not 0 to {LARGEST_HALO} stored pixels"),
        (
            card.multiple in (1, 2, 4, 8) and card.halo % card.multiple == 0,
            "halo is no multiple of multiple (1, 2, 4, 8)",
        ),
        (0 < low <= high < float("inf"), "mpp_range is no range of µm per stored pixel"),
        (_SHA256.fullmatch(card.sha256), "sha256 is not 64 hex digits"),
        (card.weights and Path(card.weights).name == card.weights, "weights is not a file's plain name"),
        (isinstance(card.config, dict), "config is not an object"),
        (isinstance(card.trust, dict), "trust is not an object"),
        (are_rows(card.data) and are_rows(card.scores), "data and scores are not lists of objects"),
    )
    fault = next((text for holds, text in checks if not holds), "")
    if not fault:
        calibration_of(card.trust, card.sha256)
    return fault


def are_rows(value: object) -> bool:
    """True for a list of JSON objects."""
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def read_card(file: Path) -> UpscalerCard:
    """Card in a JSON file of the card's name; raises ModelUnavailableError naming the file when it is no such card."""
    card = card_from_json(read_json(file), file.name)
    if card.name != file.stem:
        raise ModelUnavailableError(
            f"The model card {file.name} calls itself “{card.name}”; rename it to {card.name}.json."
        )
    return card


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object of a card's file, whatever kind of model it describes; raises ModelUnavailableError."""
    try:
        value = json.loads(file.read_bytes())
        json.dumps(value, allow_nan=False)  # NaN and infinity are read but no browser takes them
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailableError(f"The model card {file.name} cannot be read: {type(error).__name__}.") from error
    if not isinstance(value, dict):
        raise ModelUnavailableError(f"The model card {file.name} is damaged: it holds no JSON object.")
    return value


def available_upscalers(folders: Iterable[Path] = (), shipped: Path = WEIGHTS_FOLDER) -> list[UpscalerCard]:
    """Cards of bicubic, of the shipped upscalers and of those in `folders`, in this order and by name; reads JSON only.

    Of two of one name the first counts. Without its weights a card is left out. So is one in `folders` that is damaged:
    opening it by name says what is wrong with it. A damaged shipped card raises ModelUnavailableError.
    """
    cards = {card.name: card for card in (bicubic_card(), *_cards_in(shipped))}
    for folder in folders:
        for file in sorted(folder.glob("*.json")):
            try:
                card = read_card(file) if is_upscaler(file) else None
            except ModelUnavailableError:
                continue
            if card is not None and (folder / card.weights).is_file():
                cards.setdefault(card.name, card)
    return list(cards.values())


def is_upscaler(file: Path) -> bool:
    """True for a JSON file that is the card of an upscaler, though perhaps a wrong one; False for anything else."""
    try:
        return read_json(file).get("kind") == "sr"
    except ModelUnavailableError:
        return False


def _cards_in(folder: Path) -> list[UpscalerCard]:
    values = [(file.name, read_json(file)) for file in sorted(folder.glob("*.json"))]
    cards = [card_from_json(value, name) for name, value in values if value.get("kind") == "sr"]
    return [card for card in cards if (folder / card.weights).is_file()]


def find_upscaler(name: str, folders: Iterable[Path] = ()) -> Path:
    """File of the card of that name, shipped or in `folders`; raises ModelUnavailableError with the names there are."""
    folders = tuple(folders)
    if _NAME.fullmatch(name):
        for folder in (WEIGHTS_FOLDER, *folders):
            file = folder / f"{name}.json"
            if file.is_file() and is_upscaler(file):
                return file
    names = ", ".join(card.name for card in available_upscalers(folders))
    raise ModelUnavailableError(f"There is no upscaler {name!r}; there are {names}.")


def open_upscaler(name_or_path: str | Path, device: str = "auto", folders: Iterable[Path] = ()) -> Upscaler:
    """`bicubic`, a model by name, or one by the path of its card (`….json`) or weights (`….safetensors`).

    Names are those of shipped models and of cards in `folders`. `device` is `auto` (a GPU when there is one), `cpu` or
    `cuda`; bicubic always runs on the CPU. Imports torch only for a network. Raises ModelUnavailableError naming what
    is missing, damaged or does not fit.
    """
    text = str(name_or_path)
    if text == "bicubic":
        return bicubic.BicubicUpscaler(bicubic_card())
    file = Path(name_or_path)
    card_file = file.with_suffix(".json") if file.suffix else find_upscaler(text, folders)
    card = read_card(card_file)

    from wsi_ml.sr.network import NetworkUpscaler  # torch loads here only: bicubic and the cards work without it

    return NetworkUpscaler(card, card_file.parent / card.weights, None if device == "auto" else device)
