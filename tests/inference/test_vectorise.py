"""Maps of every kind to features: class, score, base-plane coordinates, edge of the slide, thresholds, cancelling."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tests.inference.array_maps import ArrayMaps, card_of
from wsi_ml.data.nuclei import label_outlines, targets
from wsi_ml.data.synthetic import make_scene
from wsi_ml.errors import PredictionCancelledError
from wsi_ml.geometry import Size
from wsi_ml.inference import vectorise as module
from wsi_ml.inference.polygons import label_polygons
from wsi_ml.inference.vectorise import vectorise
from wsi_ml.layers.batch import FeatureBatch


def draw(
    maps, card, base_size, cancelled=lambda: False, progress=lambda done, total: None, **parameters
) -> FeatureBatch:
    batches = list(vectorise(maps, card, parameters, base_size, cancelled=cancelled, progress=progress))
    if not batches:
        return FeatureBatch(np.zeros(0, object), np.zeros(0, np.uint16), np.zeros(0, np.float32))
    columns = ("geometries", "class_numbers", "scores")
    return FeatureBatch(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in columns))


def dense_maps(stride: int = 4) -> ArrayMaps:
    """Two classes and background: an 8 × 10 map with B in its left part, a 2 × 2 patch of A, background elsewhere."""
    told = np.zeros((3, 8, 10), np.uint8)
    told[0] = 200
    told[2, :, :4] = 210
    told[1, 2:4, 6:8] = 220
    told[1, 2, 6] = 255
    return ArrayMaps(told, stride)


def test_a_dense_map_gives_regions_with_class_score_and_base_coordinates():
    found = draw(dense_maps(), card_of("dense", ("Glass", "A", "B"), ("Glass",)), Size(80, 64), simplify_px=0)
    assert found.class_numbers.tolist() == [1, 0] and found.class_numbers.dtype == np.uint16
    assert found.scores.tolist() == pytest.approx([210 / 255, (3 * 220 + 255) / 4 / 255])
    assert found.geometries[0].equals(shapely.box(0, 0, 32, 64))
    assert found.geometries[1].equals(shapely.box(48, 16, 64, 32))


def test_classes_are_numbered_as_the_card_sorts_those_it_draws():
    card = card_of("dense", ("Z", "Glass", "B"), ("Glass",))
    told = np.zeros((3, 2, 3), np.uint8)
    told[[0, 1, 2], :, [0, 1, 2]] = 255
    found = draw(ArrayMaps(told), card, Size(6, 4))
    assert card.drawn == ("B", "Z") and found.class_numbers.tolist() == [1, 0]


def test_the_threshold_is_the_least_probability_of_a_pixel():
    card, size = card_of("dense", ("Glass", "A", "B"), ("Glass",)), Size(80, 64)
    assert draw(dense_maps(), card, size, threshold=210 / 255).class_numbers.tolist() == [1, 0]
    assert draw(dense_maps(), card, size, threshold=0.83).class_numbers.tolist() == [0]
    assert len(draw(dense_maps(), card_of("dense", ("Glass", "A", "B"), ("Glass",), threshold=1.0), size)) == 1
    assert (
        len(draw(dense_maps(), card_of("dense", ("Glass", "A", "B"), ("Glass",), threshold=1.0), size, threshold=0))
        == 2
    )


def test_small_features_are_dropped_by_their_area_on_the_slide():
    # 2 × 2 map pixels of 4 stored pixels of 0.5 µm are 16 µm².
    card, size = card_of("patch", ("Glass", "A", "B"), ("Glass",)), Size(80, 64)
    assert len(draw(dense_maps(), card, size, min_area_um2=16)) == 2
    assert len(draw(dense_maps(), card, size, min_area_um2=16.1)) == 1
    assert len(draw(dense_maps(), card, size, min_area_um2=16.1, stored_mpp=0.51)) == 2


def test_what_was_not_computed_is_not_drawn():
    maps = dense_maps()
    maps.computed = np.zeros((8, 10), bool)
    maps.computed[1:3] = True
    found = draw(maps, card_of("patch", ("Glass", "A", "B"), ("Glass",)), Size(80, 64))
    assert [geometry.bounds for geometry in found.geometries] == [(0, 8, 32, 24), (48, 16, 64, 24)]
    maps.computed[:] = False
    assert len(draw(maps, card_of("patch", ("Glass", "A", "B"), ("Glass",)), Size(80, 64))) == 0


def test_the_last_map_pixels_are_cut_at_the_edge_of_the_slide():
    told = np.full((2, 5, 5), 10, np.uint8)
    told[1] = 250
    for kind, simplify in (("patch", 0), ("dense", 16)):
        found = draw(
            ArrayMaps(told, 16), card_of(kind, ("Glass", "A"), ("Glass",)), Size(149, 131), simplify_px=simplify
        )
        assert found.geometries[0].equals(shapely.box(0, 0, 149, 131))


def test_a_stair_of_a_dense_map_is_straightened_and_that_of_patches_is_not():
    below = np.add.outer(np.arange(40), np.arange(40)) < 40
    maps = ArrayMaps(np.stack([below * 255, ~below * 255]).astype(np.uint8), 8)
    corners = {
        kind: len(draw(maps, card_of(kind, ("A", "B")), Size(640, 640)).geometries[0].exterior.coords)
        for kind in ("dense", "patch")
    }
    assert corners["dense"] < 10 and corners["patch"] > 75


def test_neighbours_share_their_borders_over_cells(monkeypatch):
    monkeypatch.setattr(module, "CELL", 16)
    noise = np.random.default_rng(1).random((3, 7, 9)).repeat(8, 1).repeat(7, 2)
    maps = ArrayMaps((noise * 255).astype(np.uint8), 2)
    found = draw(maps, card_of("dense", ("A", "B", "C")), Size(252, 224), simplify_px=3)
    assert shapely.coverage_is_valid(found.geometries) and shapely.is_valid(found.geometries).all()
    assert shapely.area(found.geometries).sum() == 252 * 224
    assert max(box.width for box in maps.asked) <= 18


def test_a_heatmap_gives_bands_with_their_mean_value():
    told = np.array([[[0, 25, 26, 50, 51, 255, 254, 230, 229]]], np.uint8)
    found = draw(ArrayMaps(told, 64), card_of("heatmap", ("Tumour",)), Size(9 * 128, 128))
    bounds = [tuple(edge / 128 for edge in geometry.bounds[::2]) for geometry in found.geometries]
    assert bounds == [(2, 4), (4, 5), (5, 8), (8, 9)] and set(found.class_numbers) == {0}
    assert found.scores.tolist() == pytest.approx([38 / 255, 51 / 255, (255 + 254 + 230) / 3 / 255, 229 / 255])
    above = draw(ArrayMaps(told, 64), card_of("heatmap", ("Tumour",)), Size(9 * 128, 128), threshold=0.9)
    assert [geometry.bounds[0] / 128 for geometry in above.geometries] == [5]


@pytest.fixture(scope="module")
def scene_labels() -> np.ndarray:
    outlines = make_scene(Size(900, 700), seed=2).nuclei.outlines()
    return label_outlines(shapely.transform(outlines, lambda base: base / 2), Size(450, 350))


def test_nuclei_of_a_drawn_scene_come_back_exactly_in_base_pixels(scene_labels, monkeypatch):
    told = targets(scene_labels)[0] * np.uint8(255)
    kept = np.isin(scene_labels, np.unique(scene_labels[told[0] > 0]))
    truth = label_polygons(np.where(kept, scene_labels, 0))[1]
    base_truth = {shapely.transform(each, lambda points: points * 2).normalize().wkb for each in truth}
    monkeypatch.setattr(module, "BLOCK", 128)
    card = card_of("instance", ("Nucleus",), min_seed_px=1)
    exact = draw(ArrayMaps(told), card, Size(900, 700), simplify_px=0)
    found = {geometry.normalize().wkb for geometry in exact.geometries}
    assert len(exact) == len(found) and len(found & base_truth) > 0.97 * len(base_truth) > 30
    smooth = draw(ArrayMaps(told), card, Size(900, 700))
    assert shapely.is_valid(smooth.geometries).all() and len(smooth) == len(exact)
    distance = shapely.hausdorff_distance(
        shapely.boundary(exact.geometries), shapely.boundary(smooth.geometries), densify=0.1
    )
    assert distance.max() <= 2 * 0.5


def test_an_object_larger_than_any_of_its_kind_is_dropped():
    told = np.zeros((2, 20, 40), np.uint8)
    told[0, 2:8, 2:8] = told[0, 2:14, 20:32] = 255
    sizes = {most: len(draw(ArrayMaps(told), card_of("instance", ("Nucleus",), max_area_um2=most), Size(80, 40)))
             for most in (8.9, 9, 35.9, 36)}  # fmt: skip
    assert sizes == {8.9: 0, 9: 1, 35.9: 1, 36: 2}


def test_types_name_the_class_and_one_that_is_not_drawn_drops_its_objects():
    told = np.zeros((5, 10, 30), np.uint8)
    for number, left in enumerate((2, 12, 22)):
        told[0, 2:8, left : left + 6] = 204
        told[2 + number, 2:8, left : left + 6] = 255
    card = card_of("instance", ("Z", "Debris", "B"), ("Debris",))
    found = draw(ArrayMaps(told, 2), card, Size(120, 40))
    assert card.drawn == ("B", "Z") and found.class_numbers.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.8, 0.8])
    assert found.geometries[0].bounds == (8, 8, 32, 32)


@pytest.mark.parametrize("kind", ["dense", "instance"])
def test_the_order_is_the_same_every_time(kind, monkeypatch):
    monkeypatch.setattr(module, "CELL", 16)
    monkeypatch.setattr(module, "BLOCK", 32)
    maps = ArrayMaps((np.random.default_rng(5).random((2, 64, 64)) * 255).astype(np.uint8))
    card = card_of(kind, ("A", "B") if kind == "dense" else ("A",))
    one, other = (draw(maps, card, Size(128, 128)) for _ in range(2))
    assert shapely.to_wkb(one.geometries).tolist() == shapely.to_wkb(other.geometries).tolist() and len(one) > 20
    assert one.scores.tolist() == other.scores.tolist()


@pytest.mark.parametrize("kind", ["dense", "instance"])
def test_progress_is_told_and_cancelling_stops_before_the_next_block(kind, monkeypatch):
    monkeypatch.setattr(module, "CELL", 16)
    monkeypatch.setattr(module, "BLOCK", 16)
    maps = ArrayMaps(np.full((2, 32, 48), 200, np.uint8))
    card = card_of(kind, ("A", "B") if kind == "dense" else ("A",))
    told: list[tuple[int, int]] = []
    draw(maps, card, Size(96, 64), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(7)]
    maps.asked.clear()
    seen: list[int] = []
    with pytest.raises(PredictionCancelledError, match="cancelled"):
        draw(maps, card, Size(96, 64), cancelled=lambda: len(seen) > 2, progress=lambda done, total: seen.append(done))
    assert seen == [0, 1, 2] and {(box.x_end - 1) // 16 for box in maps.asked} <= {0, 1, 2}


def test_batches_are_small(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 10)
    told = np.zeros((1, 10, 10), np.uint8)
    told[0, ::2, ::2] = 255
    batches = list(vectorise(ArrayMaps(told), card_of("heatmap", ("A",)), {}, Size(20, 20)))
    assert [len(batch) for batch in batches] == [10, 10, 5]
