"""Synthesis of single tiles: joined they equal one pass over the slide; bad output is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sr.fakes import FakeUpscaler
from tests.sr.networks import write_model
from tests.versions import smooth_picture, stage_version
from wsi_ml.errors import DamagedError, ModelOutputError, OutsideError
from wsi_ml.geometry import Region, Size, halve
from wsi_ml.slides.pyramid import Pyramid
from wsi_ml.sr import available_upscalers, open_upscaler
from wsi_ml.sr.synthesis import (
    DecodedTiles,
    TileKey,
    check_output,
    fallback_provenance,
    plan_tile,
    provenance,
    synthesise,
)

SIZES = [(1, 1), (1, 700), (1025, 3), (255, 257), (511, 513), (512, 512), (1024, 1024), (1027, 1541), (2050, 513)]


def pyramid_of(folder: Path, base_size: Size) -> Pyramid:
    rng = np.random.default_rng(base_size.width)
    stored = smooth_picture(halve(base_size))
    noisy = np.clip(stored.astype(int) + rng.integers(-30, 30, stored.shape), 0, 255).astype(np.uint8)
    card = stage_version(folder, noisy, base_size)
    assert card.base_size == base_size
    return Pyramid(folder)


def key_of(pyramid: Pyramid, upscaler, t_col: int, t_row: int, extension: str = "png") -> TileKey:
    return TileKey(pyramid.card.version, upscaler.card.name, upscaler.card.sha256, t_col, t_row, extension)


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def largest_seam(folder: Path, base_size: Size, upscaler) -> int:
    """Largest difference in grey levels between joined PNG tiles and one pass over the whole slide."""
    pyramid = pyramid_of(folder, base_size)
    width, height = base_size
    whole = upscaler(pyramid.region(Region(0, 0, *pyramid.card.stored_size)))[:height, :width]
    joined = np.zeros_like(whole)
    decoded = DecodedTiles(1 << 25)
    for t_row in range(-(-height // 512)):
        for t_col in range(-(-width // 512)):
            tile = decode(synthesise(pyramid, upscaler, key_of(pyramid, upscaler, t_col, t_row), decoded))
            assert tile.shape == (min(512, height - 512 * t_row), min(512, width - 512 * t_col), 3)
            joined[512 * t_row : 512 * t_row + 512, 512 * t_col : 512 * t_col + 512] = tile
    return int(np.abs(joined.astype(int) - whole).max())


@pytest.mark.parametrize("base_size", SIZES)
@pytest.mark.parametrize("upscaler", [FakeUpscaler("plain"), open_upscaler("bicubic")], ids=["blur", "bicubic"])
def test_joined_tiles_equal_one_pass(tmp_path: Path, base_size: tuple[int, int], upscaler) -> None:
    # The blur is exact; OpenCV's bicubic may round differently where its vector loops end.
    assert largest_seam(tmp_path / "v", Size(*base_size), upscaler) <= (0 if isinstance(upscaler, FakeUpscaler) else 1)


@pytest.mark.parametrize("base_size", [(1, 3), (255, 513), (1027, 1541)])
def test_joined_tiles_of_the_shipped_network_equal_one_pass(tmp_path: Path, base_size: tuple[int, int]) -> None:
    if "sr-fast" not in [card.name for card in available_upscalers()]:
        pytest.skip("no weights of sr-fast are in this checkout")
    assert largest_seam(tmp_path / "v", Size(*base_size), open_upscaler("sr-fast", "cpu")) <= 1


@pytest.mark.parametrize("halo", [64, 128])
@pytest.mark.parametrize("base_size", [(255, 513), (1027, 1541)])
def test_joined_tiles_of_a_deep_network_with_a_wide_halo_equal_one_pass(
    tmp_path: Path, base_size: tuple[int, int], halo: int
) -> None:
    write_model(tmp_path, "deep", "sr-joint", {"channels": 8, "growth": 4, "blocks": 2}, halo=halo)
    assert largest_seam(tmp_path / "v", Size(*base_size), open_upscaler(tmp_path / "deep.json", "cpu")) <= 1


def test_a_halo_too_small_would_show(tmp_path: Path) -> None:
    """The test above can fail: with half the halo the joined tiles differ from one pass."""
    upscaler = FakeUpscaler("plain")
    pyramid = pyramid_of(tmp_path / "v", Size(1024, 512))
    whole = upscaler(pyramid.region(Region(0, 0, 512, 256)))
    object.__setattr__(upscaler.card, "halo", 1)
    left = decode(synthesise(pyramid, upscaler, key_of(pyramid, upscaler, 0, 0), DecodedTiles(0)))
    assert np.abs(left.astype(int) - whole[:, :512]).max() > 1


def test_plans_by_hand() -> None:
    inside = plan_tile(Size(4096, 4096), Size(2048, 2048), 512, 1, 2, halo=8)
    assert inside == (Region(248, 504, 272, 272), Region(16, 16, 512, 512))
    corner = plan_tile(Size(4096, 4096), Size(2048, 2048), 512, 0, 0, halo=8)
    assert corner == (Region(0, 0, 264, 264), Region(0, 0, 512, 512))
    last = plan_tile(Size(1027, 1541), Size(514, 771), 512, 2, 3, halo=8)
    assert last == (Region(504, 760, 10, 11), Region(16, 16, 3, 5))
    with pytest.raises(OutsideError):
        plan_tile(Size(1024, 1024), Size(512, 512), 512, 2, 0, halo=8)


@pytest.mark.parametrize(("extension", "start"), [("jpg", b"\xff\xd8"), ("png", b"\x89PNG"), ("webp", b"RIFF")])
def test_formats(tmp_path: Path, extension: str, start: bytes) -> None:
    pyramid = pyramid_of(tmp_path / "v", Size(700, 700))
    upscaler = FakeUpscaler("plain")
    data = synthesise(pyramid, upscaler, key_of(pyramid, upscaler, 1, 1, extension), DecodedTiles(0))
    assert data.startswith(start)
    assert decode(data).shape == (188, 188, 3)


def test_same_bytes_each_time_with_and_without_decoded_tiles(tmp_path: Path) -> None:
    pyramid = pyramid_of(tmp_path / "v", Size(2048, 2048))
    upscaler = FakeUpscaler("plain")
    key = key_of(pyramid, upscaler, 1, 1, "jpg")
    kept = DecodedTiles(1 << 25)
    assert len({synthesise(pyramid, upscaler, key, decoded) for decoded in (kept, kept, DecodedTiles(0))}) == 1


def test_a_damaged_stored_tile_is_named(tmp_path: Path) -> None:
    pyramid = pyramid_of(tmp_path / "v", Size(512, 512))
    path = tmp_path / "v" / "pyramid.tif"
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    upscaler = FakeUpscaler("plain")
    with pytest.raises(DamagedError):
        synthesise(Pyramid(tmp_path / "v"), upscaler, key_of(pyramid, upscaler, 0, 0), DecodedTiles(0))


@pytest.mark.parametrize("name", ["nan", "flat"])
def test_bad_output_is_refused(tmp_path: Path, name: str) -> None:
    pyramid = pyramid_of(tmp_path / "v", Size(512, 512))
    upscaler = FakeUpscaler(name)
    with pytest.raises(ModelOutputError):
        synthesise(pyramid, upscaler, key_of(pyramid, upscaler, 0, 0), DecodedTiles(0))


def test_check_output() -> None:
    rgb = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    check_output(rgb, rgb.repeat(2, 0).repeat(2, 1), 2)
    with pytest.raises(ModelOutputError, match="shape"):
        check_output(rgb, rgb, 2)
    with pytest.raises(ModelOutputError, match="NaN"):
        check_output(rgb, np.full((8, 8, 3), np.inf), 2)
    with pytest.raises(ModelOutputError, match="one colour"):
        check_output(rgb, np.full((8, 8, 3), 9, np.uint8), 2)
    one_spot = np.full((8, 8, 3), 9, np.uint8)
    one_spot[4, 4] = 10
    check_output(rgb, one_spot, 2)


def test_empty_glass_may_come_out_as_one_colour() -> None:
    glass = np.full((4, 4, 3), 243, np.uint8)
    glass[2, 2] = 240
    check_output(glass, np.full((8, 8, 3), 243, np.uint8), 2)


def test_words_of_the_source_header() -> None:
    assert provenance("sr-fast", "0123456789abcdef" * 4) == "sr; model=sr-fast; sha256=0123456789ab"
    assert provenance("bicubic", "0123456789abcdef" * 4) == "bicubic"
    expected = "bicubic; fallback-for=sr-fast; reason=model_bad_output"
    assert fallback_provenance("sr-fast", ModelOutputError.code) == expected


def test_every_part_of_a_key_is_in_its_text() -> None:
    key = TileKey("0" * 16, "sr-fast", "a" * 64, 3, 4, "jpg", 90)
    others = [
        TileKey("1" * 16, "sr-fast", "a" * 64, 3, 4, "jpg", 90),
        TileKey("0" * 16, "bicubic", "a" * 64, 3, 4, "jpg", 90),
        TileKey("0" * 16, "sr-fast", "b" * 64, 3, 4, "jpg", 90),
        TileKey("0" * 16, "sr-fast", "a" * 64, 4, 4, "jpg", 90),
        TileKey("0" * 16, "sr-fast", "a" * 64, 3, 3, "jpg", 90),
        TileKey("0" * 16, "sr-fast", "a" * 64, 3, 4, "png", 90),
        TileKey("0" * 16, "sr-fast", "a" * 64, 3, 4, "jpg", 80),
    ]
    assert len({each.text for each in [key, *others]}) == 8
