"""Labels of what the teacher tells: classes of pixels, glands with their lumina; each no truth but a model's word."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_ml.inference.teacher import EPITHELIUM, LUMEN, REST

OTHER, EPITHELIAL, UNSURE = 0, 1, 255
"""Values of a mask; 255 is the value of pixels without label in the layout `folder`."""
LEAST, DOUBT = 0.5, 0.3
"""Epithelium is what is at least this probable; between the two the teacher is unsure."""
GLAND_PIXELS, LUMEN_PIXELS = 1000, 150
"""Smaller glands and lumina are left out, as Cerberus leaves them out at 0.5 µm/px."""
PALE = 205
"""A lumen is as bright as this in its darkest channel on most of its pixels."""


def classes_of(probabilities: np.ndarray) -> np.ndarray:
    """uint8 H×W of the teacher's 3×H×W: 1 epithelium, 0 anything else, 255 where it is unsure."""
    epithelium = probabilities[EPITHELIUM]
    leads = (epithelium > probabilities[LUMEN]) & (epithelium > probabilities[REST])
    classes = np.where(epithelium >= DOUBT, UNSURE, OTHER).astype(np.uint8)
    classes[(epithelium >= LEAST) & leads] = EPITHELIAL
    classes[(epithelium < LEAST) & (probabilities[LUMEN] > LEAST)] = OTHER
    return classes


def enlarged(probabilities: np.ndarray, step: int) -> np.ndarray:
    """float32 3×H×W → 3×H·step×W·step, linear between pixels: of the plane that is `step` times finer."""
    height, width = probabilities.shape[1:]
    return np.stack(
        [cv2.resize(each, (width * step, height * step), interpolation=cv2.INTER_LINEAR) for each in probabilities]
    )


def epithelial_share(classes: np.ndarray) -> float:
    """Share of epithelium among the pixels that have a label; 0 where none has."""
    return float(np.sum(classes == EPITHELIAL) / max(1, np.sum(classes != UNSURE)))


def glands_and_lumina(classes: np.ndarray, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(glands, lumina), int32 label maps H×W, of a mask and its picture at 0.5 µm/px.

    A gland is a connected piece of epithelium with the white holes it encloses; those holes are lumina. Pieces that
    touch the picture's edge are kept, as cut objects are in hand-made sets. What is no white hole stays outside.
    """
    epithelium = (classes == EPITHELIAL).astype(np.uint8)
    pieces, numbers = cv2.connectedComponents(epithelium, connectivity=4, ltype=cv2.CV_32S)
    glands, lumina = np.zeros(classes.shape, np.int32), np.zeros(classes.shape, np.int32)
    pale = rgb.min(-1) >= PALE
    found = holes = 0
    for number in range(1, pieces):
        piece = (numbers == number).astype(np.uint8)
        own = _pale_holes(piece, pale)
        whole = (piece > 0) | np.logical_or.reduce(own) if own else piece > 0
        if whole.sum() < GLAND_PIXELS:
            continue
        found += 1
        glands[whole] = found
        for hole in own:
            if hole.sum() >= LUMEN_PIXELS:
                holes += 1
                lumina[hole] = holes
    return glands, lumina


def _pale_holes(piece: np.ndarray, pale: np.ndarray) -> list[np.ndarray]:
    """Masks of the holes of a piece (uint8 H×W) that are white on more than half of their pixels."""
    count, numbers = cv2.connectedComponents(1 - piece, connectivity=8, ltype=cv2.CV_32S)
    edge = set(np.unique(np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])).tolist())
    holes = [numbers == each for each in range(1, count) if each not in edge]
    return [hole for hole in holes if pale[hole].mean() > 0.5]
