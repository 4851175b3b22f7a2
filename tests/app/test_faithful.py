"""Kept tiles over HTTP and on the command line: who serves what, under which address, and what is told of it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from app import cli
from tests.slides.make_slides import write_generic
from tests.versions import add_slide, smooth_picture
from wsi_ml.geometry import Size
from wsi_ml.slides.codec import decode_jpeg
from wsi_ml.slides.kept import KEPT_FOLDER, KeptIdentity, encode_kept
from wsi_ml.slides.kept_writer import KeptWriter, Outcome

BASE_SIZE = Size(2311, 1533)
KEPT = {(1, 0), (4, 2)}
KEPT_JSON = {"tiles": 15, "kept": 2, "columns": 5, "rows": 3, "bits": "QAI="}
"""Bits 1 and 14 of two bytes, from the highest bit on."""
FOR_EVER = "private, max-age=31536000, immutable"


def publish(library, version, floor=0.9, model_sha256="ab" * 32):
    """Kept tiles of a drawn picture at the places KEPT; gives the file's key."""
    picture = smooth_picture(BASE_SIZE, 9)
    identity = KeptIdentity(version, "sr-fake", model_sha256, floor, "as served")
    with KeptWriter(library.version_folder(version) / KEPT_FOLDER, identity, BASE_SIZE, 512) as writer:
        for t_row in range(3):
            for t_col in range(5):
                data = encode_kept(picture[512 * t_row : 512 * t_row + 512, 512 * t_col : 512 * t_col + 512])
                kept = (t_col, t_row) in KEPT
                writer.add([Outcome(0.5 if kept else 0.95, len(data), data if kept else None)])
        writer.finish("2026-01-01T00:00:00+00:00")
    library.publish_kept(version, identity.key)
    return identity.key


@pytest.fixture
def kept(library, slide, monkeypatch):
    monkeypatch.setattr("wsi_ml.slides.tiles.REFRESH_SECONDS", 0)
    return publish(library, slide[1])


@pytest.fixture
def url(slide):
    return f"/dzi/{slide[0]}/{slide[1]}"


def test_scan_serves_the_kept_tile_as_it_lies_on_disk(client, library, slide, kept, url):
    tiles = library.kept_tiles(slide[1])
    for t_col, t_row in KEPT:
        answer = client.get(f"{url}/scan@{kept[:12]}_files/12/{t_col}_{t_row}.jpg")
        assert (answer.status_code, answer.headers["X-Tile-Source"]) == (200, "scan")
        assert (answer.headers["Cache-Control"], answer.mimetype) == (FOR_EVER, "image/jpeg")
        assert answer.data == tiles.tile_bytes(t_col, t_row)
    assert decode_jpeg(answer.data).shape == (1533 - 1024, 2311 - 2048, 3), "an edge tile is cut at the slide's edge"
    lossless = client.get(f"{url}/scan_files/12/1_0.png")
    assert lossless.headers["Cache-Control"] == "private, no-cache"
    pixels = cv2.imdecode(np.frombuffer(lossless.data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(pixels, tiles.tile_pixels(1, 0))


def test_a_tile_that_is_not_kept_has_its_own_code(client, kept, url, state):
    answer = client.get(f"{url}/scan_files/12/0_0.jpg")
    assert (answer.status_code, answer.json["code"], answer.mimetype) == (
        404,
        "tile_not_kept",
        "application/problem+json",
    )
    assert "reaches the floor of 0.9" in answer.json["detail"]
    assert client.get(f"{url}/scan_files/12/5_0.jpg").json["code"] == "outside_slide"
    assert client.get(f"{url}/scan_files/13/0_0.jpg").json["code"] == "outside_slide"
    assert state.synthesis.made == 0


def test_auto_serves_kept_tiles_and_synthesises_the_others(client, library, slide, kept, url, state):
    scanned = client.get(f"{url}/auto_files/12/1_0.jpg")
    assert scanned.headers["X-Tile-Source"] == "scan"
    assert scanned.data == library.kept_tiles(slide[1]).tile_bytes(1, 0)
    assert state.synthesis.made == 0
    made = client.get(f"{url}/auto_files/12/0_0.jpg")
    assert made.headers["X-Tile-Source"] == f"sr; model=sr-fake; sha256={'ab' * 6}"
    assert made.data == client.get(f"{url}/sr-fake_files/12/0_0.jpg").data
    assert client.get(f"{url}/sr-fake_files/12/1_0.jpg").headers["X-Tile-Source"].startswith("sr;")


def test_levels_below_the_top_are_the_stored_bytes(client, kept, url):
    stored = client.get(f"{url}/stored_files/11/0_0.jpg")
    for source in ("scan", "auto"):
        below = client.get(f"{url}/{source}_files/11/0_0.jpg")
        assert (below.data, below.headers["X-Tile-Source"]) == (stored.data, "stored")
        assert b'Width="2311"' in client.get(f"{url}/{source}.dzi").data


def test_addresses_are_pinned_to_the_kept_tiles_and_replaced_ones_are_gone(client, library, slide, kept, url):
    sources = {each["source"]: each for each in client.get(f"/api/slides/{slide[0]}").json["sources"]}
    assert list(sources) == ["stored", "bicubic", "sr-fake", "scan", "auto"]
    assert sources["scan"]["dzi"] == f"{url}/scan@{kept[:12]}.dzi"
    assert (sources["scan"]["kind"], sources["scan"]["label"]) == ("scan", "Scan ×40, where it was kept")
    assert (sources["scan"]["synthesised"], sources["scan"]["kept"]) == (False, KEPT_JSON)
    assert sources["auto"]["kept"] == KEPT_JSON and "kept" not in sources["sr-fake"]
    auto = sources["auto"]["dzi"].removesuffix(".dzi")
    for path in (f"{auto}_files/12/1_0.jpg", f"{auto}_files/12/0_0.jpg", f"{auto}.dzi"):
        assert client.get(path).headers["Cache-Control"] == FOR_EVER
    etag = client.get(f"{auto}_files/12/1_0.jpg").headers["ETag"]
    assert auto.split("@")[1] in etag
    assert client.get(f"{auto}_files/12/1_0.jpg", headers={"If-None-Match": etag}).status_code == 304
    other = publish(library, slide[1], floor=0.8)
    for gone in (f"{auto}_files/12/1_0.jpg", f"{url}/scan@{kept[:12]}_files/12/1_0.jpg"):
        answer = client.get(gone)
        assert (answer.status_code, answer.json["code"]) == (410, "model_replaced")
    assert client.get(f"{url}/scan@{other[:12]}_files/12/1_0.jpg").status_code == 200
    assert client.get(f"{url}/auto_files/12/1_0.jpg").headers["ETag"] != etag


def test_kept_tiles_show_without_a_restart(client, library, slide, url, monkeypatch):
    monkeypatch.setattr("wsi_ml.slides.tiles.REFRESH_SECONDS", 0)
    assert client.get(f"{url}/scan.dzi").json["code"] == "source_unavailable"
    assert client.get(f"/api/slides/{slide[0]}").json["faithful"] is None
    publish(library, slide[1])
    assert client.get(f"{url}/scan.dzi").status_code == 200


def test_the_card_tells_the_facts(client, slide, kept):
    facts = client.get(f"/api/slides/{slide[0]}").json["faithful"]
    assert (facts["floor"], facts["model"], facts["tiles"], facts["kept"]) == (0.9, "sr-fake", 15, 2)
    assert facts["kept_share"] == pytest.approx(2 / 15)
    assert facts["bytes_saved"] == facts["bytes_all"] - facts["bytes_kept"] > 0
    assert sum(facts["histogram"]) == 15 and facts["quantiles"][0] == [0.0, 0.5]


def test_a_damaged_kept_tile_is_withheld(client, library, slide, kept, url):
    path = library.kept_tiles(slide[1]).path
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    for source in ("scan", "auto"):
        answer = client.get(f"{url}/{source}_files/12/1_0.jpg")
        assert (answer.status_code, answer.json["code"]) == (422, "tile_damaged")
    assert client.get(f"{url}/scan_files/12/4_2.jpg").status_code == 200


def test_a_damaged_file_costs_the_scan_and_no_other_pixel(client, library, slide, kept, url):
    path = library.kept_tiles(slide[1]).path
    path.write_bytes(path.read_bytes()[:-1])
    assert client.get(f"{url}/scan.dzi").json["code"] == "source_unavailable"
    assert client.get(f"{url}/stored_files/11/0_0.jpg").status_code == 200
    assert client.get(f"{url}/auto_files/12/1_0.jpg").headers["X-Tile-Source"].startswith("sr;")


def test_a_slide_of_another_size_keeps_its_own(client, library, slide, kept):
    other, version, _ = add_slide(library, "other", Size(700, 500), seed=3)
    assert client.get(f"/dzi/{other}/{version}/scan.dzi").json["code"] == "source_unavailable"


# -- command line --------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    """(exit code, standard output, standard error) of `ocular …`."""
    code = cli.main([str(each) for each in arguments])
    return (code, *capsys.readouterr())


@pytest.fixture
def scan(tmp_path):
    rgb = np.full((600, 1100, 3), 180, np.uint8)
    rgb[:, 512:] = np.random.default_rng(1).integers(0, 255, (600, 588, 3), np.uint8)
    return write_generic(tmp_path / "half.tif", rgb, mpp=0.25)


def test_ingest_with_a_floor_compares_and_show_tells(scan, library, capsys):
    code, out, err = run(capsys, "ingest", scan, "--floor", "0.9", "--library", library.root, "--json")
    facts = json.loads(out)["slides"][0]
    assert code == 0 and "comparing 6 tiles at ×40 made by sr-fast with the scan, floor 0.9" in err
    assert (facts["new"], facts["faithful"]["new"], facts["faithful"]["kept"]) == (True, True, 4)
    code, out, _ = run(capsys, "ingest", scan, "--floor", "0.9", "--library", library.root)
    assert "already there, no work done" in out and "already compared with this floor and model" in out
    code, out, _ = run(capsys, "show", "half", "--library", library.root)
    assert "floor   SSIM 0.9: 4 of 6 ×40 tiles (66.7%) kept as scanned" in out and "median" in out
    code, out, _ = run(capsys, "show", "half", "--library", library.root, "--json")
    assert json.loads(out)["faithful"]["tiles"] == 6
    assert run(capsys, "verify", "--library", library.root)[0] == 0
    path = library.kept_tiles(facts["version"]).path
    path.write_bytes(path.read_bytes()[:-1])
    assert run(capsys, "verify", "--library", library.root)[0] == 5
    assert "are damaged; run `ocular verify`" in run(capsys, "show", "half", "--library", library.root)[1]
    assert run(capsys, "remove", "half", "--library", library.root)[0] == 0
    assert not path.exists()


def test_a_slide_that_cannot_be_compared_is_ingested_all_the_same(tmp_path, library, capsys):
    path = write_generic(tmp_path / "coarse.tif", smooth_picture(Size(600, 500)), mpp=0.5)
    code, out, err = run(capsys, "ingest", path, "--floor", "0.9", "--library", library.root, "--json")
    assert (code, len(library.slides())) == (3, 1)
    assert "it has no ×40 tiles to compare or keep" in err
    facts = json.loads(out)["slides"][0]
    assert facts["new"] and facts["error"]["code"] == "not_ingestible" and "faithful" not in facts


def test_a_floor_that_is_none_is_refused_before_any_work(scan, library, capsys):
    code, _, err = run(capsys, "ingest", scan, "--floor", "1.5", "--library", library.root)
    assert (code, library.slides()) == (3, []) and "--floor 1.5 is no SSIM" in err
