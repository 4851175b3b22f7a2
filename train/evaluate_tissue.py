"""Measure a tissue predictor on held-out weak labels: accuracy, confusion, calibration; print them, fill in its card.

python -m train.evaluate_tissue --card wsi_ml/models/weights/tissue-fast.json [--write]

Three held-out sets, each less than one would wish: whole slides (two classes have more than one), other places of the
slides trained on (all six classes), and tiles of three more slides whose class is plain to the eye (two classes).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.card_scores import score_card
from wsi_ml.data.pairs import read_tiles
from wsi_ml.data.tissue import CODES, SIDE, TEST_SLIDES, TissuePatch, middle_of, read_tissue_set, split_patches
from wsi_ml.inference.predictor import Predictor
from wsi_ml.metrics.classification import calibration_error, confusion_matrix, recalls
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg

BINS = 10
"""Of the calibration error in the card; train.evaluate uses 15."""
TILE_SET = "sr-x40-dev2"
TILES = {
    ("morphea", "STR"): (1, 3, 4, 5, 7, 10, 11, 13, 14, 16, 19, 21, 22, 23, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36,
                         37, 38, 39),
    ("sarcina-ventriculi", "GLA"): (0, 2, 5, 7, 8, 11, 12, 14, 17, 18, 22, 28, 29, 32, 34, 36, 38),
    ("ectopic-pancreas", "GLA"): (2, 3, 9, 12, 14, 17, 20, 22, 27, 30, 31, 38, 39),
}  # fmt: skip
"""Numbers of x40 tiles that show one class, picked by eye on a contact sheet by us before any was told."""


@dataclass(frozen=True)
class Held:
    """One held-out set and what was told of it."""

    name: str
    words: str
    labels: np.ndarray
    shares: np.ndarray
    """Patches × classes, probabilities."""

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in the card."""
        counts = confusion_matrix(self.labels, self.shares.argmax(axis=1), len(CODES))
        found = {code: recall for code, recall in zip(CODES, recalls(counts), strict=True) if recall is not None}
        return {
            "set": self.name,
            "words": self.words,
            "patches": len(self.labels),
            "balanced_accuracy": round(float(np.mean(list(found.values()))), 4),
            "calibration_error": round(calibration_error(self.shares, self.labels, BINS), 4),
            "recall": {code: round(recall, 4) for code, recall in found.items()},
            "confusion": {"classes": list(CODES), "rows": counts.tolist()},
        }


def tell(predictor: Predictor, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities N×classes of 224-px pictures after the store's JPEG, each in the middle of its own window."""
    card, shares = predictor.card, []
    for rgb in pictures:
        seen = decode_jpeg(encode_jpeg(rgb))
        window = np.zeros((1, card.side, card.side, 3), np.uint8)
        # The map pixel of a picture laid in the corner of the window sees all of it and nothing else.
        window[0, :SIDE, :SIDE] = seen
        told = predictor(window)[0, :, 0, 0].astype(np.float32)
        shares.append(told / max(float(told.sum()), 1.0))
    return np.stack(shares)


def held(predictor: Predictor, name: str, words: str, patches: Sequence[TissuePatch]) -> Held:
    """A held-out set and what is told of it."""
    labels = np.array([patch.label for patch in patches])
    return Held(name, words, labels, tell(predictor, [patch.rgb for patch in patches]))


def plain_tiles(data_root: Path) -> list[TissuePatch]:
    """The middle 224 px at x20 of the TILES under `data_root`; none where the set is not there."""
    patches = []
    for (slide, code), numbers in TILES.items():
        files = [data_root / TILE_SET / slide / f"{number:03d}.jpg" for number in numbers]
        for rgb in read_tiles([file for file in files if file.is_file()]):
            patches.append(TissuePatch(middle_of(rgb), CODES.index(code), slide, 0, 0))
    return patches


def evaluate(predictor: Predictor, data_root: Path) -> list[Held]:
    """The held-out sets that are under `data_root`."""
    split = split_patches(read_tissue_set(data_root), TEST_SLIDES)
    rows = [
        held(predictor, "slide", f"weak labels; slide {', '.join(TEST_SLIDES)}, not trained on", split.by_slide),
        held(predictor, "place", "weak labels; the far quarter of slides that are trained on", split.by_place),
    ]
    tiles = plain_tiles(data_root)
    if tiles:
        words = "picked by eye, no pathologist; slides " + ", ".join(slide for slide, _ in TILES) + ", not trained on"
        rows.append(held(predictor, "plain tiles", words, tiles))
    return rows


def report(rows: Sequence[Held]) -> str:
    """The sets in words and tables."""
    lines = []
    for row in rows:
        value = row.to_json()
        lines += [
            f"{row.name}: {row.words}",
            f"  {value['patches']} patches, balanced accuracy {value['balanced_accuracy']:.3f}, "
            f"expected calibration error {value['calibration_error']:.3f}",
            "  true\\told " + " ".join(f"{code:>4}" for code in CODES),
        ]
        for code, counts in zip(CODES, value["confusion"]["rows"], strict=True):
            if any(counts):
                lines.append(f"  {code:>9} " + " ".join(f"{count:4d}" for count in counts))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the card or the data cannot be read."""
    return score_card("evaluate_tissue", __doc__, evaluate, report, argv)


if __name__ == "__main__":
    sys.exit(main())
