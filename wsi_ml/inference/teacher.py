"""A published segmenter of epithelium as a teacher: probabilities of epithelium and lumen on H&E pictures at 2 µm/px.

The network is the SegResNetVAE `model_v1.onnx` of lavlab-shell 0.9.1 (MIT, M. Barrett and others, Medical College of
Wisconsin). What its program says and does: made for prostate, pictures of 2 µm/px (its library's default is 1), three
channels (eosin, hematoxylin, mean optical density, each from 0 to its 99th percentile on the slide) and three logits
read through a sigmoid: lumen, epithelium, background. There is no stroma among them. The program finds the stains of
each slide by Macenko's method; here they are the fixed vectors of Ruifrok and Johnston (2001), because on a slide that
is purple all over both of Macenko's vectors came out nearly alike and the teacher fell silent.

What it says is no truth: scores against it are agreement with a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from wsi_ml.errors import BadRequestError, ModelUnavailableError
from wsi_ml.geometry import ceil_div

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime
except ImportError:  # an extra: only the teacher needs it
    onnxruntime = None

NAME = "model_v1"
SOURCE = "lavlab-shell 0.9.1, model_v1.onnx (SegResNetVAE)"
LICENCE = "MIT"
WORDS = "agreement with a model"
"""What a score against these labels is."""
MPP = 2.0
"""µm/px of the pictures it is shown; 1 µm/px gave only the rims of large lumina, 0.5 nothing."""
LUMEN, EPITHELIUM, REST = range(3)
"""Channels it tells."""
HEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
"""Optical densities of the stains in red, green and blue (Ruifrok and Johnston 2001)."""
HEMATOXYLIN_GAIN = 1.25
"""By eye on two slides: at 1 it passed over pale glands, at 1.4 it called the stroma between glands epithelium."""
TOP = 99.0
"""Percentile of a stain on the slide's tissue that is shown as 1."""
GLASS_LEAST, GLASS_SPREAD = 212, 30
GLASS_PIXELS, GLASS_UNKNOWN = 100, 240.0
MULTIPLE = 64
"""Sides the network takes."""
MARGIN = 96
"""Mirror image shown around a picture."""
WINDOW, OVERLAP = 960, 320
"""Pictures larger than a window are shown in windows that lie over each other by so much."""
BROWN_LEAD, BROWN_SHARE = 8, 0.02
EOSIN_SHARE = 0.15
"""Eosin's top over hematoxylin's is above this in H&E (0.27 to 0.68 on twelve slides) and below in a blue immunostain
(0.004 and 0.06 on two)."""


class Session(Protocol):
    """What is used of an ONNX Runtime session."""

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs of the network for named inputs."""
        ...


@dataclass(frozen=True)
class Staining:
    """How a slide is stained, so that its pictures can be shown as the network knows them."""

    glass: float
    """Brightness of empty glass, 200 to 255."""
    tops: tuple[float, float, float]
    """Eosin, hematoxylin and mean density that are shown as 1."""
    brown: float
    """Share of the tissue that is browner than H&E can be, 0 to 1."""

    @property
    def is_he(self) -> bool:
        """False where there is so much brown, or so little eosin, that the slide is rather an immunostain."""
        return self.brown < BROWN_SHARE and self.tops[0] >= EOSIN_SHARE * self.tops[1]


class Teacher:
    """The network behind a picture-in, probabilities-out face; any object with `run` serves as its session."""

    def __init__(self, session: Session):
        self._session = session

    def probabilities(self, rgb: np.ndarray, staining: Staining) -> np.ndarray:
        """float32 3×H×W, 0 to 1: lumen, epithelium, rest, of a picture uint8 H×W×3 at `MPP`.

        They are told apart one by one and do not add up to 1. What lies beyond the picture is its mirror image.
        """
        height, width = rgb.shape[:2]
        rows, columns = _axis(height), _axis(width)
        total = np.zeros((3, len(rows.places), len(columns.places)), np.float32)
        weight = np.zeros(total.shape[1:], np.float32)
        tapers = np.minimum.outer(rows.taper, columns.taper)
        for top in rows.starts:
            for left in columns.starts:
                bottom, right = top + rows.window, left + columns.window
                area = rgb[np.ix_(rows.places[top:bottom], columns.places[left:right])]
                total[:, top:bottom, left:right] += tapers * self._told(stain_channels(area, staining))
                weight[top:bottom, left:right] += tapers
        inside = (slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width))
        return total[:, *inside] / weight[inside]

    def _told(self, shown: np.ndarray) -> np.ndarray:
        logits = self._session.run(None, {"input": shown[None]})[0][0].astype(np.float32)
        return 1.0 / (1.0 + np.exp(-logits.clip(-80.0, 80.0)))


@dataclass(frozen=True)
class _Axis:
    """One axis of a picture cut into windows that lie over each other."""

    places: np.ndarray
    """Pixel of the picture at each place: the picture with a margin of its mirror image around it."""
    starts: tuple[int, ...]
    window: int
    taper: np.ndarray
    """Weight along a window, falling towards its ends."""


def _axis(length: int) -> _Axis:
    """Windows along `length` pixels; the network's group norm sees a window as a whole, so neighbours are blended."""
    full = length + 2 * MARGIN
    full += -full % MULTIPLE
    window = min(WINDOW, full)
    count = max(1, ceil_div(full - OVERLAP, WINDOW - OVERLAP))
    starts = tuple(np.linspace(0, full - window, count).round().astype(int).tolist())
    ends = np.minimum(np.arange(window), np.arange(window)[::-1]) + 1
    return _Axis(_mirrored(-MARGIN, full, length), starts, window, np.minimum(ends / OVERLAP, 1.0).astype(np.float32))


def open_teacher(path: Path | str, threads: int = 1) -> Teacher:
    """The teacher from its ONNX file, whose weights lie beside it (`model_v1.onnx.data`).

    Raises BadRequestError where ONNX Runtime is not installed, ModelUnavailableError for a file that is missing or no
    network of this kind.
    """
    path = Path(path)
    if onnxruntime is None:
        raise BadRequestError("The teacher needs ONNX Runtime, which is not installed: pip install -e .[onnx]")
    for file in (path, path.with_name(f"{path.name}.data")):
        if not file.is_file():
            raise ModelUnavailableError(
                f"The teacher's file “{file.name}” is not in “{path.parent.name}”; both files of it come with "
                "lavlab-shell 0.9.1, in shell/weights (pip download --no-deps lavlab-shell==0.9.1)."
            )
    faults = (runtime.Fail, runtime.InvalidProtobuf, runtime.InvalidGraph, runtime.RuntimeException, RuntimeError)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = max(1, threads), 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except faults as error:
        raise ModelUnavailableError(
            f"“{path.name}” cannot be opened as an ONNX network: {type(error).__name__}."
        ) from error
    if [each.name for each in session.get_inputs()] != ["input"]:
        raise ModelUnavailableError(f"“{path.name}” is not the teacher: it has no single input named “input”.")
    return Teacher(session)


def staining_of(rgb: np.ndarray) -> Staining:
    """How the slide of which these pixels are is stained; uint8 …×3, an overview or many of its pictures.

    Raises BadRequestError where nothing but glass is shown.
    """
    pixels = rgb.reshape(-1, 3)
    brightest, darkest = pixels.max(1).astype(np.int16), pixels.min(1).astype(np.int16)
    is_glass = (brightest > GLASS_LEAST) & (brightest - darkest < GLASS_SPREAD)
    glass = float(np.clip(pixels[is_glass].mean(), 200, 255)) if is_glass.sum() >= GLASS_PIXELS else GLASS_UNKNOWN
    tissue = pixels[~is_glass]
    if not len(tissue):
        raise BadRequestError("The picture shows no tissue, only glass: the teacher has nothing to learn stains from.")
    tops = np.percentile(_stains(tissue, glass), TOP, axis=0).clip(1e-3)
    tops[1] /= HEMATOXYLIN_GAIN
    # Eosin and hematoxylin take green away before blue; brown takes blue.
    brown = float(np.mean(tissue[:, 1].astype(np.int16) - tissue[:, 2] > BROWN_LEAD))
    return Staining(glass, (float(tops[0]), float(tops[1]), float(tops[2])), brown)


def stain_channels(rgb: np.ndarray, staining: Staining) -> np.ndarray:
    """float32 3×H×W, 0 to 1: eosin, hematoxylin and mean optical density of a picture uint8 H×W×3."""
    shown = _stains(rgb, staining.glass) / np.asarray(staining.tops, np.float32)
    return np.ascontiguousarray(shown.clip(0.0, 1.0).transpose(2, 0, 1), np.float32)


def _stains(rgb: np.ndarray, glass: float) -> np.ndarray:
    density = -np.log10(np.clip(rgb.astype(np.float32), 1.0, glass) / np.float32(glass))
    amounts = density @ _unmixing().T
    return np.stack([amounts[..., 1], amounts[..., 0], density.mean(-1)], -1)


def _unmixing() -> np.ndarray:
    """3×3: hematoxylin, eosin and what neither explains, from optical densities."""
    hematoxylin, eosin = (np.asarray(each) / np.linalg.norm(each) for each in (HEMATOXYLIN, EOSIN))
    third = np.cross(hematoxylin, eosin)
    return np.linalg.inv(np.column_stack([hematoxylin, eosin, third / np.linalg.norm(third)])).astype(np.float32)


def _mirrored(start: int, length: int, size: int) -> np.ndarray:
    """Indices from `start` on, those beyond 0 … size − 1 mirrored at the edge (which is not repeated)."""
    if size == 1:
        return np.zeros(length, np.int64)
    turn = 2 * (size - 1)
    places = np.abs(np.arange(start, start + length)) % turn
    return np.minimum(places, turn - places)
