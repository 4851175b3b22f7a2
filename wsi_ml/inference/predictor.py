"""What a predictor is, which ones there are, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from wsi_ml.errors import ModelUnavailableError, UnknownModelError
from wsi_ml.geometry import Region
from wsi_ml.inference.card import NAME, PredictorCard, is_predictor, read_card
from wsi_ml.inference.tissue_predictor import TissuePredictor, tissue_card
from wsi_ml.inference.trust_predictor import find_trust, is_trust, open_trust, trust_cards
from wsi_ml.slides.pyramid import Pyramid

WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "models" / "weights"
BUILT_IN = "tissue"


class Predictor(Protocol):
    """A callable with a card: N×side×side×3 uint8 RGB of the stored plane → N×C×map_side×map_side uint8.

    Values are probabilities times 255, rounded. The same batch gives the same bytes on the same machine.
    """

    card: PredictorCard

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """The maps of some windows; see the class."""
        ...


@runtime_checkable
class Shared(Protocol):
    """A predictor that several threads may call at once, and that knows how many make it fastest."""

    numbers: str
    """What it computes with, such as `cpu bfloat16`: part of what decides the bytes of a result."""

    def callers(self, batches: int) -> int:
        """How many threads shall call it for a run of `batches` batches in all; told before the run."""
        ...


@runtime_checkable
class SlideFitted(Protocol):
    """A predictor that looks at the whole slide once before it tells windows of it."""

    def for_slide(self, pyramid: Pyramid) -> Predictor:
        """The predictor for the windows of this slide."""
        ...


@runtime_checkable
class Placed(Protocol):
    """A predictor to which it matters where a window lies."""

    def at(self, windows: np.ndarray, stored_windows: Sequence[Region]) -> np.ndarray:
        """As the call, for windows at their places in the stored plane, halo included; they may reach beyond it."""
        ...


Opener = Callable[..., Predictor]
"""Has the form of `open_predictor`."""


def available_predictors(folders: Iterable[Path] = ()) -> list[PredictorCard]:
    """Cards of the built-in predictor, of the shipped ones and of those in `folders`, by name; reads JSON only.

    A trust map for each upscaler, `trust-<name>`, is among them.

    A card that cannot be read, or without its weights, is left out: opening it by name says what is wrong with it. Of
    two of one name the shipped one counts.
    """
    cards = {BUILT_IN: tissue_card()}
    folders = tuple(folders)
    for folder in (WEIGHTS_FOLDER, *folders):
        for file in sorted(folder.glob("*.json")):
            card = _listed(file)
            if card is not None:
                cards.setdefault(card.name, card)
    for card in trust_cards(folders):
        cards.setdefault(card.name, card)
    return sorted(cards.values(), key=lambda card: card.name)


def find_card(name: str, folders: Iterable[Path] = ()) -> tuple[PredictorCard, Path | None]:
    """Card of that name and its file (None for the built-in one; the upscaler's card for its trust map).

    Raises UnknownModelError with the names there are, ModelUnavailableError when the card is damaged.
    """
    if name == BUILT_IN:
        return tissue_card(), None
    folders = tuple(folders)
    if NAME.fullmatch(name):
        for folder in (WEIGHTS_FOLDER, *folders):
            file = folder / f"{name}.json"
            if file.is_file() and is_predictor(file):
                return read_card(file), file
    trust = find_trust(name, folders)
    if trust is not None:
        return trust
    names = ", ".join(card.name for card in available_predictors(folders))
    raise UnknownModelError(f"There is no model {name!r} that predicts layers; there are {names}.")


def open_predictor(
    name_or_card: str | Path, device: str = "auto", threads: int = 0, folders: Iterable[Path] = ()
) -> Predictor:
    """A predictor by its name or by the path of its card (a `Path`), ready to be called.

    `device` is `auto` (a GPU when there is one), `cpu` or `cuda`; `threads` limits its CPU threads (0: every core).
    Raises UnknownModelError, and ModelUnavailableError naming what is missing, damaged or does not fit. Imports torch
    only for a network.
    """
    if isinstance(name_or_card, Path):
        card, file = read_card(name_or_card), name_or_card
    else:
        card, found = find_card(name_or_card, folders)
        if found is None:
            return TissuePredictor(threads=threads)
        if is_trust(card):
            return open_trust(found, device, threads)
        file = found

    from wsi_ml.inference.network_predictor import NetworkPredictor  # torch loads here only: listing works without it

    return NetworkPredictor(card, file.parent / card.about["weights"], device, threads)


class KeptPredictor:
    """An opener that keeps the last predictor it opened: a cohort loads its model once."""

    def __init__(self, opener: Opener = open_predictor):
        self._opener = opener
        self._choice: tuple[object, ...] = ()
        self._predictor: Predictor | None = None

    def __call__(
        self, model: str | Path, *, device: str = "auto", threads: int = 0, folders: tuple[Path, ...] = ()
    ) -> Predictor:
        """See `open_predictor`."""
        choice = (model, device, threads, folders)
        if self._predictor is None or choice != self._choice:
            self._predictor = self._opener(model, device=device, threads=threads, folders=folders)
            self._choice = choice
        return self._predictor


def _listed(file: Path) -> PredictorCard | None:
    """Card of a file, None when it is another model's, damaged, or without weights."""
    if not is_predictor(file):
        return None
    try:
        card = read_card(file)
    except ModelUnavailableError:
        return None
    return card if (file.parent / card.about["weights"]).is_file() else None
