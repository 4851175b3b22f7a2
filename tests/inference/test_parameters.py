"""Parameters are checked once: by name, kind and range, and equal choices are equal."""

import pytest

from wsi_ml.errors import BadRequestError
from wsi_ml.inference.parameters import HELP, PredictParameters, check_parameters


def test_no_parameters_are_the_defaults():
    assert check_parameters({}) == PredictParameters()
    assert check_parameters({}).chosen() == {}


def test_numbers_may_be_text_as_the_command_line_gives_them():
    given = {"threshold": "0.4", "tissue": "all", "min_area_um2": "8", "simplify_px": 1, "batch": "4", "overlap": "0.5"}
    checked = check_parameters(given)
    assert checked == PredictParameters(0.4, "all", 8.0, 1.0, 4, 0.5)
    assert list(checked.chosen()) == sorted(given) == sorted(HELP)


def test_what_equals_the_default_is_no_choice():
    assert check_parameters({"tissue": "otsu", "overlap": 0, "batch": None}).chosen() == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"treshold": 1}, "no parameter 'treshold'; there are threshold, tissue"),
        ({"threshold": 1.01}, "threshold must be a number from 0 to 1, not 1.01"),
        ({"threshold": "high"}, "threshold must be a number"),
        ({"threshold": float("nan")}, "threshold must be a number"),
        ({"threshold": True}, "threshold must be a number"),
        ({"threshold": [0.5]}, "threshold must be a number"),
        ({"tissue": "some"}, "tissue must be one of otsu, all, not 'some'"),
        ({"tissue": ["otsu"]}, "tissue must be one of"),
        ({"min_area_um2": -1}, "min_area_um2 must be a number from 0"),
        ({"simplify_px": float("inf")}, "simplify_px must be a number from 0 to 100"),
        ({"batch": 0}, "batch must be a number from 1 to 1024"),
        ({"batch": 1.5}, "batch must be a whole number"),
        ({"overlap": 0.8}, "overlap must be a number from 0 to 0.75"),
    ],
)
def test_anything_else_is_refused_with_its_name_and_range(given, words):
    with pytest.raises(BadRequestError, match=words):
        check_parameters(given)
