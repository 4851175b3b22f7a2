"""Rate–distortion curves against each other: bytes saved at equal quality (Bjøntegaard delta rate).

G. Bjøntegaard, “Calculation of average PSNR differences between RD-curves”, ITU-T VCEG-M33, 2001; with the piecewise
cubic of JCTVC-L1100 (2013) in place of one cubic through four points, so that curves of any number of points do, and
none of them swings: the interpolant of F. N. Fritsch and J. Butland (1984), which keeps monotone data monotone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_POINTS = 3


@dataclass(frozen=True)
class DeltaRate:
    """Mean difference in bytes at equal quality, and over which qualities it holds."""

    share: float
    """−0.25: a quarter fewer bytes than the peer, on average (in the logarithm) over the range."""
    low: float
    high: float
    """Ends of the range of qualities that both curves reach."""


def delta_rate(
    rates: Sequence[float], qualities: Sequence[float], peer_rates: Sequence[float], peer_qualities: Sequence[float]
) -> DeltaRate | None:
    """Bytes of a curve against a peer's at equal quality; None where no quality is reached by both.

    Rates in any one unit above 0; qualities in any measure where more is better. Points in any order, at least 3 a
    curve, rates strictly rising with quality; raises ValueError otherwise.
    """
    ours, theirs = _Curve(qualities, rates), _Curve(peer_qualities, peer_rates)
    low, high = max(ours.x[0], theirs.x[0]), min(ours.x[-1], theirs.x[-1])
    if not low < high:
        return None
    difference = (ours.integral(low, high) - theirs.integral(low, high)) / (high - low)
    return DeltaRate(float(np.exp(difference) - 1.0), float(low), float(high))


def rate_at(rates: Sequence[float], qualities: Sequence[float], quality: float) -> float | None:
    """Rate at which a curve reaches `quality`, on the same interpolant; None outside the curve."""
    curve = _Curve(qualities, rates)
    if not curve.x[0] <= quality <= curve.x[-1]:
        return None
    return float(np.exp(curve.value(quality)))


class _Curve:
    """Logarithm of the rate as a piecewise cubic of the quality."""

    def __init__(self, qualities: Sequence[float], rates: Sequence[float]):
        order = np.argsort(qualities)
        self.x = np.asarray(qualities, float)[order]
        values = np.asarray(rates, float)[order]
        if len(self.x) < MIN_POINTS or len(values) != len(self.x) or (values <= 0).any():
            raise ValueError(f"a curve needs at least {MIN_POINTS} points, each with a rate above 0")
        if (np.diff(self.x) <= 0).any() or (np.diff(values) <= 0).any():
            raise ValueError("the rates of a curve must rise with its qualities")
        self.y = np.log(values)
        self.slopes = pchip_slopes(self.x, self.y)

    def _cubic(self, number: int) -> np.ndarray:
        """Coefficients of 1, t, t², t³ in piece `number`, t counted from its left end."""
        width = self.x[number + 1] - self.x[number]
        secant = (self.y[number + 1] - self.y[number]) / width
        left, right = self.slopes[number], self.slopes[number + 1]
        return np.array(
            [self.y[number], left, (3 * secant - 2 * left - right) / width, (left + right - 2 * secant) / width**2]
        )

    def value(self, x: float) -> float:
        """The interpolant at `x` inside the curve."""
        number = int(np.clip(np.searchsorted(self.x, x, "right") - 1, 0, len(self.x) - 2))
        return float(self._cubic(number) @ (x - self.x[number]) ** np.arange(4))

    def integral(self, low: float, high: float) -> float:
        """Exact integral of the interpolant from `low` to `high`, both inside the curve."""
        powers, total = np.arange(1, 5), 0.0
        for number in range(len(self.x) - 1):
            start, end = max(low, self.x[number]), min(high, self.x[number + 1])
            if start < end:
                ends = (end - self.x[number]) ** powers - (start - self.x[number]) ** powers
                total += float(self._cubic(number) @ (ends / powers))
        return total


def pchip_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes of the monotone piecewise cubic at its points (at least 3): weighted harmonic means of the secants.

    At the ends the three-point formula, held to keep the shape (as in C. Moler, “Numerical Computing with MATLAB”,
    §3.6).
    """
    widths = np.diff(x)
    secants = np.diff(y) / widths
    slopes = np.zeros(len(x))
    for i in range(1, len(x) - 1):
        left, right = secants[i - 1], secants[i]
        if left * right > 0:
            near, far = 2 * widths[i] + widths[i - 1], widths[i] + 2 * widths[i - 1]
            slopes[i] = (near + far) / (near / left + far / right)
    slopes[0] = _end_slope(widths[0], widths[1], secants[0], secants[1])
    slopes[-1] = _end_slope(widths[-1], widths[-2], secants[-1], secants[-2])
    return slopes


def _end_slope(width: float, next_width: float, secant: float, next_secant: float) -> float:
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    if slope * secant <= 0:
        return 0.0
    if secant * next_secant <= 0 and abs(slope) > 3 * abs(secant):
        return 3 * secant
    return slope
