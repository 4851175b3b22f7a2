"""Spearman's rank correlation on small cases computed by hand."""

import math

import numpy as np
import pytest

from wsi_ml.metrics.rank import rank_correlation, ranks


def test_equal_values_share_the_mean_of_their_ranks():
    assert ranks(np.array([30, 10, 20, 20])).tolist() == [4, 1, 2.5, 2.5]


@pytest.mark.parametrize(
    ("one", "other", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 300, 4000], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 − 6·4 ÷ (5·24)
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),
    ],
)
def test_values_by_hand(one, other, rho):
    assert rank_correlation(np.array(one), np.array(other)) == pytest.approx(rho)


def test_what_is_constant_has_no_order():
    assert math.isnan(rank_correlation(np.ones(4), np.arange(4)))
    assert math.isnan(rank_correlation(np.ones(1), np.ones(1)))


def test_series_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="3 and 2"):
        rank_correlation(np.arange(3), np.arange(2))
