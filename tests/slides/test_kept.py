"""Files of kept tiles: what is written is read, every flipped bit is found, unfinished work goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.slides.make_slides import picture
from wsi_ml.errors import DamagedError, LibraryError, OutsideError, TileNotKeptError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.codec import decode_jpeg
from wsi_ml.slides.kept import KeptIdentity, KeptTiles, encode_kept
from wsi_ml.slides.kept_writer import KeptWriter, Outcome

BASE_SIZE = Size(1300, 900)
FIDELITY = [0.95, 0.5, 0.9001, 0.8999, 1.0, -0.25]
IDENTITY = KeptIdentity("0123456789abcdef", "sr-fake", "ab" * 32, 0.9, "as served")


def outcomes(floor: float = 0.9) -> list[Outcome]:
    """Six tiles of a 3 × 2 grid; those under the floor are kept."""
    made = []
    for number, value in enumerate(FIDELITY):
        data = encode_kept(picture(64, 48, seed=number))
        made.append(Outcome(value, len(data), data if value < floor else None))
    return made


def write(folder, tiles=None):
    with KeptWriter(folder, IDENTITY, BASE_SIZE, 512) as writer:
        writer.add((tiles or outcomes())[writer.done :])
        return writer.finish("2026-01-01T00:00:00+00:00"), writer.path


def test_what_is_written_is_read(tmp_path):
    facts, path = write(tmp_path / "kept")
    tiles, made = KeptTiles(path), outcomes()
    assert path.name == f"{IDENTITY.key[:16]}.kept" and sorted(each.name for each in path.parent.iterdir()) == [
        path.name
    ]
    assert (facts, tiles.check()) == (tiles.facts, [])
    assert (facts.key, facts.tiles, facts.kept, facts.kept_share) == (IDENTITY.key, 6, 3, 0.5)
    kept = [outcome.scan_bytes for outcome in made if outcome.data]
    assert (facts.bytes_kept, facts.bytes_all) == (sum(kept), sum(outcome.scan_bytes for outcome in made))
    assert facts.bytes_saved == facts.bytes_all - facts.bytes_kept
    assert [tiles.has(col, row) for row in range(2) for col in range(3)] == [False, True, False, True, False, True]
    assert tiles.tile_bytes(1, 0) == made[1].data
    assert np.array_equal(tiles.tile_pixels(2, 1), decode_jpeg(made[5].data))
    assert json.loads(json.dumps(facts.to_json()))["bytes_saved"] == facts.bytes_saved


def test_the_distribution_is_told_in_bins_and_quantiles(tmp_path):
    facts, _ = write(tmp_path)
    # 0.02 wide: 0.95 → bin 47, 0.5 → 25, 0.9001 → 45, 0.8999 → 44, 1.0 → the last, −0.25 → the first
    assert {number: count for number, count in enumerate(facts.histogram) if count} == {
        0: 1,
        25: 1,
        44: 1,
        45: 1,
        47: 1,
        49: 1,
    }
    quantiles = dict(facts.quantiles)
    assert (quantiles[0.0], quantiles[0.5], quantiles[1.0]) == (-0.25, 0.9, 1.0)


def test_the_grid_tells_place_and_fidelity_of_every_tile(tmp_path):
    grid = KeptTiles(write(tmp_path)[1]).fidelity
    assert grid.values.dtype == np.float16 and grid.values.shape == (2, 3)
    assert np.allclose(grid.values.ravel(), FIDELITY, atol=5e-4)
    assert grid.kept.tolist() == [[False, True, False], [True, False, True]]
    assert (grid.model, grid.model_sha256, grid.floor, grid.tile_side) == ("sr-fake", "ab" * 32, 0.9, 512)
    assert grid.base_region(2, 1) == Region(1024, 512, 276, 388)
    with pytest.raises(OutsideError):
        grid.base_region(3, 0)


def test_a_tile_that_is_not_kept_says_why_and_one_outside_is_outside(tmp_path):
    tiles = KeptTiles(write(tmp_path)[1])
    with pytest.raises(TileNotKeptError, match="tile 0_0 is not kept: sr-fake reaches"):
        tiles.tile_bytes(0, 0)
    for place in ((3, 0), (0, 2), (-1, 0)):
        assert not tiles.has(*place)
        with pytest.raises(OutsideError):
            tiles.tile_bytes(*place)


def test_all_or_nothing_kept_are_files_too(tmp_path):
    for floor, kept in ((2.0, 6), (-1.0, 0)):
        facts, path = write(tmp_path / str(kept), outcomes(floor))
        assert (facts.kept, int(KeptTiles(path).fidelity.kept.sum()), KeptTiles(path).check()) == (kept, kept, [])


def test_every_flipped_bit_is_found(tmp_path):
    path = write(tmp_path)[1]
    data, random = path.read_bytes(), np.random.default_rng(5)
    for spot in {0, 7, 8, len(data) - 1, len(data) - 9, len(data) - 32, *random.integers(0, len(data), 200).tolist()}:
        changed = bytearray(data)
        changed[spot] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            assert KeptTiles(path).check() != [], f"byte {spot} of {len(data)}"
        except LibraryError as error:
            assert "damaged" in str(error)
    for length in (0, 7, 20, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(LibraryError, match="damaged"):
            KeptTiles(path)


def test_a_damaged_tile_is_withheld_and_the_others_are_read(tmp_path):
    path = write(tmp_path)[1]
    data = bytearray(path.read_bytes())
    data[8 + 30] ^= 1
    path.write_bytes(data)
    tiles = KeptTiles(path)
    with pytest.raises(DamagedError, match="Kept tile 1_0"):
        tiles.tile_bytes(1, 0)
    assert tiles.tile_bytes(0, 1) == outcomes()[3].data


@pytest.mark.parametrize(
    "harm",
    ["nothing", "torn journal", "longer part", "tail begun"],
)
def test_unfinished_work_goes_on_where_it_stopped(tmp_path, harm):
    whole = write(tmp_path / "whole")[1].read_bytes()
    with KeptWriter(tmp_path / "cut", IDENTITY, BASE_SIZE, 512) as writer:
        writer.add(outcomes()[:3])
    stem = (tmp_path / "cut" / IDENTITY.file_name).with_suffix
    if harm == "torn journal":
        with stem(".journal").open("ab") as journal:
            journal.write(b"\3\0\0\0half an entry")
    elif harm in ("longer part", "tail begun"):
        with stem(".part").open("ab") as part:
            part.write(b"bytes of a strip that has no entry")
    with KeptWriter(tmp_path / "cut", IDENTITY, BASE_SIZE, 512) as writer:
        assert writer.done == 3
        writer.add(outcomes()[3:])
        writer.finish("2026-01-01T00:00:00+00:00")
        assert writer.path.read_bytes() == whole


@pytest.mark.parametrize("harm", ["other identity", "lost part", "no journal", "foreign journal"])
def test_work_that_cannot_be_trusted_begins_anew(tmp_path, harm):
    with KeptWriter(tmp_path, IDENTITY, BASE_SIZE, 512) as writer:
        writer.add(outcomes()[:3])
    stem = (tmp_path / IDENTITY.file_name).with_suffix
    identity = IDENTITY
    if harm == "other identity":
        identity = KeptIdentity(IDENTITY.version, "sr-fake", "cd" * 32, 0.9, "as served")
    elif harm == "lost part":
        stem(".part").write_bytes(stem(".part").read_bytes()[:-1])
    elif harm == "no journal":
        stem(".journal").unlink()
    else:
        stem(".journal").write_bytes(b"something else")
    with KeptWriter(tmp_path, identity, BASE_SIZE, 512) as writer:
        assert writer.done == 0
        writer.add(outcomes())
        assert writer.finish("2026-01-01T00:00:00+00:00").kept == 3


def test_an_incomplete_file_is_never_finished(tmp_path):
    with KeptWriter(tmp_path, IDENTITY, BASE_SIZE, 512) as writer:
        writer.add(outcomes()[:5])
        with pytest.raises(ValueError, match="5 of 6"):
            writer.finish("2026-01-01T00:00:00+00:00")
    assert not (tmp_path / IDENTITY.file_name).exists()


def test_everything_that_decides_the_pixels_is_in_the_key():
    facts = {"version": "f" * 16, "model_sha256": "cd" * 32, "floor": 0.91, "compared": "x", "encoding": "y"}
    keys = {KeptIdentity(**{**IDENTITY.__dict__, name: value}).key for name, value in facts.items()}
    assert len(keys | {IDENTITY.key}) == 6
    assert KeptIdentity(**{**IDENTITY.__dict__, "model": "renamed"}).key == IDENTITY.key
