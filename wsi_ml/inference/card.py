"""The card of a predictor: what windows it takes, what maps it gives, where it may be used; JSON beside its weights."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.sr.upscaler import are_rows, read_json

KINDS = ("patch", "dense", "instance", "heatmap")
ACTIVATIONS = ("softmax", "sigmoid")
AROUND = ("around interior", "around boundary")
"""Channels of an `instance` model whose objects lie within objects of another kind, told by these; the card's
`postprocess` then has `within`."""
CARD_FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_COLOR = re.compile(r"#[0-9a-f]{6}")
_FIELDS = ("name", "kind", "mpp", "side", "halo", "stride", "sha256", "postprocess")
_NETWORK_FIELDS = ("patch", "picture", "normalise", "task")
"""Fields that only some networks have: side of their patches or pictures, how colours are prepared, which head."""
_PARSED = ("classes", "channels", "mpp_range", "background", "format")


@dataclass(frozen=True)
class PredictorClass:
    """A class that a predictor tells; `color` is `#rrggbb`, or None for one of the palette."""

    name: str
    color: str | None = None


@dataclass(frozen=True)
class PredictorCard:
    """A predictor's contract: what windows it takes, what maps it gives, where it may be used."""

    name: str
    kind: str
    """One of KINDS: `patch` (a vector a window), `dense`, `instance`, `heatmap` (one value a cell)."""
    classes: tuple[PredictorClass, ...]
    channels: tuple[str, ...]
    """Names of the map's channels: the classes' for `patch` and `dense`; `interior`, `boundary`, the classes' (where
    there is more than one) and AROUND (where `postprocess` has `within`) for `instance`; one for `heatmap`."""
    mpp: float
    """µm per stored pixel that it was trained at."""
    mpp_range: tuple[float, float]
    side: int
    """Side of a window in stored pixels."""
    halo: int
    """Stored pixels on each side of a window that its map leaves out."""
    stride: int
    """Stored pixels per map pixel; (side − 2·halo) is a multiple of it."""
    sha256: str
    """Hex SHA-256 of the weights; of the definition for a predictor without weights."""
    background: tuple[str, ...] = ()
    """Classes that are told but not drawn."""
    postprocess: dict[str, Any] = field(default_factory=dict)
    """Settings of the drawing of polygons that belong to these weights (thresholds)."""
    about: dict[str, Any] = field(default_factory=dict)
    """The rest of the card: architecture, config, parameters, data, licences, training, scores."""

    @property
    def core(self) -> int:
        """Side of the part of a window that its map tells, in stored pixels."""
        return self.side - 2 * self.halo

    @property
    def map_side(self) -> int:
        """Side of a window's map in map pixels."""
        return self.core // self.stride

    @property
    def drawn(self) -> tuple[str, ...]:
        """Names of the classes that become features, sorted: a feature's class number counts them."""
        return tuple(sorted(each.name for each in self.classes if each.name not in self.background))

    @property
    def colors(self) -> dict[str, str | None]:
        """Stated colour of each drawn class, None where the palette decides."""
        return {each.name: each.color for each in self.classes if each.name not in self.background}

    @property
    def digest(self) -> str:
        """Hex SHA-256 over all of the card that shapes a prediction: weights, windows, classes, settings."""
        parts = {name: getattr(self, name) for name in (*_FIELDS, "channels", "background")}
        classes = [(each.name, each.color) for each in self.classes]
        network = {name: self.about.get(name) for name in ("architecture", "config", "activation", "multiple")}
        network |= {name: self.about[name] for name in _NETWORK_FIELDS if name in self.about}
        return hashlib.sha256(json.dumps([parts, classes, network], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values, in the form that `card_from_json` reads."""
        own = {name: getattr(self, name) for name in _FIELDS}
        classes = [{"name": each.name, "color": each.color} for each in self.classes]
        lists = {
            "channels": list(self.channels),
            "mpp_range": list(self.mpp_range),
            "background": list(self.background),
        }
        return {"format": CARD_FORMAT, **own, "classes": classes, **lists, **self.about}


def read_card(file: Path) -> PredictorCard:
    """Card in a JSON file; raises ModelUnavailableError naming the file when it cannot be read or is no predictor's."""
    card = card_from_json(read_json(file), file.name)
    if card.name != file.stem:
        raise ModelUnavailableError(
            f"The model card {file.name} calls itself “{card.name}”; rename it to {card.name}.json."
        )
    return card


def is_predictor(file: Path) -> bool:
    """True for a JSON file that is not the card of a model of another kind (super-resolution)."""
    try:
        return read_json(file).get("kind") in KINDS
    except ModelUnavailableError:
        return True


def card_from_json(value: dict[str, Any], file_name: str = "given") -> PredictorCard:
    """Card of its JSON values; raises ModelUnavailableError naming the file and the field that is wrong."""
    if value.get("format") != CARD_FORMAT:
        raise ModelUnavailableError(
            f"The model card {file_name} has format {value.get('format')!r}; this Ocular reads format {CARD_FORMAT}."
        )
    try:
        low, high = (float(each) for each in value["mpp_range"])
        card = PredictorCard(
            name=str(value["name"]),
            kind=str(value["kind"]),
            classes=tuple(PredictorClass(str(each["name"]), each.get("color")) for each in value["classes"]),
            channels=tuple(str(each) for each in value["channels"]),
            mpp=float(value["mpp"]),
            mpp_range=(low, high),
            side=int(value["side"]),
            halo=int(value["halo"]),
            stride=int(value["stride"]),
            sha256=str(value["sha256"]),
            background=tuple(str(each) for each in value.get("background", ())),
            postprocess=dict(value.get("postprocess", {})),
            about={name: each for name, each in value.items() if name not in _FIELDS and name not in _PARSED},
        )
        fault = _fault(card)
    except KeyError as error:
        raise ModelUnavailableError(f"The model card {file_name} has no field {error}.") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelUnavailableError(f"The model card {file_name} is damaged: {error}.") from error
    if fault:
        raise ModelUnavailableError(f"The model card {file_name} is wrong: {fault}.")
    return card


def _fault(card: PredictorCard) -> str:
    """The first thing in a card that contradicts the contract, in words; empty when there is none."""
    names = tuple(each.name for each in card.classes)
    named = {"patch": names, "dense": names, "heatmap": card.channels[:1]}
    around = AROUND if card.postprocess.get("within") else ()
    instance = ("interior", "boundary", *(names if len(names) > 1 else ()), *around)
    weights, activation = card.about.get("weights", ""), card.about.get("activation")
    checks = (
        (NAME.fullmatch(card.name), "its name may hold letters, digits, dots, dashes and underscores only"),
        (card.kind in KINDS, f"kind {card.kind!r} is none of {', '.join(KINDS)}"),
        (names and len(set(names)) == len(names), "its classes are missing or named twice"),
        (all(each.color is None or _COLOR.fullmatch(each.color) for each in card.classes), "a colour is not #rrggbb"),
        (card.channels == named.get(card.kind, instance), f"its channels do not fit kind {card.kind} and its classes"),
        (set(card.background) < set(names), "its background names unknown classes, or every one"),
        (0 < card.mpp_range[0] <= card.mpp <= card.mpp_range[1], "mpp lies outside mpp_range"),
        (card.halo >= 0 and card.stride >= 1 and card.core >= card.stride, "side, halo and stride leave no map"),
        (card.core % card.stride == 0, "(side − 2·halo) is no multiple of stride"),
        (isinstance(weights, str) and weights and Path(weights).name == weights, "weights is not a file's plain name"),
        (activation in ACTIVATIONS, f"activation is none of {', '.join(ACTIVATIONS)}"),
        (isinstance(card.about.get("config", {}), dict), "config is not an object"),
        (type(card.about.get("parameters", 0)) is int, "parameters is no whole number"),
        (
            are_rows(card.about.get("data", [])) and are_rows(card.about.get("scores", [])),
            "data and scores are not lists of objects",
        ),
    )
    return next((text for holds, text in checks if not holds), "")
