import numpy as np
import pytest
import shapely

from tests.formats.outlines import square
from wsi_ml.errors import AnnotationFileError
from wsi_ml.formats.nesting import even_odd, with_holes
from wsi_ml.formats.report import LossReport
from wsi_ml.formats.rings import Place, Repairer

BOX = shapely.box
PLACE = Place(4)


def test_holes_inside_keep_their_points_and_others_are_cut():
    outline = shapely.MultiPolygon([BOX(0, 0, 20, 20), BOX(30, 0, 50, 20)])
    inside = [BOX(2, 2, 4, 4), BOX(32, 2, 34, 4), BOX(5, 5, 6, 6)]
    found = with_holes(outline, inside, PLACE)
    assert [len(part.interiors) for part in found.geoms] == [2, 1] and found.area == 800 - 9
    assert with_holes(outline, [BOX(18, 5, 32, 10)], PLACE).area == 800 - 20
    assert with_holes(outline, [BOX(2, 2, 6, 6), BOX(4, 4, 8, 8)], PLACE).area == 800 - 28
    assert with_holes(outline, [BOX(2, 2, 6, 6) - BOX(3, 3, 4, 4)], PLACE).area == 800 - 15
    assert with_holes(outline, [BOX(-1, -1, 60, 60)], PLACE) is None


def test_many_holes_take_one_step():
    holes = [BOX(x, y, x + 0.5, y + 0.5) for x in range(1, 99) for y in range(1, 99)]
    found = with_holes(BOX(0, 0, 100, 100), holes, PLACE)
    assert len(found.interiors) == 98 * 98 and found.area == 10_000 - 98 * 98 / 4


def test_even_and_odd():
    place, repairer = Place(4), Repairer(LossReport("test"))
    rings = [np.array(square(n, n, 100 - 2 * n)[:-1], float) for n in (20, 0, 10, 30)]
    found = even_odd(rings, place, repairer)
    assert found.area == 100**2 - 80**2 + 60**2 - 40**2
    assert [len(part.interiors) for part in found.geoms] == [1, 1]
    beside = even_odd([*rings[:1], np.array(square(200, 0, 5)[:-1], float)], place, repairer)
    assert beside.area == 60**2 + 25
    crossing = [np.array(square(0, 0, 10), float), np.array(square(5, 5, 10), float)]
    with pytest.raises(AnnotationFileError, match="Feature 4"):
        even_odd(crossing, place, repairer)
    assert even_odd(crossing, place, Repairer(LossReport("test"), repair=True)).area > 0
    assert even_odd([], place, repairer) is None


def test_what_would_take_for_ever_is_refused():
    deep = [np.array(square(n, n, 10_000 - 2 * n)[:-1], float) for n in range(1500)]
    with pytest.raises(AnnotationFileError, match=r"Feature 4 .* too often"):
        even_odd(deep, PLACE, Repairer(LossReport("test")))
    stripes = [BOX(n, 0, n + 0.5, 200) for n in range(100)] + [BOX(0, n, 200, n + 0.5) for n in range(100)]
    with pytest.raises(AnnotationFileError, match="too tangled"):
        with_holes(BOX(-1, -1, 300, 300), stripes, PLACE)
