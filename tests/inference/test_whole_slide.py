"""Predictors that choose their windows, and those that tell a window from the whole slide, through the engine."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.inference.fakes import add_model, dense_card
from wsi_ml.errors import BadRequestError, NotPredictableError
from wsi_ml.geometry import Region, Size
from wsi_ml.inference.card import PredictorClass
from wsi_ml.inference.grid import STRIP, chosen_grid
from wsi_ml.inference.predicting import PredictRequest, predict, prepare
from wsi_ml.inference.predictor import Choosing, WholeSlide, find_card
from wsi_ml.layers.store import LayerStore

SIDE = 100
"""Stored pixels of a window; the picture has 10 × 7 whole ones."""
CHOSEN = np.array([[column, row] for row in range(1, 6) for column in range(2, 9)], np.int32)
SILENT = 3
"""Column of the windows of which the slide tells nothing."""


def heat_card(name):
    return dense_card(
        side=SIDE, stride=SIDE, name=name, kind="heatmap", classes=(PredictorClass("Dark"),), channels=("Dark",),
        halo=0, background=(), about={"tissue": "own"},
    )  # fmt: skip


class Alone:
    """The darkness of each chosen window."""

    def __init__(self, card):
        self.card, self.calls = card, []

    def for_slide(self, pyramid):
        self.windows = CHOSEN
        return self

    def __call__(self, windows):
        self.calls.append(len(windows))
        return (255 - windows.mean(axis=(1, 2, 3))).astype(np.uint8)[:, None, None, None]


class Stretched(Alone):
    """Where a window's darkness stands between the slide's least and most: which no window knows by itself."""

    @property
    def part_shape(self):
        return 8, 1, 1

    def __call__(self, windows):
        self.calls.append(len(windows))
        return windows.mean(axis=(1, 2, 3)).astype(np.float64).view(np.uint8).reshape(len(windows), 8, 1, 1)

    def whole(self, windows, parts):
        light = np.ascontiguousarray(parts).reshape(len(parts), 8).view(np.float64)[:, 0]
        share = stretched(light)
        kept = np.flatnonzero(windows[:, 0] != SILENT)
        return kept, np.rint(255 * share[kept]).astype(np.uint8)[:, None, None, None]


def opener(kind, opened):
    def open_it(model, *, device="auto", threads=0, folders=()):
        opened.append(kind(find_card(model, folders)[0]))
        return opened[-1]

    return open_it


def told(library, slide_id, kind, region=None, opened=None):
    name = kind.__name__.lower()
    add_model(library.root, heat_card(name))
    request = PredictRequest(slide_id, name, region=region, parameters={"threshold": 0})
    layer = predict(library.root, request, opener=opener(kind, [] if opened is None else opened))
    grid = np.full((8, 11), np.nan)
    for feature in LayerStore(library.root).all_features(layer.id):
        left, top, right, bottom = (round(each / (2 * SIDE)) for each in feature.geometry.bounds)
        for row in range(top, bottom):
            for column in range(left, right):
                box = (column + 0.5) * 2 * SIDE, (row + 0.5) * 2 * SIDE
                if feature.geometry.contains(shapely.Point(box)):
                    grid[row, column] = feature.score
    return grid


def stretched(light):
    return (light.max() - light) / (light.max() - light.min())


def means_of(stained):
    return np.array([stained[y : y + SIDE, x : x + SIDE].mean() for x, y in CHOSEN * SIDE])


def test_only_chosen_windows_are_computed_and_drawn(library, slide_id, stained):
    opened = []
    grid = told(library, slide_id, Alone, opened=opened)
    assert isinstance(opened[0], Choosing) and not isinstance(opened[0], WholeSlide)
    assert sum(opened[0].calls) == len(CHOSEN) == (~np.isnan(grid)).sum()
    assert not np.isnan(grid[CHOSEN[:, 1], CHOSEN[:, 0]]).any()
    wanted = (255 - means_of(stained)) / 255
    assert np.abs(grid[CHOSEN[:, 1], CHOSEN[:, 0]] - wanted).max() < 0.1  # windows of one band are joined


def test_what_the_slide_tells_comes_of_all_windows_and_silent_ones_stay_empty(library, slide_id, stained):
    opened = []
    grid = told(library, slide_id, Stretched, opened=opened)
    assert isinstance(opened[0], WholeSlide)
    for (column, row), value in zip(CHOSEN.tolist(), stretched(means_of(stained)).tolist(), strict=True):
        assert np.isnan(grid[row, column]) if column == SILENT else abs(grid[row, column] - value) < 0.11
    assert (~np.isnan(grid)).sum() == len(CHOSEN) - 5


def test_a_region_of_it_is_drawn_from_the_whole_slide(library, slide_id):
    whole = told(library, slide_id, Stretched)
    opened = []
    part = told(library, slide_id, Stretched, region=(4 * 200, 2 * 200, 7 * 200, 4 * 200), opened=opened)
    assert sum(opened[0].calls) == len(CHOSEN)
    inside = ~np.isnan(part)
    assert inside.sum() == 6 and inside[2:4, 4:7].all() and np.abs(part - whole)[inside].max() < 0.11
    opened = []
    alone = told(library, slide_id, Alone, region=(4 * 200, 2 * 200, 7 * 200, 4 * 200), opened=opened)
    assert sum(opened[0].calls) == 6 and (~np.isnan(alone)).sum() == 6


def test_regions_and_parameters_without_sense_are_refused(library, slide_id):
    with pytest.raises(NotPredictableError, match="in this region"):
        told(library, slide_id, Stretched, region=(0, 0, 100, 100))
    for parameters in ({"tissue": "all"}, {"overlap": 0.5}):
        with pytest.raises(BadRequestError, match="no tissue=all and no overlap"):
            prepare(library.root, PredictRequest(slide_id, "stretched", parameters=parameters))


def test_chosen_windows_are_computed_in_strips():
    windows = np.array([[column, row] for row in range(90) for column in range(3)], np.int32)
    grid = chosen_grid(heat_card("x"), Size(300, 9000), Region(0, 0, 300, 9000), windows[::-1])
    strip = STRIP // SIDE
    assert grid.windows[:strip].tolist() == [[0, row] for row in range(strip)] and len(grid) == 270
    assert len(chosen_grid(heat_card("x"), Size(300, 9000), Region(99, 100, 2, 1), windows)) == 2
