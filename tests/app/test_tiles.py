"""Deep Zoom over HTTP: every served tile has the size its descriptor implies, everything else is a clear refusal."""

import xml.etree.ElementTree as ElementTree
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.versions import add_slide
from wsi_ml.errors import DeadlineError, EngineUnavailableError, ModelUnavailableError, QueueFullError
from wsi_ml.geometry import DeepZoom, Size, halve
from wsi_ml.slides.kernel import halve_pixels
from wsi_ml.slides.library import Library

FOR_EVER = "private, max-age=31536000, immutable"


def pixels_of(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def declared_size(client, url):
    root = ElementTree.fromstring(client.get(url).data)
    space = "{http://schemas.microsoft.com/deepzoom/2008}"
    assert (root.tag, root.get("TileSize"), root.get("Overlap"), root.get("Format")) == (
        f"{space}Image",
        "512",
        "0",
        "jpg",
    )
    size = root.find(f"{space}Size")
    return Size(int(size.get("Width")), int(size.get("Height")))


@pytest.mark.parametrize(
    "base_size",
    [
        Size(1, 1),
        Size(2, 1),
        Size(1, 700),
        Size(510, 514),
        Size(255, 257),
        Size(511, 513),
        Size(1022, 1026),
        Size(1021, 1031),
        Size(1500, 97),
    ],
    ids=str,
)
def test_every_tile_of_every_source_has_the_size_the_descriptor_implies(client, library, base_size):
    slide_id, version, _ = add_slide(library, "odd", base_size)
    for source, plane in (("stored", halve(base_size)), ("bicubic", base_size), ("auto", base_size)):
        url = f"/dzi/{slide_id}/{version}/{source}"
        assert declared_size(client, f"{url}.dzi") == plane
        deep_zoom = DeepZoom(plane)
        for z_level in range(deep_zoom.top + 1):
            counts = deep_zoom.tile_counts(z_level)
            for t_col in range(counts.width):
                for t_row in range(counts.height):
                    answer = client.get(f"{url}_files/{z_level}/{t_col}_{t_row}.png")
                    region = deep_zoom.tile_region(z_level, t_col, t_row)
                    assert (answer.status_code, answer.mimetype) == (200, "image/png")
                    assert pixels_of(answer.data).shape == (region.height, region.width, 3)
            assert client.get(f"{url}_files/{z_level}/{counts.width}_0.jpg").json["code"] == "outside_slide"
            assert client.get(f"{url}_files/{z_level}/0_{counts.height}.jpg").json["code"] == "outside_slide"
        assert client.get(f"{url}_files/{deep_zoom.top + 1}/0_0.jpg").json["code"] == "outside_slide"


def test_stored_tiles_joined_are_the_stored_picture_at_every_level(client, slide):
    slide_id, version, stored = slide
    deep_zoom, wanted = DeepZoom(Size(stored.shape[1], stored.shape[0])), stored
    for z_level in range(deep_zoom.top, -1, -1):
        counts, z_size = deep_zoom.tile_counts(z_level), deep_zoom.level_size(z_level)
        joined = np.zeros((z_size.height, z_size.width, 3), np.uint8)
        for t_col in range(counts.width):
            for t_row in range(counts.height):
                region = deep_zoom.tile_region(z_level, t_col, t_row)
                tile = client.get(f"/dzi/{slide_id}/{version}/stored_files/{z_level}/{t_col}_{t_row}.png").data
                joined[region.y : region.y_end, region.x : region.x_end] = pixels_of(tile)
        assert np.abs(joined.astype(int) - wanted).mean() < 3
        wanted = halve_pixels(wanted)


def test_an_interior_tile_is_the_bytes_on_disk_and_a_cropped_one_keeps_its_pixels(client, library, slide):
    slide_id, version, _ = slide
    pyramid = library.pyramid(slide_id)
    interior = client.get(f"/dzi/{slide_id}/{version}/stored_files/11/1_0.jpg")
    assert interior.data == pyramid.tile_bytes(0, 1, 0)
    assert interior.headers["X-Tile-Source"] == "stored"
    edge = client.get(f"/dzi/{slide_id}/{version}/stored_files/11/2_1.jpg")
    assert np.abs(pixels_of(edge.data).astype(int) - pyramid.tile_pixels(0, 2, 1)).max() <= 3
    lossless = client.get(f"/dzi/{slide_id}/{version}/stored_files/11/2_1.png")
    assert np.array_equal(pixels_of(lossless.data), pyramid.tile_pixels(0, 2, 1))


@pytest.mark.parametrize(("extension", "form"), [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
def test_every_format_is_what_it_says(client, slide, extension, form, tmp_path):
    for source in ("stored", "bicubic"):
        answer = client.get(f"/dzi/{slide[0]}/{slide[1]}/{source}_files/11/0_0.{extension}")
        (tmp_path / "tile").write_bytes(answer.data)
        with Image.open(tmp_path / "tile") as picture:
            assert picture.format == form
        assert answer.mimetype == f"image/{'jpeg' if extension == 'jpg' else extension}"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_levels_below_the_top_of_a_synthesised_source_are_the_stored_bytes(client, slide):
    slide_id, version, _ = slide
    url = f"/dzi/{slide_id}/{version}"
    stored = client.get(f"{url}/stored_files/11/0_0.jpg")
    below = client.get(f"{url}/sr-fake_files/11/0_0.jpg")
    assert below.data == stored.data
    assert below.headers["X-Tile-Source"] == "stored"
    assert (
        client.get(f"{url}/sr-fake_files/12/0_0.jpg").headers["X-Tile-Source"]
        == f"sr; model=sr-fake; sha256={'ab' * 6}"
    )
    assert client.get(f"{url}/bicubic_files/12/0_0.jpg").headers["X-Tile-Source"] == "bicubic"
    assert (
        client.get(f"{url}/auto_files/12/0_0.jpg").headers["X-Tile-Source"] == f"sr; model=sr-fake; sha256={'ab' * 6}"
    )


def test_a_slide_outside_the_models_range_has_no_x40_level(client, library):
    slide_id, version, _ = add_slide(library, "coarse", Size(1000, 800), stored_mpp=1.0)
    assert [each["source"] for each in client.get(f"/api/slides/{slide_id}").json["sources"]] == [
        "stored",
        "auto",
    ]
    refused = client.get(f"/dzi/{slide_id}/{version}/sr-fake.dzi")
    assert (refused.status_code, refused.json["code"]) == (404, "source_unavailable")
    assert declared_size(client, f"/dzi/{slide_id}/{version}/auto.dzi") == Size(500, 400)


def test_addresses_that_name_their_pixels_are_kept_for_ever_and_others_are_asked_again(client, slide):
    url = f"/dzi/{slide[0]}/{slide[1]}"
    pinned = f"sr-fake@{'ab' * 6}"
    for source, cache in (
        ("stored", FOR_EVER),
        (pinned, FOR_EVER),
        ("sr-fake", "private, no-cache"),
        ("auto", "private, no-cache"),
    ):
        for path in (f"{source}.dzi", f"{source}_files/11/0_0.jpg"):
            answer = client.get(f"{url}/{path}")
            assert (answer.status_code, answer.headers["Cache-Control"]) == (200, cache)
            assert "Set-Cookie" not in answer.headers
    replaced = client.get(f"{url}/sr-fake@{'cd' * 6}_files/12/0_0.jpg")
    assert (replaced.status_code, replaced.json["code"]) == (410, "model_replaced")


def test_etags_are_strong_and_answer_conditional_requests_without_any_work(client, slide, state):
    url = f"/dzi/{slide[0]}/{slide[1]}/sr-fake_files/12/1_1.jpg"
    etag = client.get(url).headers["ETag"]
    assert etag.startswith('"') and slide[1] in etag and "ab" * 6 in etag
    made = state.synthesis.made
    for condition in (etag, f'"other", {etag}', "*"):
        unchanged = client.get(url, headers={"If-None-Match": condition})
        assert (unchanged.status_code, unchanged.data, unchanged.headers["ETag"]) == (304, b"", etag)
    assert state.synthesis.made == made
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_head_says_what_get_would_without_computing(client, slide, state):
    url = f"/dzi/{slide[0]}/{slide[1]}"
    stored = client.head(f"{url}/stored_files/11/0_0.jpg")
    assert (stored.status_code, stored.data) == (200, b"")
    assert int(stored.headers["Content-Length"]) == len(client.get(f"{url}/stored_files/11/0_0.jpg").data)
    synthesised = client.head(f"{url}/sr-fake_files/12/0_0.jpg")
    assert (synthesised.status_code, synthesised.headers["X-Tile-Source"]) == (
        200,
        f"sr; model=sr-fake; sha256={'ab' * 6}",
    )
    assert state.synthesis.made == 0


def test_an_old_version_answers_until_it_is_removed(client, library, slide):
    slide_id, first, _ = slide
    old_tile = client.get(f"/dzi/{slide_id}/{first}/stored_files/11/0_0.jpg").data
    _, second, _ = add_slide(library, "liver", Size(2311, 1533), seed=5, slide_id=slide_id)
    assert client.get(f"/api/slides/{slide_id}").json["version"] == second
    assert client.get(f"/dzi/{slide_id}/{first}/stored_files/11/0_0.jpg").data == old_tile
    assert client.get(f"/dzi/{slide_id}/{second}/stored_files/11/0_0.jpg").data != old_tile


def test_a_removed_slide_answers_410(client, library, slide, monkeypatch):
    monkeypatch.setattr("wsi_ml.slides.tiles.REFRESH_SECONDS", 0)
    url = f"/dzi/{slide[0]}/{slide[1]}/stored_files/11/0_0.jpg"
    assert client.get(url).status_code == 200
    Library(library.root).remove(slide[0])
    assert (client.get(url).status_code, client.get(url).json["code"]) == (410, "removed")
    assert client.get(f"/api/slides/{slide[0]}").status_code == 410


def test_one_damaged_tile_is_withheld_and_all_others_are_served(client, library, slide):
    slide_id, version, _ = slide
    pyramid = library.pyramid(slide_id)
    offset, length, _ = pyramid.tile_record(0, 1, 0)
    path = pyramid.folder / "pyramid.tif"
    data = bytearray(path.read_bytes())
    data[offset + length - 9] ^= 1
    path.write_bytes(data)
    url = f"/dzi/{slide_id}/{version}/stored_files/11"
    bad = client.get(f"{url}/1_0.jpg")
    assert (bad.status_code, bad.json["code"], bad.headers["Cache-Control"]) == (422, "tile_damaged", "no-store")
    assert [
        client.get(f"{url}/{t_col}_{t_row}.jpg").status_code
        for t_col, t_row in ((0, 0), (2, 0), (0, 1), (1, 1), (2, 1))
    ] == [200] * 5


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (QueueFullError("full", 7), "queue_full", "7"),
        (DeadlineError("late"), "deadline_exceeded", "2"),
        (EngineUnavailableError("gone"), "engine_unavailable", "2"),
        (ModelUnavailableError("no weights"), "model_unavailable", "2"),
    ],
)
def test_synthesis_that_cannot_be_had_is_503_with_a_time_to_come_back(client, slide, state, error, code, retry):
    state.synthesis.error = error
    answer = client.get(f"/dzi/{slide[0]}/{slide[1]}/sr-fake_files/12/0_0.jpg")
    assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, code, retry)
    assert (answer.mimetype, answer.headers["Cache-Control"]) == ("application/problem+json", "no-store")
    assert client.get(f"/dzi/{slide[0]}/{slide[1]}/stored_files/11/0_0.jpg").status_code == 200


def test_a_fallback_is_marked_and_never_cached(client, slide, state):
    state.synthesis.fallback = True
    answer = client.get(f"/dzi/{slide[0]}/{slide[1]}/sr-fake@{'ab' * 6}_files/12/0_0.jpg")
    assert answer.headers["X-Tile-Source"] == "bicubic; fallback-for=sr-fake; reason=model_bad_output"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


REFUSED = [
    "stored_files/11/-1_0.jpg", "stored_files/11/0_-1.jpg", "stored_files/-1/0_0.jpg", "stored_files/99/0_0.jpg",
    "stored_files/011/0_0.jpg", "stored_files/11/00_0.jpg", "stored_files/1e1/0_0.jpg", "stored_files/11/0_0.gif",
    "stored_files/11/0_0.jpeg", "stored_files/11/0_0", "stored_files/11/1.5_0.jpg", "stored_files/11/+1_0.jpg",
    "stored_files/11/٣_0.jpg", "stored_files/11/0_0.jpg/", "stored_files/11/99999999999999999999_0.jpg",
    "stored_files/11/0_0.jpg%00", "stored_files/../../../library.sqlite", "..%2f..%2flibrary.sqlite", "%2e%2e/x.dzi",
    "stored_files\\11\\0_0.jpg", "scan.dzi", "nosuch.dzi", "sr-fake@zz.dzi", "stored.xml", "",
    "stored_files/NaN/0_0.jpg",
]  # fmt: skip


@pytest.mark.parametrize("path", REFUSED)
def test_anything_outside_the_closed_set_is_a_problem_and_no_picture(client, slide, path):
    answer = client.get(f"/dzi/{slide[0]}/{slide[1]}/{path}")
    assert answer.status_code in (400, 404)
    assert answer.mimetype == "application/problem+json"
    assert answer.json["status"] == answer.status_code and answer.json["code"] in {
        "not_found",
        "outside_slide",
        "source_unavailable",
    }


def test_parameters_and_other_methods_are_refused(client, slide):
    url = f"/dzi/{slide[0]}/{slide[1]}/stored_files/11/0_0.jpg"
    assert client.get(f"{url}?quality=100").json["code"] == "bad_request"
    for method in ("post", "put", "delete", "patch"):
        answer = getattr(client, method)(url)
        assert (answer.status_code, answer.json["code"], answer.headers["Allow"]) == (
            405,
            "method_not_allowed",
            "GET, HEAD",
        )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=40),
    st.sampled_from(
        [
            "/dzi/",
            "/dzi/{id}/",
            "/dzi/{id}/{version}/",
            "/dzi/{id}/{version}/stored_files/",
            "/slides/",
            "/api/slides/",
            "/",
        ]
    ),
)
def test_no_address_whatever_makes_a_server_error(client, slide, rest, prefix):
    # The test client itself takes two slashes at the start for a host name; the server's own test sends them.
    url = prefix.format(id=slide[0], version=slide[1]) + quote(rest.lstrip("/\\"), safe="/:@+,;=%")
    assert client.get(url).status_code < 500


def test_unknown_slides_and_versions_are_told_apart_only_by_their_code(client, slide):
    assert client.get(f"/dzi/nosuchslide0/{slide[1]}/stored.dzi").json["code"] == "unknown_slide"
    assert client.get(f"/dzi/{slide[0]}/{'0' * 16}/stored.dzi").json["code"] == "unknown_version"
