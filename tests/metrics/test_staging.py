"""Stages of nodes and patients at their limits; kappa by hand."""

import math

import pytest

from wsi_ml.errors import BadRequestError
from wsi_ml.metrics.staging import STAGES, challenge_kappa, node_of, quadratic_kappa, stage_of


@pytest.mark.parametrize(
    ("size", "cells", "node"),
    [
        (0.0, None, "negative"), (0.01, None, "itc"), (0.2, None, "itc"), (0.21, None, "micro"), (0.21, 199, "itc"),
        (0.21, 200, "micro"), (2.0, None, "micro"), (2.01, None, "macro"),
    ],
)  # fmt: skip
def test_class_of_a_node(size, cells, node):
    assert node_of(size, cells) == node


@pytest.mark.parametrize(
    ("nodes", "stage"),
    [
        ("negative negative negative negative negative", "pN0"),
        ("negative itc negative itc negative", "pN0(i+)"),
        ("micro itc negative negative negative", "pN1mi"),
        ("micro micro micro micro micro", "pN1mi"),
        ("macro itc itc negative negative", "pN1"),
        ("macro micro micro itc itc", "pN1"),
        ("macro micro micro micro itc", "pN2"),
        ("macro macro macro macro macro", "pN2"),
    ],
)
def test_stage_of_a_patient(nodes, stage):
    assert stage_of(nodes.split()) == stage


@pytest.mark.parametrize(("nodes", "words"), [([], "none"), (["mega"], "mega"), (["macro"] * 10, "beyond pN2")])
def test_patients_that_have_no_stage_here(nodes, words):
    with pytest.raises(BadRequestError, match=words):
        stage_of(nodes)


def test_a_size_that_cannot_be():
    with pytest.raises(BadRequestError, match="-1"):
        node_of(-1)


def test_kappa_by_hand():
    # Two classes: observed agreement 3/4; expected disagreement by the margins 2/4·1/4 + 2/4·3/4 = 1/2 → 1 − ¼/½.
    assert quadratic_kappa(["pN0", "pN0", "pN1", "pN1"], ["pN0", "pN0", "pN1", "pN0"]) == pytest.approx(0.5)
    # Three classes 0, 2, 4 apart: Σ w O = 4 (one row two steps off), Σ w E = (1·(4+16)·… worked out below).
    truth, told = ["pN0", "pN1mi", "pN2"], ["pN0", "pN2", "pN2"]
    expected = (0 * 1 + 16 * 2 + 4 * 1 + 4 * 2 + 16 * 1 + 0 * 2) / 3
    assert quadratic_kappa(truth, told) == pytest.approx(1 - 4 / expected)
    assert quadratic_kappa(list(STAGES), list(STAGES)) == 1.0
    assert quadratic_kappa(["PN0", "pn2"], ["pN2", "pN0"]) == pytest.approx(-1.0)


def test_kappa_of_one_class_alone_is_no_number():
    assert math.isnan(quadratic_kappa(["pN0", "pN0"], ["pN0", "pN0"]))


@pytest.mark.parametrize(("truth", "told"), [(["pN0"], []), ([], []), (["pN0"], ["pN9"])])
def test_kappa_refuses_lists_that_do_not_fit(truth, told):
    with pytest.raises(BadRequestError):
        quadratic_kappa(truth, told)


def test_the_challenges_score_reads_patients_and_leaves_slides_out():
    truth = {"patient_0.zip": "pN0", "patient_0_node_0.tif": "negative", "patient_1.zip": "pN2"}
    assert challenge_kappa(truth, {"Patient_0.zip": "pn0", "patient_1.zip": "pN2"}) == 1.0
    with pytest.raises(BadRequestError, match=r"patient_1\.zip"):
        challenge_kappa(truth, {"patient_0.zip": "pN0"})
