"""Trust maps: fidelity where the scan is known, else estimate or cycle error, to polygons that add up."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import shapely

from tests.inference.conftest import SIZE
from wsi_ml.errors import UnknownModelError
from wsi_ml.geometry import Region, Size
from wsi_ml.inference.predicting import PredictRequest, predict, prepare
from wsi_ml.inference.predictor import available_predictors, find_card, open_predictor
from wsi_ml.inference.trust_predictor import TrustPredictor, trust_card
from wsi_ml.layers.store import LayerStore
from wsi_ml.slides.kept import FidelityGrid, KeptIdentity
from wsi_ml.slides.kept_writer import KeptWriter, Outcome
from wsi_ml.slides.library import utc_now
from wsi_ml.sr.calibration import calibration_from_knots, detail_picture
from wsi_ml.sr.cycle import cell_means
from wsi_ml.sr.trust import CYCLE_BANDS, ESTIMATED_BANDS, FIDELITY_BANDS
from wsi_ml.sr.upscaler import WEIGHTS_FOLDER, bicubic_card

MODEL = "trust-sr-fast"
AGREES, NEAR, CONTRADICTS = (band.name for band in CYCLE_BANDS)
ESTIMATED = [band.name for band in ESTIMATED_BANDS]
MATCHES, SMALL, DIFFERS, KEPT = (band.name for band in FIDELITY_BANDS)
HALO = 8


class Repeating:
    """An upscaler that repeats pixels, and so is consistent, but adds `wrong` grey levels where the picture is red."""

    def __init__(self, wrong: int = 0, knots=()):
        card = replace(bicubic_card(), name="fake", kind="sr", halo=HALO)
        self.card = replace(card, trust={"sha256": card.sha256, "knots": list(knots)} if knots else {})
        self.wrong = wrong
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        self.shapes.append(rgb.shape)
        red = (rgb[..., 0] > 200) & (rgb[..., 1] < 50)
        changed = rgb + np.where(red, np.uint8(self.wrong), np.uint8(0))[..., None]
        return changed.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)

    def batch(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        return [self(tile) for tile in tiles]


def predictor_for(upscaler: Repeating, size: Size, grid: FidelityGrid | None = None) -> TrustPredictor:
    card = trust_card(upscaler.card)
    return TrustPredictor(upscaler, card).fitted(card, size, grid)


def window_at(picture: np.ndarray, x: int, y: int, card) -> tuple[np.ndarray, Region]:
    """A window whose core begins at (x, y), its slide's edge repeated, and its place."""
    side = card.side
    rows = np.clip(np.arange(y - HALO, y - HALO + side), 0, picture.shape[0] - 1)
    cols = np.clip(np.arange(x - HALO, x - HALO + side), 0, picture.shape[1] - 1)
    return picture[rows[:, None], cols[None]], Region(x - HALO, y - HALO, side, side)


def grid_of(values, kept=None) -> FidelityGrid:
    values = np.array(values, np.float16)
    kept = np.zeros(values.shape, bool) if kept is None else np.array(kept, bool)
    return FidelityGrid(values, kept, Size(512 * values.shape[1], 512 * values.shape[0]), 512, "fake", "ab", 0.9)


def keep(library, slide_id: str, sha256: str, fidelity, kept=()) -> None:
    """Give a slide the result of a comparison with its scan: SSIM of each tile in row order, numbers of kept ones."""
    version = library.slide(slide_id).current
    identity = KeptIdentity(version, "sr-fast", sha256, 0.9, "as served")
    facts = library.card(slide_id)
    with KeptWriter(library.version_folder(version) / "kept", identity, facts.base_size, 512) as writer:
        writer.add([
            Outcome(value, 3, b"abc" if number in kept else None) for number, value in enumerate(fidelity)
        ])  # fmt: skip
        writer.finish(utc_now())
    library.publish_kept(version, identity.key)


def test_cells_that_contradict_the_stored_pixels_are_found_where_they_are():
    picture = np.full((600, 600, 3), 120, np.uint8)
    picture[64:96, 128:160] = (220, 10, 10)
    picture[300, 300] = (220, 10, 10)  # one pixel that is 30 off
    upscaler = Repeating(wrong=30)
    predictor = predictor_for(upscaler, Size(600, 600))
    window, place = window_at(picture, 0, 0, predictor.card)
    maps = predictor.at(window[None], [place])
    assert maps.shape == (1, 3, 16, 16) and maps.dtype == np.uint8
    wrong = np.zeros((16, 16), bool)
    wrong[2, 4] = wrong[9, 9] = True
    assert (maps[0].argmax(0) == np.where(wrong, 2, 0)).all()
    assert maps[0, 0, 0, 0] == 255 and maps[0, 2, 2, 4] == 1 and maps[0, 2, 9, 9] == 255
    assert (np.count_nonzero(maps[0], axis=0) == 1).all()


def test_windows_over_the_slides_edge_see_the_slide_only():
    picture = np.full((600, 700, 3), 120, np.uint8)
    upscaler = Repeating()
    predictor = predictor_for(upscaler, Size(700, 600))
    windows, places = zip(*(window_at(picture, x, y, predictor.card) for y in (0, 512) for x in (0, 512)), strict=True)
    maps = predictor.at(np.stack(windows), list(places))
    assert upscaler.shapes == [(520, 520, 3), (520, 196, 3), (96, 520, 3), (96, 196, 3)]
    assert maps.shape == (4, 3, 16, 16) and (maps[:, 0] == 255).all()


def test_nothing_is_synthesised_where_the_scan_is_known():
    picture = np.full((512, 512, 3), 120, np.uint8)
    upscaler = Repeating()
    grid = grid_of([[0.99, 0.92], [0.5, 0.7]], [[0, 0], [0, 1]])
    predictor = predictor_for(upscaler, Size(512, 512), grid)
    window, place = window_at(picture, 0, 0, predictor.card)
    maps = predictor.at(window[None], [place])[0]
    assert upscaler.shapes == []
    assert maps.shape[0] == 4
    assert (maps.argmax(0)[::8, ::8] == [[0, 1], [2, 3]]).all()
    assert maps.max(0)[::8, ::8].tolist() == [[253, 235], [128, 179]]


def test_cycle_error_stands_in_where_the_scan_is_not_known():
    picture = np.full((512, 512, 3), 120, np.uint8)
    picture[:32, 256:288] = (220, 10, 10)
    upscaler = Repeating(wrong=30)
    predictor = predictor_for(upscaler, Size(512, 512), grid_of([[0.99, np.nan], [0.99, 0.99]]))
    window, place = window_at(picture, 0, 0, predictor.card)
    bands = predictor.at(window[None], [place])[0].argmax(0)
    expected = np.zeros((16, 16), int)
    expected[:8, 8:] = 3
    expected[0, 8] = 5
    assert (bands == expected).all()


def test_where_no_scan_is_known_cells_are_banded_by_their_estimate():
    rng = np.random.default_rng(2)
    picture = np.full((600, 600, 3), 120, np.uint8)
    picture[:, 160:320] = rng.integers(110, 131, (600, 160, 3))
    picture[:, 320:] = rng.integers(90, 151, (600, 280, 3))
    picture[64:96, 128:160] = (220, 10, 10)
    knots = [[0, 0], [100, 10]]
    predictor = predictor_for(Repeating(wrong=30, knots=knots), Size(600, 600))
    window, place = window_at(picture, 0, 0, predictor.card)
    maps = predictor.at(window[None], [place])[0]
    assert maps.shape == (4, 16, 16) and predictor.card.about["trust"]["compared"] == "estimated"
    estimated = calibration_from_knots(knots)(cell_means(detail_picture(picture)[:512, :512], 32))
    band = np.where(estimated <= 2.5, 0, np.where(estimated <= 3.5, 1, 2))
    band[2, 4] = 3
    assert (maps.argmax(0) == band).all() and set(np.unique(band)) >= {0, 2, 3}
    assert maps[3, 2, 4] == 1, "30 grey levels off: the lowest score"
    others = np.delete(maps.max(0).ravel(), 2 * 16 + 4)
    assert (others == np.clip(np.rint(255 - 10 * np.delete(estimated.ravel(), 2 * 16 + 4)), 1, 255)).all()


def test_cells_of_neighbouring_windows_see_the_same_detail():
    picture = np.random.default_rng(3).integers(100, 140, (600, 1100, 3), dtype=np.uint8)
    predictor = predictor_for(Repeating(knots=[[0, 0], [100, 10]]), Size(1100, 600))
    windows, places = zip(*(window_at(picture, x, 0, predictor.card) for x in (0, 512)), strict=True)
    maps = predictor.at(np.stack(windows), list(places)).max(1)
    estimated = calibration_from_knots([[0, 0], [100, 10]])(cell_means(detail_picture(picture), 32))
    assert (np.hstack([*maps]) == np.rint(255 - 10 * estimated[:16, :32])).all()


def test_another_calibration_makes_another_map():
    digests = {
        trust_card(Repeating(knots=knots).card).digest for knots in ((), [[0, 0], [9, 9]], [[0, 0], [9, 8]])
    }  # fmt: skip
    assert len(digests) == 3


def test_every_upscaler_has_a_trust_map(library):
    assert MODEL in [card.name for card in available_predictors()]
    card, file = find_card(MODEL)
    assert file.name == "sr-fast.json"
    assert card.drawn == tuple(sorted(ESTIMATED))
    assert card.about["trust"]["compared"] == "estimated"
    assert {row["part"] for row in card.about["trust"]["held_out"]} == {"validation", "test"}
    assert open_predictor(MODEL).card == card


def test_an_upscaler_of_the_librarys_users_has_one_too(tmp_path):
    value = json.loads((WEIGHTS_FOLDER / "sr-fast.json").read_text()) | {"name": "own", "weights": "own.safetensors"}
    value["trust"]["sha256"] = "00" * 32
    (tmp_path / "own.json").write_text(json.dumps(value))
    (tmp_path / "broken.json").write_text("{")
    assert "trust-own" not in [card.name for card in available_predictors([tmp_path])], "there are no weights yet"
    shutil.copy(WEIGHTS_FOLDER / "sr-fast.safetensors", tmp_path / "own.safetensors")
    assert "trust-own" in [card.name for card in available_predictors([tmp_path])]
    predictor = open_predictor("trust-own", folders=[tmp_path])
    assert predictor.card.drawn == tuple(sorted([AGREES, NEAR, CONTRADICTS])), "calibrated for other weights"
    assert predictor.upscaler.card.name == "own" and predictor.numbers.startswith("cpu ")


def test_an_upscaler_that_is_not_there_has_none(tmp_path):
    with pytest.raises(UnknownModelError, match=r"'trust-none'.*trust-sr-fast"):
        find_card("trust-none", [tmp_path])


def test_a_slide_becomes_a_layer_that_covers_tissue_and_glass(library, slide_id):
    layer = predict(library.root, PredictRequest(slide_id, MODEL))
    assert sum(each.base_area for each in layer.classes) == 4 * SIZE.width * SIZE.height
    assert layer.kind == "prediction" and layer.provenance["model"] == MODEL
    assert layer.provenance["model_sha256"] == find_card(MODEL)[0].sha256
    told = layer.provenance["trust"]
    assert (told["upscaler"], told["compared"], told["floor"]) == ("sr-fast", "estimated", None)
    assert [band["name"] for band in told["bands"]] == ESTIMATED
    assert predict(library.root, PredictRequest(slide_id, MODEL)).id == layer.id


def test_fidelity_to_the_scan_is_drawn_tile_by_tile(library, slide_id):
    sha256 = find_card(MODEL)[0].sha256
    keep(library, slide_id, sha256, [0.99] * 8 + [0.92] * 4 + [0.8] * 4, kept=(15,))
    layer = predict(library.root, PredictRequest(slide_id, MODEL))
    areas = {each.name: each.base_area for each in layer.classes}
    rest = 2 * SIZE.width - 3 * 512
    last = 2 * SIZE.height - 3 * 512
    assert areas == {
        MATCHES: 1024 * 2 * SIZE.width, SMALL: 512 * 2 * SIZE.width, DIFFERS: last * 3 * 512, KEPT: last * rest,
    }  # fmt: skip
    assert layer.provenance["trust"]["compared"] == "scan" and layer.provenance["trust"]["floor"] == 0.9
    store = LayerStore(library.root)
    found = {each.class_name: each for each in store.all_features(layer.id)}
    assert shapely.bounds(found[KEPT].geometry).tolist() == [1536, 1536, 2 * SIZE.width, 2 * SIZE.height]
    assert found[DIFFERS].score == pytest.approx(0.8, abs=0.003)


def test_a_comparison_makes_another_map_and_one_with_other_weights_does_not(library, slide_id):
    request = PredictRequest(slide_id, MODEL)
    before = prepare(library.root, request)
    keep(library, slide_id, "cd" * 32, [0.99] * 16)
    assert prepare(library.root, request).key == before.key
    keep(library, slide_id, find_card(MODEL)[0].sha256, [0.99] * 16)
    after = prepare(library.root, request)
    assert after.key != before.key and after.fidelity is not None and before.fidelity is None


def test_a_region_is_covered_to_its_own_edge(library, slide_id):
    keep(library, slide_id, find_card(MODEL)[0].sha256, [0.99] * 16)
    layer = predict(library.root, PredictRequest(slide_id, MODEL, region=(0, 0, 640, 640)))
    assert sum(each.base_area for each in layer.classes) == 640 * 640
