"""The held-out sets that `train.evaluate` measures on: pairs of stored and scanned pixels, and patches with a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from train.evaluate_tissue import TILES, plain_tiles
from wsi_ml.data.batches import NO_CLASS, FiniteSource, PatchBatch, make_batch
from wsi_ml.data.pairs import Compression, compress, slide_pairs, tile_files
from wsi_ml.data.tissue import CLASSES, CODES, TEST_SLIDES, TissuePatch, read_tissue_set, split_patches
from wsi_ml.errors import BadRequestError
from wsi_ml.slides.codec import decode_jpeg

Pairs = list[tuple[np.ndarray, np.ndarray]]
ATLAS_SLIDES = ("BS12", "lung-squamous-cell-carcinoma", "ectopic-pancreas")
"""Fixed before any score was seen; docs/training.md."""
ATLAS_WORDS = (
    "512-px tiles at native ×40 of the Pathology Atlas, compressed several times before they came here; ×20 is "
    "made by the store's own kernel (box2) and JPEG"
)
READ_BATCH = 32
WEAK = "weak labels (boxes on slides of known title and colour rules, 3–8 % wrong, none by a pathologist)"


@dataclass(frozen=True)
class PairSet:
    """Stored and scanned pixels in groups: of a slide, or of a class."""

    name: str
    words: str
    groups: tuple[str, ...]
    read: Callable[[str], Pairs]
    """(stored, scanned) uint8 pictures of one group."""
    slides: tuple[str, ...] = ()
    """Slides that a model measured here must not have been trained on."""


@dataclass(frozen=True)
class PatchSet:
    """Patches with their class; read in batches, because a dense grid of whole slides does not fit into memory."""

    name: str
    words: str
    classes: tuple[str, ...]
    read: Callable[[], Iterator[PatchBatch]]
    """All of them, in order, each time anew; rows without a class are not counted."""
    slides: tuple[str, ...] = ()
    """Slides that a model measured here must not have been trained on."""


def atlas_pairs(data_root: Path, slides: Sequence[str] = ATLAS_SLIDES, tiles: int | None = None) -> PairSet:
    """The first `tiles` tiles (all by default) of each slide; BadRequestError for a slide that is not there."""
    there = tile_files(data_root)
    if not there:
        raise FileNotFoundError(f"{data_root} holds none of the ×40 tile sets; name their folder with --data.")
    unknown = [slide for slide in slides if slide not in there]
    if unknown:
        raise BadRequestError(f"The tile sets hold no slide {unknown[0]}; they hold {', '.join(there)}.")
    words = f"{ATLAS_WORDS} ({Compression().text})"
    read = partial(slide_pairs, data_root, count=tiles)
    return PairSet("atlas", words, tuple(slides), read, tuple(slides))


def tissue_patches(data_root: Path) -> list[PatchSet]:
    """The three held-out sets of weak tissue classes that train.evaluate_tissue names, those that are there."""
    split = split_patches(read_tissue_set(data_root), TEST_SLIDES)
    eye = tuple(dict.fromkeys(slide for slide, _ in TILES))
    eye_words = (
        f"one class each, picked by eye, no pathologist; {', '.join(eye)}: pixels, not classes, of some are in the "
        "training of super-resolution"
    )
    held = ", ".join(TEST_SLIDES)
    sets = [
        ("tissue-weak, slide", f"{WEAK}; slide {held}", split.by_slide, TEST_SLIDES),
        ("tissue-weak, place", f"{WEAK}; the far quarter of slides whose rest is trained on", split.by_place, ()),
        ("plain tiles", eye_words, plain_tiles(data_root), ()),
    ]
    return [
        PatchSet(name, words, CODES, partial(_tissue_batches, patches), slides)
        for name, words, patches, slides in sets
        if patches
    ]


def as_stored(rgb: np.ndarray) -> np.ndarray:
    """A ×20 patch after the store's JPEG."""
    return decode_jpeg(compress(rgb))


def places_of(patches: PatchSet, classes: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """A model's classes as the set names them, and for each class of the set its place among them, −1 for none.

    Tissue classes go by name and by code alike.
    """
    codes = {name: code for code, name in CLASSES.items()}
    known = tuple(codes.get(name, name) for name in classes)
    wanted = [codes.get(name, name) for name in patches.classes]
    return known, np.array([known.index(name) if name in known else NO_CLASS for name in wanted], np.int64)


def source_patches(source: FiniteSource, name: str, words: str, held: tuple[str, ...]) -> PatchSet | None:
    """Every labelled patch of a test source; None for one without classes. `held`: slides not to be trained on."""
    if not source.classes:
        return None
    return PatchSet(name, words, source.classes, lambda: map(source.batch, range(len(source))), held)


def source_pairs(
    source: FiniteSource, name: str, words: str, held: tuple[str, ...], per_class: int, without: Sequence[str],
    seed: int,
) -> PairSet | None:  # fmt: skip
    """`per_class` pairs of each class of a test source, or of each slide of one without classes; None without ×40.

    Every patch is as likely as any other of its class, and the same for a seed. Classes in `without` are left out:
    paper A takes 100 patches of each of AT, LP, MM and TUM and none of BG. `held`: slides not to be trained on.
    """
    kept = _Reservoirs(per_class, seed)
    for index in range(len(source)):
        batch = source.batch(index)
        for row, slide in enumerate(source.slides_of(index)):
            label = int(batch.labels[row])
            title = slide if label == NO_CLASS else source.classes[label]
            if batch.has_base[row] and title not in without:
                kept.offer(title, (batch.stored[row].copy(), batch.base[row].copy()))
    return PairSet(name, words, tuple(kept.rows), kept.rows.__getitem__, held) if kept.rows else None


class _Reservoirs:
    """Up to `size` things of each title, every one offered as likely to stay (Vitter 1985, algorithm R)."""

    def __init__(self, size: int, seed: int):
        self.size, self.rng = size, np.random.default_rng(seed)
        self.rows: dict[str, Pairs] = {}
        self._seen: dict[str, int] = {}

    def offer(self, title: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
        rows = self.rows.setdefault(title, [])
        self._seen[title] = self._seen.get(title, 0) + 1
        if len(rows) < self.size:
            rows.append(pair)
        elif (place := int(self.rng.integers(self._seen[title]))) < self.size:
            rows[place] = pair


def _tissue_batches(patches: Sequence[TissuePatch]) -> Iterator[PatchBatch]:
    """Patches as the store keeps them."""
    for first in range(0, len(patches), READ_BATCH):
        some = patches[first : first + READ_BATCH]
        yield make_batch([as_stored(patch.rgb) for patch in some], [None] * len(some), [patch.label for patch in some])
