"""Bjøntegaard's delta: exact on straight curves, the interpolant as published, what is refused."""

import numpy as np
import pytest

from wsi_ml.metrics.rate import delta_rate, pchip_slopes, rate_at

RATES, QUALITIES = [50.0, 100.0, 200.0, 400.0], [30.0, 33.0, 36.0, 39.0]


def test_half_the_bytes_at_every_quality_is_minus_half():
    delta = delta_rate([rate / 2 for rate in RATES], QUALITIES, RATES, QUALITIES)
    assert delta.share == pytest.approx(-0.5)
    assert (delta.low, delta.high) == (30.0, 39.0)


def test_equal_curves_differ_by_nothing_in_any_order_of_points():
    delta = delta_rate(RATES[::-1], QUALITIES[::-1], RATES, QUALITIES)
    assert delta.share == pytest.approx(0.0)


def test_only_the_qualities_both_reach_count():
    """Straight lines in (quality, log rate), one octave per 3 dB; the second is 1.5 dB better, so at half an octave."""
    delta = delta_rate(RATES, [quality + 1.5 for quality in QUALITIES], RATES, QUALITIES)
    assert (delta.low, delta.high) == (31.5, 39.0)
    assert delta.share == pytest.approx(2**-0.5 - 1)
    assert delta_rate(RATES, [quality + 9 for quality in QUALITIES], RATES, QUALITIES) is None


def test_a_gap_that_grows_is_averaged_in_the_logarithm():
    """ln rate = x and x² on points dense enough for the cubic: mean of x − x² over 1…2 is 3/2 − 7/3."""
    x = np.linspace(1, 2, 60)
    delta = delta_rate(np.exp(x), x, np.exp(x**2), x)
    assert delta.share == pytest.approx(np.exp(1.5 - 7 / 3) - 1, rel=1e-5)


def test_the_rate_at_a_quality_lies_on_the_curve():
    assert rate_at(RATES, QUALITIES, 33.0) == pytest.approx(100.0)
    assert rate_at(RATES, QUALITIES, 34.5) == pytest.approx(100 * 2**0.5)
    assert rate_at(RATES, QUALITIES, 39.0) == pytest.approx(400.0)
    assert rate_at(RATES, QUALITIES, 29.9) is None


def test_slopes_are_weighted_harmonic_means_and_never_swing():
    # Widths 1, 2, 1; secants 1, 3, 0.5: inside, means weighted by twice the width beyond and once the width behind.
    slopes = pchip_slopes(np.array([0.0, 1.0, 3.0, 4.0]), np.array([0.0, 1.0, 7.0, 7.5]))
    assert slopes[1] == pytest.approx((5 + 4) / (5 / 1 + 4 / 3))
    assert slopes[2] == pytest.approx((4 + 5) / (4 / 3 + 5 / 0.5))
    assert slopes[0] == pytest.approx((4 * 1 - 1 * 3) / 3)
    assert slopes[3] == 0.0  # the three-point formula would turn down
    flat = pchip_slopes(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]))
    assert flat[1] == 0.0
    assert (flat[0], flat[2]) == (2.0, -2.0)


@pytest.mark.parametrize(
    ("rates", "qualities", "words"),
    [
        ([1.0, 2.0], [1.0, 2.0], "at least 3 points"),
        ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], "above 0"),
        ([1.0, 3.0, 2.0], [1.0, 2.0, 3.0], "must rise"),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 2.0], "must rise"),
    ],
)
def test_curves_that_are_none_are_refused(rates, qualities, words):
    with pytest.raises(ValueError, match=words):
        delta_rate(rates, qualities, RATES, QUALITIES)
