"""Tables, words and the picture of benchmarks.rate_distortion, made from its points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.common import ROOT, table, write_result
from benchmarks.curves import Axis, Curve, draw_curves
from wsi_ml.metrics.rate import delta_rate, rate_at
from wsi_ml.slides.codec import STORE_STEPS, steps_text

PICTURE = ROOT / "docs" / "images" / "rate_distortion.png"
MEASURES = ("PSNR", "SSIM", "GMSD")
"""GMSD is kept with its sign turned, so that more is better in all three."""
BEST = {"SSIM": 1.0, "GMSD": 0.0}
PLACES = {"PSNR": 2, "SSIM": 4, "GMSD": 4}
DEFAULT_SERIES = "steps 4:4:4"
DEFAULT_LABEL = f"steps {STORE_STEPS[0]}/{STORE_STEPS[1]}"
GOALS = {"JPEG": -0.50, "WebP": -0.25, "AVIF 4:2:0": 0.0, "AVIF 4:4:4": 0.0}
GRID = 400
COLOURS = {
    "JPEG": (230, 159, 0), "WebP": (204, 121, 167), "AVIF 4:2:0": (86, 180, 233), "AVIF 4:4:4": (0, 114, 178),
    "JPEG XL": (0, 158, 115),
}  # fmt: skip
OURS = ((213, 94, 0), (140, 20, 60), (90, 60, 20))
BICUBIC, ANNEX_K = (150, 150, 150), (240, 180, 150)
X_RANGE = (60.0, 360.0)


@dataclass(frozen=True)
class Point:
    """One setting: bytes in kB for each ×40 megapixel, of the top level and of the whole pyramid; its quality."""

    label: str
    top: float
    whole: float
    quality: dict[str, float]


@dataclass(frozen=True)
class Series:
    """Settings of one coder, by slide, in one order."""

    name: str
    slides: dict[str, list[Point]]

    def mean(self) -> list[Point]:
        """Points averaged over the slides, each counting once."""
        found = []
        for several in zip(*self.slides.values(), strict=True):
            quality = {name: float(np.mean([point.quality[name] for point in several])) for name in MEASURES}
            top, whole = (float(np.mean([getattr(point, part) for point in several])) for part in ("top", "whole"))
            found.append(Point(several[0].label, top, whole, quality))
        return found


@dataclass(frozen=True)
class Measured:
    """One measurement: the store with each upscaler, the ×40 formats, tiles of each slide."""

    stores: Sequence[Series]
    peers: Sequence[Series]
    tiles: int

    def store(self, encoding: str, model: str) -> Series:
        """The series of a store encoding with an upscaler."""
        return next(series for series in self.stores if series.name == f"{encoding} + {model}")


def rising(points: Sequence[Point], measure: str, part: str) -> tuple[list[float], list[float]]:
    """Rates and qualities in order of rate, without points that a cheaper one equals or beats."""
    rates: list[float] = []
    qualities: list[float] = []
    for point in sorted(points, key=lambda point: getattr(point, part)):
        if not qualities or point.quality[measure] > qualities[-1]:
            rates.append(getattr(point, part))
            qualities.append(point.quality[measure])
    return rates, qualities


def shares(
    ours: Series, peer: Series, measure: str, part: str
) -> tuple[float | None, list[float], tuple[float, float]]:
    """Delta rate on the mean curves, on each slide's own, and the range of qualities of the first."""
    delta = delta_rate(*rising(ours.mean(), measure, part), *rising(peer.mean(), measure, part))
    each = [
        delta_rate(*rising(ours.slides[slide], measure, part), *rising(peer.slides[slide], measure, part))
        for slide in ours.slides
    ]
    kept = [one.share for one in each if one is not None]
    return (delta.share if delta else None), kept, ((delta.low, delta.high) if delta else (0.0, 0.0))


def shown(measure: str, value: float) -> str:
    """A quality in the measure's own sign and places."""
    return f"{abs(value):.{PLACES[measure]}f}"


def share_cell(ours: Series, peer: Series, measure: str, part: str) -> str:
    """`−45 % (−48 … −41)`, with the range over the slides."""
    share, each, _ = shares(ours, peer, measure, part)
    if share is None:
        return "no common quality"
    spread = f" ({signed(min(each))} … {signed(max(each))})" if each else ""
    return f"{signed(share)} %{spread}"


def signed(share: float) -> str:
    """A share in per cent with its sign."""
    return f"{100 * share:+.0f}".replace("-", "−")


def ahead(ours: Series, peer: Series, measure: str) -> str:
    """Where ours takes fewer top-level bytes than the peer, in quality and in our kB/Mpx."""
    our_curve, peer_curve = rising(ours.mean(), measure, "top"), rising(peer.mean(), measure, "top")
    low, high = max(our_curve[1][0], peer_curve[1][0]), min(our_curve[1][-1], peer_curve[1][-1])
    if low >= high:
        return "no common quality"
    grid = np.linspace(low + 1e-9, high - 1e-9, GRID)
    pairs = [(quality, rate_at(*our_curve, quality), rate_at(*peer_curve, quality)) for quality in grid]
    better = [(quality, mine) for quality, mine, theirs in pairs if mine and theirs and mine < theirs]
    if not better:
        return "nowhere"
    first, last = better[0], better[-1]
    words = "everywhere, " if len(better) == GRID else ""
    return f"{words}{shown(measure, first[0])} … {shown(measure, last[0])} ({first[1]:.0f} … {last[1]:.0f} kB)"


def delta_table(ours: Series, peers: Sequence[Series]) -> str:
    """One row for each peer and measure."""
    rows: list[dict[str, object]] = []
    for peer in peers:
        for measure in MEASURES:
            _, _, (low, high) = shares(ours, peer, measure, "top")
            rows.append({
                "against ×40": peer.name, "at equal": measure,
                "bytes, top level": share_cell(ours, peer, measure, "top"),
                "whole pyramid": share_cell(ours, peer, measure, "whole"),
                "averaged over": f"{shown(measure, low)} … {shown(measure, high)}" if low or high else "–",
                "fewer bytes in": ahead(ours, peer, measure), "goal": goal_cell(ours, peer, measure),
            })  # fmt: skip
    return table(rows)


def goal_cell(ours: Series, peer: Series, measure: str) -> str:
    """Whether the mean saving reaches the goal set against this peer."""
    goal, (share, _, _) = GOALS.get(peer.name), shares(ours, peer, measure, "top")
    if goal is None or share is None:
        return "–"
    words = "ahead" if goal == 0.0 else f"{signed(goal)} %"
    return f"{words}: {'reached' if share < 0.0 and share <= goal else 'not reached'}"


def points_table(series: Sequence[Series]) -> str:
    """Every setting, averaged over the slides."""
    rows: list[dict[str, object]] = []
    for each in series:
        for point in sorted(each.mean(), key=lambda point: point.top):
            here = (
                f"**{point.label}**"
                if each.name.startswith(DEFAULT_SERIES) and point.label == DEFAULT_LABEL
                else point.label
            )
            rows.append({
                "coder": each.name, "setting": here, "kB/Mpx, top level": f"{point.top:.1f}",
                "whole pyramid": f"{point.whole:.1f}", "PSNR dB": shown("PSNR", point.quality["PSNR"]),
                "SSIM": shown("SSIM", point.quality["SSIM"]), "GMSD": shown("GMSD", point.quality["GMSD"]),
            })  # fmt: skip
    return table(rows)


def steps_table(ours: Series) -> str:
    """What the next finer step costs and brings."""
    rows: list[dict[str, object]] = []
    points = sorted(ours.mean(), key=lambda point: point.top)
    for before, point in zip([None, *points], points, strict=False):
        row: dict[str, object] = {
            "steps": f"**{point.label[6:]}**" if point.label == DEFAULT_LABEL else point.label[6:],
            "kB/Mpx": f"{point.top:.1f}", "PSNR dB": shown("PSNR", point.quality["PSNR"]),
            "SSIM": shown("SSIM", point.quality["SSIM"]), "GMSD": shown("GMSD", point.quality["GMSD"]),
            "more bytes than the row above": "", "more dB": "", "dB for 10 % more bytes": "",
        }  # fmt: skip
        if before is not None:
            gain = point.quality["PSNR"] - before.quality["PSNR"]
            per_tenth = gain * np.log(1.1) / np.log(point.top / before.top)
            row |= {
                "more bytes than the row above": f"{100 * (point.top / before.top - 1):.0f} %",
                "more dB": f"{gain:.2f}", "dB for 10 % more bytes": f"{per_tenth:.2f}",
            }  # fmt: skip
        rows.append(row)
    return table(rows)


def store_words(on_grid: Measured, model: str, fitted: float) -> str:
    """Why the store encodes as it does, with the figures of this run."""
    ours, half, annex = (on_grid.store(name, model) for name in (DEFAULT_SERIES, "steps 4:2:0", "Annex K 4:2:0"))
    default = next(point for point in ours.mean() if point.label == DEFAULT_LABEL)
    former = next(point for point in annex.mean() if point.label == "q95")
    gain = default.quality["PSNR"] - former.quality["PSNR"]
    return (
        f"At equal PSNR after {model}, equal steps with 4:4:4 cost {share_cell(ours, annex, 'PSNR', 'top')} bytes "
        f"against Annex K's tables with 4:2:0 and {share_cell(ours, half, 'PSNR', 'top')} against equal steps with "
        f"4:2:0 (SSIM: {share_cell(ours, annex, 'SSIM', 'top')} and {share_cell(ours, half, 'SSIM', 'top')}); whole "
        f"colour is ahead of 4:2:0 with equal steps in this range of PSNR: {ahead(ours, half, 'PSNR')}. Annex K "
        "spends its bytes on what an eye sees in the stored picture itself and rounds away the highest frequencies, "
        "from which a network makes ×40.\n\n"
        f"The default is {steps_text()}: {default.top:.0f} kB/Mpx, where quality 95 4:2:0, the default before, takes "
        f"{former.top:.0f} and loses {gain:.2f} dB against it. The last column below is what 10 % more bytes buy: it "
        "falls evenly, so there is no knee to stop at, and the default keeps the size that a library had and puts all "
        "that equal steps save into quality. "
        f"Fitted Huffman codes would save another {100 * (1 - fitted):.1f} % and cost three times the encoding time; "
        "ingestion does without."
    )


def report(on_grid: Measured, off_grid: Measured, models: Sequence[str], fitted: float) -> str:
    """The body of the result file."""
    parts = [
        f"{on_grid.tiles} ×40 tiles of 512 px of each of three slides that no network was trained on (BS12, "
        "lung-squamous-cell-carcinoma, ectopic-pancreas). *kB/Mpx*: bytes for each megapixel of the ×40 plane. *Top "
        "level*: what is stored to show ×40 (our ×20 level; the peer's ×40 level). *Whole pyramid*: with all smaller "
        "levels in the same encoding. PSNR over RGB, SSIM 7×7 uniform, GMSD: gradient magnitude similarity deviation, "
        "0 is best. Savings are Bjøntegaard delta rates (piecewise cubic over the qualities both reach); in brackets "
        "the smallest and largest of the three slides. JPEG: libjpeg-turbo, 4:2:0, "
        "fitted codes; WebP: method 6; AVIF: libavif, speed 6; JPEG XL: effort 7. Ours counts bytes as ingestion "
        "writes them, without fitted codes.",
        "![Curves](../../docs/images/rate_distortion.png)",
    ]
    for model in (*models, "bicubic"):
        parts += [
            f"## ×20 store + {model} against ×40",
            delta_table(on_grid.store(DEFAULT_SERIES, model), on_grid.peers),
        ]
    parts += [
        "## Off the scan's JPEG grid",
        "Scanners write JPEG, and these tiles lie on its grid of 8 × 8 px: a format that codes ×40 in blocks, JPEG "
        "most of all, finds there what the scanner had rounded away, and gets part of its quality for nothing. That is "
        "so in an archive too, but not on pixels without such a history; as near as these data come to those are tiles "
        f"cut 4 px off the grid ({off_grid.tiles} of each slide):",
    ]
    for model in models:
        parts += [f"### {model}", delta_table(off_grid.store(DEFAULT_SERIES, model), off_grid.peers)]
    parts += [
        "## Why the store encodes as it does", store_words(on_grid, models[0], fitted),
        steps_table(on_grid.store(DEFAULT_SERIES, models[0])),
        "## Every point", points_table([*on_grid.stores, *on_grid.peers]),
    ]  # fmt: skip
    return "\n\n".join(parts)


def drawn(series: Series, name: str, colour: tuple[int, int, int], axes: Sequence[Axis], bold: bool = False) -> Curve:
    """A curve of mean points inside the axes; the store's default is ringed."""
    points = sorted(series.mean(), key=lambda point: point.top)
    panels = []
    for measure, axis in zip(MEASURES, axes, strict=True):
        kept = [point for point in points if inside(point, measure, axis)]
        panels.append([(point.top, point.quality[measure]) for point in kept])
    labels = [point.label for point in points]
    all_kept = all(len(panel) == len(points) for panel in panels)
    ringed = labels.index(DEFAULT_LABEL) if bold and all_kept and DEFAULT_LABEL in labels else None
    return Curve(name, colour, panels, bold, ringed)


def inside(point: Point, measure: str, axis: Axis) -> bool:
    """True when a point lies within the picture."""
    return X_RANGE[0] <= point.top <= X_RANGE[1] and axis.low <= point.quality[measure] <= axis.high


def axes_for(series: Sequence[Series]) -> list[Axis]:
    """Vertical ranges that hold our curves with some room."""
    steps: dict[str, tuple[str, float, int]] = {
        "PSNR": ("PSNR, dB", 1.0, 0), "SSIM": ("SSIM", 0.01, 2), "GMSD": ("GMSD, 0 is best", 0.01, 2)
    }  # fmt: skip
    axes = []
    for measure in MEASURES:
        values = [point.quality[measure] for each in series for point in each.mean()]
        title, step, places = steps[measure]
        low, high = np.floor(min(values) / step - 0.5) * step, np.ceil(max(values) / step + 0.5) * step
        axes.append(Axis(title, float(low), min(float(high), BEST.get(measure, float(high))), step, places))
    return axes


def write(body: str, on_grid: Measured, models: Sequence[str], only_print: bool) -> None:
    """Print the result; keep table and picture unless told not to."""
    if only_print:
        print(body)
        return
    ours = [on_grid.store(DEFAULT_SERIES, model) for model in models]
    bicubic, annex = on_grid.store(DEFAULT_SERIES, "bicubic"), on_grid.store("Annex K 4:2:0", models[0])
    axes = axes_for([*ours, bicubic])
    curves = [drawn(peer, f"x40 {peer.name}", COLOURS[peer.name], axes) for peer in on_grid.peers]
    curves.append(drawn(bicubic, "x20 store + bicubic", BICUBIC, axes))
    curves.append(drawn(annex, f"x20 JPEG Annex K 4:2:0 + {models[0]}", ANNEX_K, axes))
    for number, (model, series) in enumerate(zip(models, ours, strict=True)):
        curves.append(drawn(series, f"x20 store + {model}", OURS[number % len(OURS)], axes, bold=True))
    note = "Mean of three held-out slides; up is better in every panel; the ring marks the store's default steps."
    draw_curves(PICTURE, curves, axes, X_RANGE, "kB for each megapixel of the x40 plane, top level", note)
    write_result("rate_distortion", "Bytes at equal quality", "python -m benchmarks.rate_distortion", body)
