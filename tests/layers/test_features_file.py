"""A features file: written in bounded memory, whole or not at all, read by block, by box and as a whole."""

from __future__ import annotations

import gzip
from itertools import pairwise

import numpy as np
import pytest
import shapely

from tests.layers.shapes import batch_of, mixed_batch, star
from wsi_ml.errors import DamagedError, DiskFullError
from wsi_ml.geometry import Size
from wsi_ml.layers import features_writer
from wsi_ml.layers.batch import FeatureBatch
from wsi_ml.layers.blocks import decode_block
from wsi_ml.layers.features_file import FeaturesFile
from wsi_ml.layers.features_writer import FeaturesWriter, morton, quad_keys
from wsi_ml.layers.layer import BaseBox

SIZE = Size(9000, 7000)
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def batch():
    return mixed_batch(seed=11, size=SIZE, count=3000)


@pytest.fixture(scope="module")
def file(tmp_path_factory, batch):
    path = tmp_path_factory.mktemp("features") / "one.features"
    write(path, [batch])
    file = FeaturesFile(path)
    assert file.check() == []
    return file


def write(path, batches, names=NAMES, size=SIZE):
    with FeaturesWriter(path, names, size) as writer:
        for batch in batches:
            writer.add(batch)
        return writer.finish()


def parts(batch, *places):
    places = [0, *places, len(batch)]
    for a, b in pairwise(places):
        yield FeatureBatch(batch.geometries[a:b], batch.class_numbers[a:b], batch.scores[a:b])


def test_all_features_come_back(file, batch):
    seen = []
    for numbers, found in file.batches():
        seen += numbers.tolist()
        assert [g.wkb for g in found.geometries] == [g.wkb for g in batch.geometries[numbers]]
        np.testing.assert_array_equal(found.class_numbers, batch.class_numbers[numbers])
        np.testing.assert_allclose(found.scores, batch.scores[numbers], atol=0.5e-4 + 1e-7)
    assert sorted(seen) == list(range(3000)) and file.count == 3000


def test_facts_are_counted_from_what_is_stored(file, batch):
    areas = shapely.area(batch.geometries)
    assert file.facts.class_names == NAMES and file.facts.scored and file.facts.count == 3000
    for number in range(3):
        own = batch.class_numbers == number
        assert file.facts.counts[number] == own.sum()
        assert file.facts.base_areas[number] == pytest.approx(areas[own].sum(), rel=1e-12)


def test_each_feature_lies_in_the_block_of_its_quadtree_cell(file):
    sides = set()
    for block in file.blocks:
        columns = file.block(block.number)
        assert len(columns) == block.count <= 2048
        boxes = columns.boxes / 16
        assert (boxes[:, :2].min(0).tolist(), boxes[:, 2:].max(0).tolist()) == (
            list(block.box[:2]),
            list(block.box[2:]),
        )
        extents = (boxes[:, 2:] - boxes[:, :2]).max(1)
        fitting = 2048 * 2 ** np.maximum(np.ceil(np.log2(extents / 2048)), 0)
        assert len(set(fitting)) == 1
        side = fitting[0]
        cells = (boxes[:, :2] + boxes[:, 2:]) / 2 // side
        assert (cells == cells[0]).all()
        sides.add(int(side))
        assert gzip.decompress(file.block_gzip(block.number))[:4] == b"OCB1"
    assert sides == {2048, 4096}


def test_no_block_holds_too_many_features_and_those_of_one_lie_together(tmp_path):
    rng = np.random.default_rng(2)
    spots = rng.uniform(10, 2030, (9000, 2))
    write(tmp_path / "a.features", [batch_of([star(rng, x, y, 5) for x, y in spots])], ("a",))
    file = FeaturesFile(tmp_path / "a.features")
    assert [block.count for block in file.blocks] == [2048, 2048, 2048, 2048, 808]
    areas = [(b.box.x1 - b.box.x0) * (b.box.y1 - b.box.y0) for b in file.blocks]
    assert sum(areas) < 2.2 * 2048**2  # the blocks hardly overlap


def test_few_large_outlines_make_blocks_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(features_writer, "BLOCK_POINTS", 100)
    rng = np.random.default_rng(2)
    shapes = [star(rng, 500 + n, 500, 300, points) for n, points in enumerate((40, 40, 500, 40, 10))]
    write(tmp_path / "a.features", [batch_of(shapes)], ("a",))
    file = FeaturesFile(tmp_path / "a.features")
    points = [len(file.block(n).points) for n in range(len(file.blocks))]
    assert sum(points) == 630 and sorted(points) == [40, 90, 500]
    assert file.check() == []


def test_boxes_find_what_a_scan_finds(file, batch):
    rng = np.random.default_rng(7)
    bounds, areas = shapely.bounds(batch.geometries), shapely.area(batch.geometries)
    for _ in range(30):
        x, y, w, h = rng.uniform(0, 6000, 4)
        box = BaseBox(round(x), round(y), round(x + w / 3), round(y + h / 3))
        classes, score = [None, ["a", "c"], ["no such"]][rng.integers(3)], [None, 0.5, 0.73][rng.integers(3)]
        meets = (
            (bounds[:, 0] <= box.x1) & (bounds[:, 2] >= box.x0) & (bounds[:, 1] <= box.y1) & (bounds[:, 3] >= box.y0)
        )
        if classes is not None:
            meets &= np.isin(np.array(NAMES)[batch.class_numbers], classes)
        if score is not None:
            meets &= np.isnan(batch.scores) | (np.floor(batch.scores.astype(float) * 10_000 + 0.5) >= score * 10_000)
        exact = np.flatnonzero(meets)
        exact = exact[np.lexsort((exact, -areas[exact].astype(np.float32)))]
        found = file.query(box, classes, score)
        assert found.total == len(exact)
        assert (found.columns.numbers.tolist() if found.columns else []) == exact.tolist()
        few = file.query(box, classes, score, limit=5)
        assert few.total == len(exact)
        assert (few.columns.numbers.tolist() if few.columns else []) == exact[:5].tolist()


def test_edges_of_boxes_count(tmp_path):
    write(tmp_path / "a.features", [batch_of([shapely.box(100, 100, 110.5, 120)])], ("a",))
    file = FeaturesFile(tmp_path / "a.features")
    assert file.query(BaseBox(110.5, 120, 200, 200)).total == 1
    assert file.query(BaseBox(110.51, 100, 200, 200)).total == 0
    assert file.query(BaseBox(0, 0, 100, 100)).total == 1
    assert file.query(BaseBox(0, 0, 99.99, 100)).total == 0


def test_a_limit_keeps_the_memory_of_a_whole_query_small(tmp_path, monkeypatch):
    batch = mixed_batch(seed=3, size=SIZE, count=2500)
    monkeypatch.setattr(features_writer, "BLOCK_FEATURES", 50)
    write(tmp_path / "a.features", [batch])
    file = FeaturesFile(tmp_path / "a.features")
    monkeypatch.setattr("wsi_ml.layers.features_file.THIN_OUT", 200)
    held = []
    monkeypatch.setattr(
        "wsi_ml.layers.features_file.join",
        lambda pieces, join=features_writer.join: held.append(sum(map(len, pieces))) or join(pieces),
    )
    found = file.query(limit=10)
    areas = shapely.area(batch.geometries).astype(np.float32)
    assert found.columns.numbers.tolist() == np.lexsort((np.arange(2500), -areas))[:10].tolist()
    assert found.total == 2500 and max(held) <= 2 * 10 + 200 + 50 and len(held) > 5


def test_classes_are_sorted_by_name_whatever_order_they_come_in(tmp_path):
    shapes = [shapely.box(n, 0, n + 1, n + 1) for n in range(3)]
    facts = write(tmp_path / "a.features", [batch_of(shapes, [0, 1, 2])], ("zebra", "ant", "mole"))
    assert (facts.class_names, facts.counts, facts.base_areas) == (("ant", "mole", "zebra"), (1, 1, 1), (2.0, 3.0, 1.0))
    file = FeaturesFile(tmp_path / "a.features")
    assert file.block(0).class_numbers.tolist() == [2, 0, 1] and not facts.scored
    assert file.query(classes=["ant"]).columns.numbers.tolist() == [1]


def test_the_same_features_give_the_same_bytes_however_they_are_batched(tmp_path, batch, monkeypatch):
    write(tmp_path / "whole.features", [batch])
    write(tmp_path / "parts.features", parts(batch, 1, 500, 501, 2222))
    monkeypatch.setattr(features_writer, "SPILL_POINTS", 700)
    monkeypatch.setattr(features_writer, "ADD_FEATURES", 60)
    monkeypatch.setattr("wsi_ml.layers.summary_writer.SPILL_ENTRIES", 500)
    monkeypatch.setattr("wsi_ml.layers.summary.GRID_CELLS", 64)
    monkeypatch.setattr(features_writer, "CELL_POINTS", 1 << 40)
    write(tmp_path / "spilled.features", parts(batch, 900))
    whole = (tmp_path / "whole.features").read_bytes()
    assert whole == (tmp_path / "parts.features").read_bytes() == (tmp_path / "spilled.features").read_bytes()


def test_memory_is_bounded_however_many_features_come(tmp_path, monkeypatch):
    monkeypatch.setattr(features_writer, "SPILL_POINTS", 2000)
    monkeypatch.setattr(features_writer, "CELL_POINTS", 3000)
    monkeypatch.setattr(features_writer, "ADD_FEATURES", 50)
    monkeypatch.setattr("wsi_ml.layers.summary_writer.SPILL_ENTRIES", 300)
    joined, added = [], []
    monkeypatch.setattr(
        features_writer,
        "join",
        lambda pieces, join=features_writer.join: joined.append(sum(len(p.points) for p in pieces)) or join(pieces),
    )
    rng = np.random.default_rng(4)
    with FeaturesWriter(tmp_path / "a.features", ["a"], Size(2048, 2048)) as writer:
        for _ in range(40):  # all in one quadtree cell, the hardest case
            spots = rng.uniform(30, 2000, (300, 2))
            writer.add(batch_of([star(rng, x, y, 9) for x, y in spots]))
            assert writer._pending_points < 2000 and writer._summary._count < 300 + 4 * 150
            added.append(writer._pending_points)
        facts = writer.finish()
    assert max(joined) <= 3000 + 2000 + 50 * 16 and len(joined) > 90
    assert facts.count == 12_000 and FeaturesFile(tmp_path / "a.features").check() == []


def test_without_finish_or_with_a_fault_there_is_no_file(tmp_path, batch):
    path = tmp_path / "a.features"
    with FeaturesWriter(path, NAMES, SIZE) as writer:
        writer.add(batch)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), FeaturesWriter(path, NAMES, SIZE) as writer:
        writer.add(batch)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="3 classes"), FeaturesWriter(path, NAMES, SIZE) as writer:
        writer.add(batch_of([shapely.box(0, 0, 1, 1)], [3]))
    with pytest.raises(ValueError, match="one name"):
        FeaturesWriter(path, ("a", "a"), SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_named_error(tmp_path, batch, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features_writer, "sync_file", full)
    with pytest.raises(DiskFullError, match="was not written"):
        write(tmp_path / "a.features", [batch])
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.features"
    write(path, [mixed_batch(seed=9, size=SIZE, count=60)])
    data = path.read_bytes()
    random = np.random.default_rng(1)
    for spot in {
        0,
        7,
        len(data) - 1,
        *range(len(data) - 60, len(data), 7),
        *random.integers(0, len(data), 150).tolist(),
    }:
        changed = bytearray(data)
        changed[spot] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            faults = FeaturesFile(path).check()
        except DamagedError as error:
            faults = [str(error)]
        assert faults and "a.features" in faults[0], f"byte {spot}"
    for length in (0, 10, 48, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedError, match="damaged or not whole"):
            FeaturesFile(path)
    path.unlink()
    with pytest.raises(DamagedError, match="cannot be opened"):
        FeaturesFile(path)


def test_a_damaged_block_is_withheld_and_the_others_stay(tmp_path, batch):
    path = tmp_path / "a.features"
    write(path, [batch])
    offset = FeaturesFile(path).blocks[3].offset
    data = bytearray(path.read_bytes())
    data[offset + 20] ^= 4
    path.write_bytes(data)
    file = FeaturesFile(path)
    with pytest.raises(DamagedError, match="Block 3 of the features file"):
        file.block_gzip(3)
    assert len(file.block(2)) == file.blocks[2].count
    with pytest.raises(IndexError, match="no block 999"):
        file.block(999)


def test_block_bytes_are_what_the_decoder_reads(file):
    for block in file.blocks[:5]:
        columns = decode_block(gzip.decompress(file.block_gzip(block.number)))
        np.testing.assert_array_equal(columns.points, file.block(block.number).points)


def test_quadtree_keys():
    boxes = np.array([(0, 0, 10, 10), (2040, 0, 2060, 9), (0, 0, 2048, 1), (0, 0, 2048.0625, 1), (0, 0, 0, 0)]) * 16
    levels = quad_keys(boxes.astype(np.int32)) >> 56
    assert levels.tolist() == [0, 0, 0, 1, 0]
    assert (quad_keys(boxes.astype(np.int32)) & 0xFFFF).tolist() == [0, 1, 0, 0, 0]
    assert morton(np.array([(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (5, 3)])).tolist() == [0, 1, 2, 3, 4, 27]
