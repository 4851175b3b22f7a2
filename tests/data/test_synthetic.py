import numpy as np
import openslide
import orjson
import pytest
import shapely
import tifffile

from wsi_ml.data import synthetic
from wsi_ml.data.synthetic import ADIPOSE, GLAND, LUMEN, NUCLEI, TISSUES, make_scene
from wsi_ml.data.synthetic_pixels import Painter
from wsi_ml.data.synthetic_slide import COLORS, truth_features, write_slide, write_truth
from wsi_ml.formats.reading import read_features
from wsi_ml.geometry import Region, Size

SIZE = Size(1300, 1000)
WHOLE = Region(0, 0, *SIZE)


@pytest.fixture(scope="module")
def scene():
    return make_scene(SIZE, seed=2)


@pytest.fixture(scope="module")
def painter(scene):
    return Painter(scene)


@pytest.fixture(scope="module")
def labels(painter):
    return painter.labels(WHOLE)


@pytest.fixture(scope="module")
def large():
    """A scene with fat; only its outlines and a part of its labels are asked for."""
    return make_scene(Size(3600, 3000), seed=5)


def test_the_same_seed_gives_the_same_truth_and_pixels(scene, painter):
    again = make_scene(SIZE, seed=2)
    for one, two in zip(truth_features(scene), truth_features(again), strict=True):
        assert one == two
    assert [each.geometry.wkb for each in truth_features(scene)[1]] == [
        each.geometry.wkb for each in truth_features(again)[1]
    ]
    region = Region(300, 200, 256, 256)
    assert np.array_equal(painter.paint(region), Painter(again).paint(region))
    other = make_scene(SIZE, seed=6)
    assert len(other.nuclei) != len(scene.nuclei) or not np.array_equal(
        other.nuclei.base_centres, scene.nuclei.base_centres
    )


def test_a_region_alone_equals_the_region_of_the_whole(painter):
    whole = painter.paint(Region(100, 150, 700, 500))
    part = painter.paint(Region(333, 251, 300, 210))
    difference = np.abs(part.astype(int) - whole[101:311, 233:533].astype(int))
    assert difference.max() <= 1  # float rounding of the blur


def test_nuclei_areas_equal_their_pixels(scene, labels):
    outlines = scene.nuclei.outlines()
    assert len(outlines) > 150
    for code in range(len(NUCLEI)):
        area = shapely.area(outlines[scene.nuclei.kinds == code]).sum()
        assert np.count_nonzero(labels.nucleus == code + 1) == pytest.approx(area, rel=0.01)
    for outline in outlines[::7]:
        x0, y0, x1, y1 = (int(edge) for edge in outline.bounds)
        y, x = np.mgrid[y0 : y1 + 1, x0 : x1 + 1]
        inside = shapely.contains_xy(outline, x + 0.5, y + 0.5)
        drawn = labels.nucleus[y0 : y1 + 1, x0 : x1 + 1] > 0
        assert np.count_nonzero(inside & ~drawn) <= 1
        assert np.count_nonzero(inside) == pytest.approx(outline.area, rel=0.06, abs=4)


def test_pixels_show_the_class_of_their_outline(scene, labels):
    _assert_tissues(scene, labels.tissue, WHOLE)
    nuclei = scene.nuclei.outlines()
    centres = np.floor(scene.nuclei.base_centres).astype(int)
    assert (labels.nucleus[centres[:, 1], centres[:, 0]] == scene.nuclei.kinds + 1).all()
    rows, columns = np.nonzero(labels.nucleus)
    found = shapely.STRtree(nuclei).query(shapely.points(columns + 0.5, rows + 0.5), predicate="dwithin", distance=0.02)
    assert set(found[0]) == set(range(len(rows)))


def test_fat_and_dense_stroma_lie_below(large):
    region = Region(1500, 2100, 500, 400)
    tissue = Painter(large).labels(region).tissue
    assert {ADIPOSE, synthetic.STROMA} <= set(np.unique(tissue))
    _assert_tissues(large, tissue, region)


def _assert_tissues(scene, tissue, region):
    """Class by outline and by pixel agree at every sampled point more than a pixel from any border."""
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 1, (4000, 2)) * (region.width, region.height) + (region.x, region.y)
    inner = np.floor(points - (region.x, region.y)).astype(int)
    drawn = tissue[inner[:, 1], inner[:, 0]]
    covered = np.zeros(len(points), int)
    for name, outline in scene.tissues():
        spots = shapely.points(points)
        shapely.prepare(outline)
        inside = shapely.contains(outline, spots)
        covered += inside
        far = shapely.distance(outline.boundary, spots) > 1.0
        assert (drawn[inside & far] == TISSUES.index(name)).all()
    assert (covered == 1).mean() > 0.999 and covered.max() <= 1


def test_truth_is_valid_disjoint_and_covers_the_slide_once(scene, large):
    for each in (scene, large):
        outlines = [outline for _, outline in each.tissues()]
        assert shapely.is_valid(outlines).all()
        assert shapely.area(outlines).sum() == pytest.approx(each.size.width * each.size.height, rel=1e-9)
        assert shapely.union_all(outlines).area == pytest.approx(each.size.width * each.size.height, rel=1e-9)
        nuclei = each.nuclei.outlines()
        assert shapely.is_valid(nuclei).all()
        touching = shapely.STRtree(nuclei).query(nuclei, predicate="dwithin", distance=1.0)
        assert touching.shape[1] == len(nuclei)
        names = {name for name, _ in each.tissues()}
        assert names >= {"Background", "Stroma", "Gland", "Lumen"}
    rings = [outline for name, outline in scene.tissues() if name == "Gland"]
    assert len(rings) >= 2 and all(len(ring.interiors) == 1 for ring in rings)


def test_glands_hold_the_epithelial_nuclei(scene, labels):
    assert set(np.unique(labels.tissue[labels.nucleus == synthetic.EPITHELIAL + 1])) == {GLAND}
    assert set(np.unique(labels.tissue[labels.nucleus == synthetic.LYMPHOCYTE + 1])) == {synthetic.STROMA}
    assert labels.nucleus[labels.tissue == LUMEN].max() == 0


def test_colours_are_those_of_haematoxylin_and_eosin(painter, labels):
    pixels = painter.paint(WHOLE).astype(float)
    red, green, blue = pixels[labels.nucleus == synthetic.LYMPHOCYTE + 1].mean(axis=0)
    assert blue > red > green and blue < 150
    red, green, blue = pixels[(labels.tissue == synthetic.STROMA) & (labels.reach > 2)].mean(axis=0)
    assert red > blue > green and green < 200
    assert pixels[labels.tissue == synthetic.BACKGROUND].mean() > 240


def test_the_file_is_a_slide_of_the_right_scale(scene, painter, tmp_path):
    path = tmp_path / "synthetic.svs"
    rows = []
    write_slide(scene, path, lambda done, total: rows.append((done, total)))
    assert rows == [(1000, 1000)] and [each.name for each in tmp_path.iterdir()] == ["synthetic.svs"]
    slide = openslide.OpenSlide(path)
    assert slide.level_dimensions == ((1300, 1000), (325, 250), (82, 63))
    assert [slide.properties[f"openslide.{key}"] for key in ("vendor", "mpp-x", "objective-power")] == [
        "aperio",
        "0.25",
        "40",
    ]
    pixels = np.asarray(slide.read_region((300, 300), 0, (256, 256)).convert("RGB")).astype(float)
    drawn = painter.paint(Region(300, 300, 256, 256)).astype(float)
    assert np.abs(pixels - drawn).mean() < 3  # JPEG
    half = np.asarray(slide.read_region((0, 0), 1, (325, 250)).convert("RGB")).astype(float)
    assert np.abs(half.mean(axis=(0, 1)) - painter.paint(WHOLE).mean(axis=(0, 1))).max() < 1
    slide.close()
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].compression == 7 and file.pages[0].tilewidth == 256


def test_truth_files_are_read_back_whole(scene, tmp_path):
    for path, features in zip(write_truth(scene, tmp_path), truth_features(scene), strict=True):
        report, read = read_features(path.read_bytes())
        found = [each for _, each in read]
        assert report.lossless and len(found) == len(features)
        assert [each.geometry.wkb for each in found] == [each.geometry.wkb for each in features]
        assert {each.class_color for each in found} == {COLORS[each.class_name] for each in features}
        assert orjson.loads(path.read_bytes())["type"] == "FeatureCollection"
