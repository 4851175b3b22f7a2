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
from wsi_ml.sr import upscaler

WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "models" / "weights"
BUILT_IN = "tissue"
OWN_TISSUE = "own"
"""In a card: the predictor chooses its windows itself."""
WHOLE_SLIDE_NETWORK = "takahama"
"""Architecture whose predictor chooses its windows and may need all of them; see `slide_predictor.py`."""


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


@runtime_checkable
class Choosing(Protocol):
    """A predictor that chooses its windows itself, of a grid without overlap; of a slide, so it comes of `for_slide`.

    Its card has `"tissue": "own"`; other tissue and overlapping windows are refused.
    """

    windows: np.ndarray
    """n × 2 int32: column and row."""


@runtime_checkable
class WholeSlide(Choosing, Protocol):
    """A predictor whose answer for a window depends on all windows of the slide.

    Called with windows it gives parts of any size in place of maps; of all parts come the maps.
    """

    @property
    def part_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns (uint8) of a window's part."""
        ...

    def whole(self, windows: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the windows that are told, ascending; their maps, n×C×map_side×map_side uint8) of all parts."""
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


def card_faults(folders: Iterable[Path]) -> list[str]:
    """Why models in `folders` are not offered, a sentence for each card that is damaged or lacks its weights."""
    faults = [_fault_of(file) for folder in folders for file in sorted(folder.glob("*.json"))]
    return [fault for fault in faults if fault]


def _fault_of(file: Path) -> str:
    try:
        weights = upscaler.read_card(file).weights if upscaler.is_upscaler(file) else read_card(file).about["weights"]
    except ModelUnavailableError as error:
        return str(error)
    there = (file.parent / weights).is_file()
    return "" if there else f"The weights {weights} of the model card {file.name} are not there."


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

    if card.about.get("architecture") == WHOLE_SLIDE_NETWORK:
        from wsi_ml.inference.slide_predictor import open_slide_predictor  # as below

        return open_slide_predictor(card, file.parent / card.about["weights"], device, threads)

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
