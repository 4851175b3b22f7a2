"""`.psi` slides: layout, round trip, ingestion, and files that lie."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.slides.make_slides import picture
from wsi_ml.errors import BadRequestError, IngestError, OutsideError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.codec import decode_jpeg
from wsi_ml.slides.header import vet
from wsi_ml.slides.ingest import ingest
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.library import Library
from wsi_ml.slides.psi import PsiFile, psi_layers
from wsi_ml.slides.psi_scan import PsiScan
from wsi_ml.slides.psi_writer import write_psi

SIZE = Size(1200, 794)


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return picture(*SIZE, seed=3)


def write(path, rgb, **options):
    size = Size(rgb.shape[1], rgb.shape[0])
    return write_psi(path, size, lambda r: rgb[r.y : r.y_end, r.x : r.x_end], **options)


@pytest.fixture(scope="module")
def slide(tmp_path_factory, rgb):
    return write(tmp_path_factory.mktemp("psi") / "slide.psi", rgb, magnification=40)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


# -- layout and round trip -----------------------------------------------------------------------------------------


def test_layout_is_that_of_psimage(slide):
    with h5py.File(slide) as file:
        attributes = dict(file.attrs)
        assert (attributes["width"], attributes["height"], attributes["magnification"]) == (1200, 794, 40.0)
        assert (attributes["psi_codec"], attributes["psi_tile_size"], attributes["psi_num_tiles"]) == ("WEBP", 512, 9)
        assert sorted(file["tiles"]) == ["1", "2", "4"] and sorted(file["previews"]) == ["L", "M", "S"]
        assert sorted(file["tiles/1"]) == ["1_0_0", "1_0_1", "1_0_2", "1_1_0", "1_1_1", "1_1_2"]
        assert file["tiles/1/1_0_2"].dtype == np.uint8 and file["tiles/1/1_0_2"].ndim == 1
    with PsiFile(slide) as file:
        # Sizes (height, width) as in psimage's own 1200 × 794 sample: edge tiles are cropped, halves rounded down.
        assert file.tile(1, 2, 0).shape == (512, 176, 3)
        assert file.tile(1, 0, 1).shape == (282, 512, 3)
        assert file.tile(4, 0, 0).shape == (198, 300, 3)
        assert file.facts.mpp == 0.25 and file.facts.quality == 90 and file.layers == [1, 2, 4]
        assert file.size(2) == (600, 397) and file.tile_counts(2) == (2, 1)
        assert decode_jpeg(file.preview_bytes("S")).shape == (169, 256, 3)


@pytest.mark.parametrize(("codec", "limit"), [("JPEG", 2.5), ("WEBP", 2.5)])
def test_round_trip(tmp_path, rgb, codec, limit):
    path = write(tmp_path / "a.psi", rgb, codec=codec, quality=95, magnification=20)
    with PsiFile(path) as file:
        assert file.facts.codec == codec and file.facts.mpp == 0.5
        assert difference(file.region(1, Region(0, 0, *SIZE)), rgb) < limit
        half = halve_pixels(rgb)
        assert difference(file.region(2, Region(0, 0, 600, 397)), half) < limit
        assert difference(file.region(4, Region(0, 0, 300, 198)), halve_pixels(half[:396])) < limit
        region = Region(490, 500, 300, 200)  # over four tiles
        assert difference(file.region(1, region), rgb[500:700, 490:790]) < limit
    assert [each.name for each in tmp_path.iterdir()] == ["a.psi"]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (513, 1), (1, 700), (1025, 511)])
def test_odd_sizes_round_trip(tmp_path, width, height):
    rgb = np.random.default_rng(1).integers(90, 110, (height, width, 3), dtype=np.uint8)
    with PsiFile(write(tmp_path / "a.psi", rgb, quality=100)) as file:
        assert file.layers == psi_layers(Size(width, height), 512)
        assert difference(file.region(1, Region(0, 0, width, height)), rgb) < 6
        assert file.facts.magnification is None and file.facts.mpp is None


def test_writing_refuses_and_leaves_nothing(tmp_path, rgb):
    with pytest.raises(BadRequestError, match=r"codec 'PNG'; give JPEG or WEBP"):
        write(tmp_path / "a.psi", rgb, codec="PNG")

    def fails(region):
        raise OSError("scratched")

    with pytest.raises(OSError, match="scratched"):
        write_psi(tmp_path / "a.psi", SIZE, fails)
    assert not list(tmp_path.iterdir())


def test_addresses_outside(slide):
    with PsiFile(slide) as file:
        with pytest.raises(OutsideError, match=r"no layer 8; it has the layers 1, 2, 4"):
            file.size(8)
        with pytest.raises(OutsideError, match=r"Tile 3_0 lies outside layer 1 of 1200 × 794"):
            file.tile(1, 3, 0)
        with pytest.raises(OutsideError, match="not inside layer 1"):
            file.region(1, Region(1100, 0, 101, 5))
        with pytest.raises(OutsideError, match="no preview 'X'"):
            file.preview_bytes("X")


# -- files that lie ------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(slide, tmp_path):
    path = tmp_path / "copy.psi"
    path.write_bytes(slide.read_bytes())
    return path


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"width": 2**31}, "claims 2147483648 × 794 px, more than"),
        ({"width": 0}, "0 × 794 px"),
        ({"height": "tall"}, "“height” is missing or no whole number"),
        ({"psi_tile_size": 100_000}, "tiles of 100000 px; 16 to 4096"),
        ({"psi_codec": "JXL"}, "coded as 'JXL'"),
        ({"width": 1800}, "layer 1 has 6 tiles, a picture of its size has 8"),
    ],
)
def test_claims_are_checked(copy, attributes, words):
    with h5py.File(copy, "r+") as file:
        file.attrs.update(attributes)
    with pytest.raises(IngestError, match=words):
        PsiFile(copy)


def replaced(path, name, make):
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file)


def test_tiles_are_checked(copy, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(500))
    with h5py.File(copy) as file:
        whole = file["tiles/1/1_0_0"][()]
    makers = {
        "1_0_1 of another size": lambda f: f.create_dataset("tiles/1/1_0_2", data=whole),
        "damaged": lambda f: f.create_dataset("tiles/1/1_0_2", data=whole[: len(whole) // 2]),
        "link": lambda f: f["tiles/1"].__setitem__("1_0_2", h5py.ExternalLink("other.psi", "/tiles/1/1_0_0")),
        "external": lambda f: f.create_dataset("tiles/1/1_0_2", (500,), np.uint8, external=[(str(secret), 0, 500)]),
        "long": lambda f: f.create_dataset("tiles/1/1_0_2", (1 << 34,), np.uint8, chunks=(1 << 20,), compression=1),
        "wide": lambda f: f.create_dataset("tiles/1/1_0_2", data=whole[:100].reshape(10, 10)),
    }
    words = {
        "link": "is missing", "external": "not a vector of bytes kept in the file", "long": "claims 17179869184 bytes",
        "wide": "not a vector of bytes",
    }  # fmt: skip
    for name, make in makers.items():
        replaced(copy, "tiles/1/1_0_2", make)
        with (
            PsiFile(copy) as file,
            pytest.raises(IngestError, match=words.get(name, "column 2, row 0 of layer 1 is damaged")),
        ):
            file.tile(1, 2, 0)


def test_missing_layers(copy):
    with h5py.File(copy, "r+") as file:
        del file["tiles/2"]
    with PsiFile(copy) as file:
        assert file.layers == [1]
    with h5py.File(copy, "r+") as file:
        del file["tiles/1"]
    with pytest.raises(IngestError, match="no tiles of layer 1, the full picture"):
        PsiFile(copy)


def test_what_is_no_psi(tmp_path, slide):
    (tmp_path / "a.psi").write_bytes(slide.read_bytes()[:3000])
    with pytest.raises(IngestError, match=r"“a.psi” cannot be read as a .psi slide: it is no HDF5 file, is damaged"):
        PsiFile(tmp_path / "a.psi")
    with h5py.File(tmp_path / "b.psi", "w") as file:
        file["x"] = 1
    with pytest.raises(IngestError, match="“width” is missing"):
        PsiFile(tmp_path / "b.psi")


# -- ingestion -----------------------------------------------------------------------------------------------------


def test_facts_and_edges_of_the_scan(slide, rgb):
    assert vet(slide) == "psi"
    with PsiScan(slide) as scan:
        facts = scan.facts()
        assert (facts.vendor, facts.l0_size, facts.mpp, facts.objective_power) == ("psi", SIZE, 0.25, 40.0)
        assert facts.level_downsamples == [1.0, 2.0, 4.0]
        beyond = scan.read(0, Region(1196, 790, 8, 8))
        assert np.array_equal(beyond[:, 4], beyond[:, 3]) and np.array_equal(beyond[4], beyond[3])


def test_ingestion(tmp_path, slide, rgb):
    result = ingest(slide, tmp_path / "library")
    assert result.card.stored_size == (600, 397) and result.card.base_size == SIZE
    assert (result.card.stored_mpp, result.card.source.vendor) == (0.5, "psi")
    pyramid = Library(tmp_path / "library").pyramid(result.slide_id)
    assert difference(pyramid.region(Region(0, 0, 600, 397)), halve_pixels(rgb)) < 2.5
    assert not ingest(slide, tmp_path / "library").created


def test_unknown_magnification_needs_mpp(tmp_path, rgb):
    path = write(tmp_path / "a.psi", rgb[:300, :300])
    with pytest.raises(IngestError, match=r"states no µm/px; give it with --mpp"):
        ingest(path, tmp_path / "library")
    assert ingest(path, tmp_path / "library", mpp=0.5).card.stored_size == (300, 300)


def test_damaged_tile_refuses_the_whole_file(tmp_path, copy):
    replaced(copy, "tiles/1/1_0_2", lambda f: f.create_dataset("tiles/1/1_0_2", data=np.zeros(40, np.uint8)))
    with pytest.raises(IngestError, match="tile column 2, row 0 of layer 1 is damaged"):
        ingest(copy, tmp_path / "library")
    assert not Library(tmp_path / "library").slides()
