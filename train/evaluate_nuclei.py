"""Measure a nuclei predictor against truth outlined by hand and truth drawn by us; print a table, fill in its card.

python -m train.evaluate_nuclei --card wsi_ml/models/weights/nuclei-fast.json [--write]

Every picture goes through the card's own windows, post-processing and the store's JPEG, as a slide would. Scores are
means over pictures; objects match above IoU 0.5.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from train.card_scores import score_card
from wsi_ml.data.nuclei import TEST, NucleiPicture, draw_parts, read_hand_set, read_picture
from wsi_ml.data.nuclei_batches import resize_labels
from wsi_ml.inference.card import PredictorCard
from wsi_ml.inference.cerberus_finder import finder_of
from wsi_ml.inference.predictor import Predictor
from wsi_ml.metrics.label_maps import label_pairs
from wsi_ml.metrics.segmentation import Detection, aggregated_jaccard, dice, match
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg
from wsi_ml.slides.kernel import halve_pixels

DIAMETER = 14.0
"""Stored pixels (7 µm at 0.5 µm/px) to which hand-outlined pictures of unknown scale are brought by their truth."""
CLUSTERS = {"pale on white": TEST[:5], "crowded on violet": TEST[5:9], "large, pale on violet": TEST[9:]}
SCENE_SEED, SCENE_PARTS = 7_000, 9
"""A drawn scene that no training uses."""
MONUSEG = "monuseg-train-nc"
NAMES = ("dice", "aji", "pq", "dq", "sq", "precision", "recall")


@dataclass(frozen=True)
class Row:
    """Scores of one set of pictures: means over its pictures."""

    name: str
    words: str
    pictures: int
    nuclei: int
    values: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in the card; `f1` is `dq`, which is the same number."""
        return {
            "set": self.name,
            "words": self.words,
            "pictures": self.pictures,
            "nuclei": self.nuclei,
            **self.values,
            "f1": self.values["dq"],
        }


def stored(picture: NucleiPicture) -> NucleiPicture:
    """The picture after the store's JPEG."""
    return NucleiPicture(picture.name, decode_jpeg(encode_jpeg(picture.rgb)), picture.labels)


def scaled(picture: NucleiPicture) -> NucleiPicture:
    """The picture with nuclei of DIAMETER, by its truth."""
    factor = DIAMETER / picture.diameter()
    height, width = picture.labels.shape
    size = (round(width * factor), round(height * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    rgb = cv2.resize(picture.rgb, size, interpolation=method)
    return NucleiPicture(picture.name, rgb, resize_labels(picture.labels, size))


def halved(picture: NucleiPicture) -> NucleiPicture:
    """A ×40 picture as the store keeps it: kernel `box2`."""
    height, width = picture.labels.shape
    labels = resize_labels(picture.labels, ((width + 1) // 2, (height + 1) // 2))
    return NucleiPicture(picture.name, halve_pixels(picture.rgb), labels)


def tell(predictor: Predictor, rgb: np.ndarray) -> np.ndarray:
    """Maps uint8 C×H×W of a whole picture, window by window; beyond its edge its border pixels are repeated."""
    card, (height, width) = predictor.card, rgb.shape[:2]
    rows, columns = (-(-length // card.core) for length in (height, width))
    down, right = rows * card.core - height + card.halo, columns * card.core - width + card.halo
    wide = cv2.copyMakeBorder(rgb, card.halo, down, card.halo, right, cv2.BORDER_REPLICATE)
    maps = np.zeros((len(card.channels), rows * card.core, columns * card.core), np.uint8)
    for y in range(0, rows * card.core, card.core):
        for x in range(0, columns * card.core, card.core):
            window = wide[y : y + card.side, x : x + card.side]
            maps[:, y : y + card.core, x : x + card.core] = predictor(window[None].copy())[0]
    return maps[:, :height, :width]


def agreement(truth: np.ndarray, told: np.ndarray) -> dict[str, float]:
    """Scores of a label map against the truth's; a score without denominator is 1 where nothing was missed."""
    pairs, truth_areas, told_areas = label_pairs(truth, told)
    both = (truth > 0) & (told > 0)
    matched = match(pairs)
    truth_count, told_count = int((truth_areas > 0).sum()), int((told_areas > 0).sum())
    found = Detection(
        len(matched), told_count - len(matched), truth_count - len(matched), float(pairs.iou[matched].sum())
    )
    overlap = dice(float(both.sum()), float(truth_areas.sum()), float(told_areas.sum()))
    values = {"dice": overlap, "aji": aggregated_jaccard(pairs, truth_areas, told_areas)}
    values |= {name: getattr(found, name) for name in ("pq", "dq", "sq", "precision", "recall")}
    return {name: 1.0 if value is None else float(value) for name, value in values.items()}


def measure(predictor: Predictor, name: str, words: str, pictures: Iterable[NucleiPicture]) -> Row:
    """One row of the table."""
    scores, nuclei = [], 0
    for picture in tqdm(list(pictures), desc=name, unit="picture", leave=False):
        seen = stored(picture)
        scores.append(agreement(seen.labels, segment(tell(predictor, seen.rgb), predictor.card)))
        nuclei += seen.count()
    means = {key: round(float(np.mean([score[key] for score in scores])), 4) for key in NAMES}
    return Row(name, words, len(scores), nuclei, means)


def segment(maps: np.ndarray, card: PredictorCard) -> np.ndarray:
    """Label map int32 of maps uint8 2×H×W, by the card's post-processing."""
    finder = finder_of(card.postprocess, card.postprocess.get("threshold"), card.mpp * card.stride)
    labels = finder.find(maps, (0, 0)).labels
    areas_um2 = np.bincount(labels.ravel()) * card.mpp**2
    least, most = card.postprocess.get("min_area_um2", 0.0), card.postprocess.get("max_area_um2", np.inf)
    return np.where(((areas_um2 >= least) & (areas_um2 <= most))[labels], labels, 0)


def evaluate(predictor: Predictor, data_root: Path) -> list[Row]:
    """All rows; sets that are not under `data_root` are left out."""
    hand = read_hand_set(data_root)
    rows = [
        measure(
            predictor, f"dsb2018 test: {name}", "hand outlines, a cluster of look-alike pictures never trained on; "
            f"scaled by the truth to a median diameter of {DIAMETER:.0f} px", [scaled(hand[each]) for each in names],
        )
        for name, names in CLUSTERS.items()
    ]  # fmt: skip
    drawn = [part.picture for part in draw_parts(SCENE_SEED, SCENE_PARTS)]
    rows.append(measure(predictor, "drawn scene", "exact truth of a drawn scene never trained on", drawn))
    folder = data_root / MONUSEG
    if folder.is_dir():
        files = sorted((folder / "instances").glob("*.png"))
        pictures = [halved(read_picture(folder / "images" / f"{file.stem}.jpg", file.parent)) for file in files]
        words = "hand outlines (CC BY-NC-SA): measured on once, never trained on or selected by; x40 halved to x20"
        rows.append(measure(predictor, "MoNuSeg 2018 training, 13 pictures", words, pictures))
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| set | pictures | nuclei | " + " | ".join(NAMES) + " |", "| --- " * (len(NAMES) + 3) + "|"]
    for row in rows:
        numbers = " | ".join(f"{row.values[name]:.3f}" for name in NAMES)
        lines.append(f"| {row.name} | {row.pictures} | {row.nuclei} | {numbers} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 with one sentence when the card or the data cannot be read."""
    return score_card("evaluate_nuclei", __doc__, evaluate, table, argv)


if __name__ == "__main__":
    sys.exit(main())
