"""Estimated difference: detail of exact pictures, monotone tables from cells, and what a card may hold of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from wsi_ml.errors import ModelUnavailableError
from wsi_ml.sr.calibration import (
    MOST_KNOTS,
    Calibration,
    calibration_from_knots,
    calibration_of,
    detail_cells,
    fit_calibration,
    pooled,
)
from wsi_ml.sr.reliability import JudgedCells, held_up, joined, judge, reliability
from wsi_ml.sr.upscaler import bicubic_card, card_from_json

KNOTS = [[2.0, 1.0], [4.0, 3.0]]


def test_detail_is_the_mean_laplacian_of_all_colours():
    stored = np.full((64, 64, 3), 100, np.uint8)
    stored[10, 10, 1] = 130  # 4 * 30 at the pixel, 30 at each of its neighbours
    stored[32:, 32:] = np.arange(32, dtype=np.uint8)[None, :, None]  # a ramp has detail at its ends only
    detail = detail_cells(stored)
    assert detail.shape == (2, 2)
    assert detail[0, 0] == pytest.approx(240 / (32 * 32 * 3))
    assert detail_cells(stored[33:, 33:63]) == pytest.approx(4 / 30), "the mirrored ends of the ramp"


def test_an_estimate_is_linear_between_knots_and_level_beyond_them():
    calibration = Calibration(((2.0, 1.0), (4.0, 3.0)))
    assert calibration(np.array([[0, 2, 2.5], [3, 4, 99]])).tolist() == [[1, 1, 1.5], [2, 3, 3]]
    assert calibration(np.zeros(3)).dtype == np.float32


def test_values_that_fall_are_pooled_with_those_before_them():
    ones = np.ones(5)
    assert pooled(np.array([1.0, 3, 2, 2, 5]), ones).tolist() == pytest.approx([1, 7 / 3, 7 / 3, 7 / 3, 5])
    assert pooled(np.array([4.0, 1]), np.array([1.0, 3])).tolist() == [1.75, 1.75]
    assert pooled(np.array([1.0, 2, 3]), ones[:3]).tolist() == [1, 2, 3]


def test_a_fit_finds_the_curve_that_the_cells_were_made_with():
    rng = np.random.default_rng(5)
    detail = rng.uniform(0, 50, 8000).astype(np.float32)
    true = np.sqrt(detail) + rng.normal(0, 0.2, 8000)
    calibration = fit_calibration(detail, true)
    assert len(calibration.knots) == MOST_KNOTS
    assert calibration_from_knots(json.loads(json.dumps(calibration.knots))) == calibration
    assert calibration(np.array([1.0, 9, 25, 49])) == pytest.approx([1, 3, 5, 7], abs=0.15)
    with pytest.raises(ValueError, match="different detail"):
        fit_calibration(np.ones(20), np.ones(20))


def test_a_noisy_fit_never_falls():
    rng = np.random.default_rng(6)
    detail, true = rng.uniform(0, 9, 300), rng.uniform(0, 9, 300)
    differences = [difference for _, difference in fit_calibration(detail, true).knots]
    assert differences == sorted(differences)


@pytest.mark.parametrize(
    ("knots", "words"),
    [
        (None, "no list of pairs"),
        ([[1, 2, 3], [2, 3, 4]], "no list of pairs"),
        ([[1, 1]], "2 to 12 pairs"),
        ([[each, each] for each in range(13)], "2 to 12 pairs"),
        ([[1, 1], [2, float("nan")]], "2 to 12 pairs"),
        ([[-1, 1], [2, 3]], "2 to 12 pairs"),
        ([[2, 1], [2, 3]], "must rise"),
        ([[1, 3], [2, 1]], "must rise"),
    ],
)
def test_knots_that_are_none_are_refused(knots, words):
    with pytest.raises(ValueError, match=words):
        calibration_from_knots(knots)


def test_a_calibration_counts_for_the_weights_it_was_fitted_with():
    trust = {"sha256": "ab" * 32, "knots": KNOTS}
    assert calibration_of(trust, "ab" * 32) == Calibration(((2.0, 1.0), (4.0, 3.0)))
    assert calibration_of(trust, "cd" * 32) is None and calibration_of({}, "ab" * 32) is None


def test_a_card_with_damaged_knots_is_refused_by_name():
    card = replace(bicubic_card(), name="own", kind="sr", weights="own.safetensors").to_json()
    assert card_from_json({**card, "trust": {"sha256": "ab", "knots": KNOTS}}).trust["knots"] == KNOTS
    with pytest.raises(ModelUnavailableError, match=r"own\.json is damaged: trust\.knots must rise"):
        card_from_json({**card, "trust": {"sha256": "ab", "knots": KNOTS[::-1]}}, "own.json")
    with pytest.raises(ModelUnavailableError, match="trust is not an object"):
        card_from_json({**card, "trust": []})


def test_cells_are_judged_against_the_scan():
    stored = np.full((32, 64, 3), 50, np.uint8)
    base = np.full((64, 128, 3), 50, np.uint8)
    base[:, 64:] = 54
    cells = judge(lambda rgb: rgb.repeat(2, 0).repeat(2, 1), [(stored, base)])
    assert cells.true.tolist() == [0, 4] and cells.cycle.mean.tolist() == [0, 0] and cells.detail.tolist() == [0, 0]
    assert joined([cells, cells]).true.tolist() == [0, 4, 0, 4]


def test_estimate_and_truth_are_compared_by_ranges_of_the_estimate():
    detail = np.array([2.0, 3, 3, 4])
    true = np.array([1.0, 2.5, 1.5, 4])
    cells = JudgedCells(detail, np.array([4.0, 3, 2, 1]), np.zeros(4), true)
    calibration = calibration_from_knots(KNOTS)
    assert held_up(calibration, cells) == {
        "cells": 4, "true": 2.25, "estimated": 2.0, "off": 0.5, "correlation": 0.949, "cycle_correlation": -0.8,
    }  # fmt: skip
    rows = reliability(calibration, cells, (0.5, 2.0))
    assert [(row["above"], row["to"], row["cells"], row["estimated"], row["true"]) for row in rows] == [
        (0.5, 2.0, 3, pytest.approx(5 / 3, abs=1e-3), pytest.approx(5 / 3, abs=1e-3)), (2.0, None, 1, 3.0, 4.0),
    ]  # fmt: skip
