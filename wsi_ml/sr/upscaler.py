"""The contract of every ×2 upscaler, the cards of those that ship, and how to open one."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wsi_ml.errors import ModelOutputError, ModelUnavailableError
from wsi_ml.sr import bicubic

WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "models" / "weights"
CARD_FORMAT = 1


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
    """Sides need no multiple when 1; the callable pads by itself in any case."""
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


def card_from_json(value: dict[str, Any]) -> UpscalerCard:
    """Card of its JSON values; raises ModelUnavailableError for missing or unknown fields or another format."""
    if value.get("format") != CARD_FORMAT:
        raise ModelUnavailableError(f"The model card has format {value.get('format')!r}, not {CARD_FORMAT}.")
    try:
        low, high = value["mpp_range"]
        return UpscalerCard(**{**value, "mpp_range": (float(low), float(high))})
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnavailableError(f"The model card is damaged: {error}.") from error


def read_card(file: Path) -> UpscalerCard:
    """Card in a JSON file; raises ModelUnavailableError naming the file when it cannot be read."""
    return card_from_json(read_json(file))


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object of a card's file, whatever kind of model it describes; raises ModelUnavailableError."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"The model card {file.name} cannot be read: {type(error).__name__}.") from error
    if not isinstance(value, dict):
        raise ModelUnavailableError(f"The model card {file.name} is damaged: it holds no JSON object.")
    return value


def available_upscalers(folder: Path = WEIGHTS_FOLDER) -> list[UpscalerCard]:
    """Cards of bicubic and of every upscaler in `folder` that has a card and its weights; reads JSON only."""
    values = [read_json(file) for file in sorted(folder.glob("*.json"))]
    cards = [card_from_json(value) for value in values if value.get("kind") == "sr"]
    return [bicubic_card()] + [card for card in cards if (folder / card.weights).is_file()]


def open_upscaler(name_or_path: str | Path, device: str = "auto") -> Upscaler:
    """`bicubic`, a shipped model by name, or a model by the path of its card (`….json`) or weights (`….safetensors`).

    `device` is `auto` (a GPU when there is one), `cpu` or `cuda`; bicubic always runs on the CPU.
    Raises ModelUnavailableError naming what is missing, damaged or does not fit. Imports torch only for a network.
    """
    text = str(name_or_path)
    if text == "bicubic":
        return bicubic.BicubicUpscaler(bicubic_card())
    file = Path(name_or_path)
    if not file.suffix:
        file = WEIGHTS_FOLDER / f"{text}.json"
        if file.parent != WEIGHTS_FOLDER or not file.is_file():
            names = ", ".join(card.name for card in available_upscalers())
            raise ModelUnavailableError(f"There is no upscaler {text!r}; there are {names}.")
    card_file = file.with_suffix(".json")
    card = read_card(card_file)

    from wsi_ml.sr.network import NetworkUpscaler  # torch loads here only: bicubic and the cards work without it

    return NetworkUpscaler(card, card_file.parent / card.weights, None if device == "auto" else device)
