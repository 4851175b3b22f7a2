"""Windows stitched equal one pass over the whole slide; the pipeline is bounded and stops soon."""

import threading
import time

import numpy as np
import pytest

from tests.inference.fakes import HALO, BlurPredictor, SharedPredictor, dense_card, one_pass
from wsi_ml.errors import DamagedError, ModelOutputError, PredictionCancelledError
from wsi_ml.geometry import Region, Size
from wsi_ml.inference import slide as slide_module
from wsi_ml.inference.card import PredictorClass
from wsi_ml.inference.grid import make_grid
from wsi_ml.inference.maps import StitchedMaps
from wsi_ml.inference.slide import WindowReader, compute_windows
from wsi_ml.inference.tissue import everything, find_tissue
from wsi_ml.inference.window_file import WindowFile

SIZE = Size(1010, 770)
WHOLE = Region(0, 0, *SIZE)


@pytest.fixture
def pyramid(library, slide_id):
    return library.pyramid(slide_id)


@pytest.fixture
def stored(pyramid):
    """The stored plane as it decodes."""
    return pyramid.region(WHOLE)


def computed(folder, pyramid, predictor, *, tissue=None, region=WHOLE, overlap=0.0, batch=3, **more):
    card = predictor.card
    grid = make_grid(card, SIZE, region, tissue or everything(pyramid), overlap)
    windows = WindowFile(folder, {}, len(grid), batch, (len(card.channels), card.map_side, card.map_side))
    compute_windows(pyramid, predictor, grid, windows, **more)
    return StitchedMaps(grid, windows, card.stride)


@pytest.mark.parametrize(("side", "stride", "batch"), [(160, 2, 3), (96, 1, 7), (288, 4, 1), (544, 8, 2)])
def test_windows_stitched_equal_one_pass_to_the_bit(tmp_path, pyramid, stored, side, stride, batch):
    predictor = SharedPredictor(dense_card(side, stride))
    maps = computed(tmp_path / "w", pyramid, predictor, batch=batch)
    whole = one_pass(stored, predictor.card)
    assert maps.size == (whole.shape[2], whole.shape[1]) and (maps.channels, maps.stride) == (2, stride)
    assert np.array_equal(maps.region(0, 0, *maps.size), whole)
    assert maps.covered(0, 0, *maps.size).all()


@pytest.mark.parametrize("overlap", [0.5, 0.75])
def test_overlapping_windows_stitch_to_the_same(tmp_path, pyramid, stored, overlap):
    predictor = BlurPredictor()
    maps = computed(tmp_path / "w", pyramid, predictor, overlap=overlap)
    assert np.array_equal(maps.region(0, 0, *maps.size), one_pass(stored, predictor.card))


def test_any_part_of_a_map_is_that_part_of_the_whole(tmp_path, pyramid, stored):
    predictor = BlurPredictor()
    maps = computed(tmp_path / "w", pyramid, predictor)
    whole = one_pass(stored, predictor.card)
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = int(rng.integers(0, 500)), int(rng.integers(0, 380))
        width, height = int(rng.integers(1, 506 - x)), int(rng.integers(1, 386 - y))
        assert np.array_equal(maps.region(x, y, width, height), whole[:, y : y + height, x : x + width])


def test_only_tissue_is_computed_and_the_rest_is_zero(tmp_path, pyramid, stored):
    predictor = BlurPredictor()
    tissue = find_tissue(pyramid)
    maps = computed(tmp_path / "w", pyramid, predictor, tissue=tissue)
    covered = maps.covered(0, 0, *maps.size)
    picture = maps.region(0, 0, *maps.size)
    step = 1 << tissue.halvings
    on_tissue = tissue.mask.repeat(step, 0).repeat(step, 1)[:770:2, :1010:2]
    assert covered[on_tissue].all() and 0.2 < covered.mean() < 0.8
    assert np.array_equal(picture, one_pass(stored, predictor.card) * covered)


def test_outside_the_region_asked_for_a_map_is_zero(tmp_path, pyramid, stored):
    predictor = BlurPredictor()
    maps = computed(tmp_path / "w", pyramid, predictor, region=Region(131, 100, 200, 301))
    covered = maps.covered(0, 0, *maps.size)
    inside = np.zeros_like(covered)
    inside[50:201, 65:166] = True
    assert np.array_equal(covered, inside)
    assert np.array_equal(maps.region(0, 0, *maps.size), one_pass(stored, predictor.card) * inside)
    assert not maps.region(300, 300, 20, 20).any()


def test_overlapping_patches_are_means_on_a_finer_map(tmp_path, pyramid):
    class Mean:
        card = dense_card(side=160, stride=128, kind="patch", classes=(PredictorClass("A"), PredictorClass("Pale")))

        def __call__(self, windows):
            core = windows[:, HALO:-HALO, HALO:-HALO].reshape(len(windows), -1).mean(axis=1)
            return np.stack([core, 255 - core], axis=1).round().astype(np.uint8)[:, :, None, None]

    plain = computed(tmp_path / "plain", pyramid, Mean())
    fine = computed(tmp_path / "fine", pyramid, Mean(), overlap=0.5)
    assert (plain.size, plain.stride) == ((8, 7), 128) and (fine.size, fine.stride) == ((16, 13), 64)
    reader = WindowReader(pyramid, fine.grid)
    four = [
        Mean()(reader.window(int(fine.grid.numbers[row, column]))[None])[0, :, 0, 0]
        for row in (2, 3)
        for column in (4, 5)
    ]
    assert np.array_equal(fine.region(5, 3, 1, 1)[:, 0, 0], (np.sum(four, axis=0, dtype=int) + 2) // 4)


def test_finished_batches_are_not_computed_again(tmp_path, pyramid):
    class Full(Exception):
        pass

    def stop(done, total, unit):
        assert (total, unit) == (56, "windows")
        if done >= 21:
            raise Full

    with pytest.raises(Full):
        computed(tmp_path / "w", pyramid, BlurPredictor(), progress=stop)
    seen, predictor = [], BlurPredictor()
    maps = computed(tmp_path / "w", pyramid, predictor, progress=lambda done, *_: seen.append(done))
    assert seen[0] == 21 and seen[-1] == 56
    assert sum(predictor.calls) == 56 - 21
    again = computed(tmp_path / "again", pyramid, BlurPredictor())
    assert np.array_equal(maps.region(0, 0, *maps.size), again.region(0, 0, *maps.size))


def test_cancelling_stops_within_a_batch_and_keeps_what_is_finished(tmp_path, pyramid):
    predictor = SharedPredictor(seconds=0.02)
    stop = threading.Event()
    called_when_cancelled = []

    def progress(done, total, unit):
        if done >= 9 and not stop.is_set():
            stop.set()
            called_when_cancelled.append(len(predictor.calls))

    with pytest.raises(PredictionCancelledError, match="goes on from here"):
        computed(tmp_path / "w", pyramid, predictor, progress=progress, cancelled=stop.is_set)
    # The three callers end the batches they have in hand and may each have begun one more.
    assert len(predictor.calls) <= called_when_cancelled[0] + 6
    counting = BlurPredictor()
    computed(tmp_path / "w", pyramid, counting)
    assert sum(counting.calls) == 56 - 9


def test_a_waiting_caller_is_cancelled_too(tmp_path, pyramid):
    hold = threading.Event()

    class Stuck(BlurPredictor):
        def __call__(self, windows):
            hold.wait(10)
            return super().__call__(windows)

    looks = []

    def cancelled():
        looks.append(time.monotonic())
        if len(looks) > 20:
            hold.set()
            return True
        return False

    with pytest.raises(PredictionCancelledError):
        computed(tmp_path / "w", pyramid, Stuck(), cancelled=cancelled)


def test_no_more_batches_exist_at_a_time_than_the_pipeline_holds(tmp_path, pyramid, monkeypatch):
    alive, most, lock = set(), [0], threading.Lock()
    real_batch, real_write = WindowReader.batch, WindowFile.write

    def batch(self, numbers):
        with lock:
            alive.add(numbers.start)
            most[0] = max(most[0], len(alive))
        return real_batch(self, numbers)

    def write(self, number, maps, active_s):
        time.sleep(0.01)  # a slow disk: readers and callers would run away
        real_write(self, number, maps, active_s)
        with lock:
            alive.discard(number)

    monkeypatch.setattr(WindowReader, "batch", batch)
    monkeypatch.setattr(WindowFile, "write", write)
    monkeypatch.setattr(slide_module.os, "sched_getaffinity", lambda _: range(4))
    computed(tmp_path / "w", pyramid, SharedPredictor(), batch=1)
    assert 3 <= most[0] <= 2 * 3 + 2


@pytest.mark.parametrize(
    "wrong", [lambda maps: maps[:, :, 1:], lambda maps: maps[:1], lambda maps: maps.astype(np.float32)]
)
def test_output_of_the_wrong_form_is_refused(tmp_path, pyramid, wrong):
    class Wrong(BlurPredictor):
        def __call__(self, windows):
            return wrong(super().__call__(windows))

    with pytest.raises(ModelOutputError, match="blur gave"):
        computed(tmp_path / "w", pyramid, Wrong())


def test_what_a_predictor_or_a_tile_raises_reaches_the_caller(tmp_path, pyramid, library, slide_id):
    class Broken(SharedPredictor):
        def __call__(self, windows):
            raise ModelOutputError("broken")

    with pytest.raises(ModelOutputError, match="broken"):
        computed(tmp_path / "w", pyramid, Broken())
    path = library.folder(slide_id, library.slide(slide_id).current) / "pyramid.tif"
    data = bytearray(path.read_bytes())
    data[pyramid.tile_record(0, 1, 1)[0] + 900] ^= 8
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="1_1 of level 0"):
        computed(tmp_path / "v", library.pyramid(slide_id), SharedPredictor())
