"""Cards, thumbnails, errors, headers and the interface's description."""

import re

import pytest
from structlog.testing import capture_logs

from tests.versions import add_slide
from wsi_ml.geometry import Size


def test_a_card_states_sizes_sources_and_addresses_that_answer(client, slide):
    card = client.get(f"/api/slides/{slide[0]}").json
    assert (card["id"], card["name"], card["version"], card["state"]) == (slide[0], "liver", slide[1], "ready")
    assert card["stored"] == {"width": 1156, "height": 767, "mpp": 0.5}
    assert card["base"] == {"width": 2311, "height": 1533, "mpp": 0.25}
    assert card["levels"] == [[1156, 767], [578, 384], [289, 192]]
    assert (card["tile_side"], card["objective_power"], card["layers"]) == (512, 20, [])
    assert [(each["source"], each["kind"], each["synthesised"], each["label"]) for each in card["sources"]] == [
        ("stored", "stored", False, "Stored ×20"),
        ("bicubic", "bicubic", True, "Bicubic ×40"),
        ("sr-fake", "sr", True, "Super-resolution ×40 (sr-fake)"),
        ("auto", "auto", True, "Best available ×40"),
    ]
    assert card["sources"][2]["model"] == {"name": "sr-fake", "sha256": "ab" * 32}
    for source in card["sources"]:
        assert client.get(source["dzi"]).status_code == 200
        assert "immutable" in client.get(source["dzi"]).headers["Cache-Control"]
    thumbnail = client.get(card["thumbnail"])
    assert (thumbnail.status_code, thumbnail.mimetype) == (200, "image/jpeg")


def test_the_list_holds_every_slide_by_name(client, library):
    for name in ("spleen", "liver", "kidney"):
        add_slide(library, name, Size(300, 200), seed=len(name))
    assert [card["name"] for card in client.get("/api/slides").json["slides"]] == ["kidney", "liver", "spleen"]


def test_a_coarse_slide_claims_no_objective_power(client, library):
    slide_id, _, _ = add_slide(library, "coarse", Size(1000, 800), stored_mpp=1.0)
    card = client.get(f"/api/slides/{slide_id}").json
    assert card["objective_power"] is None
    assert [each["label"] for each in card["sources"]] == ["Stored ×10", "Best available ×10"]


def test_an_older_version_has_its_own_card(client, library, slide):
    _, second, _ = add_slide(library, "liver", Size(2311, 1533), seed=3, slide_id=slide[0])
    assert client.get(f"/api/slides/{slide[0]}?version={slide[1]}").json["version"] == slide[1]
    assert client.get(f"/api/slides/{slide[0]}").json["version"] == second
    assert client.get(f"/api/slides/{slide[0]}?versoin={second}").json["code"] == "bad_request"


def test_label_and_macro_have_no_address(client, library, slide):
    private = library.folder(slide[0], slide[1]) / "private"
    private.mkdir()
    (private / "label.png").write_bytes(b"patient name")
    for path in ("private/label.png", "label.png", "label.jpg", "macro.png", "private/"):
        answer = client.get(f"/api/slides/{slide[0]}/{slide[1]}/{path}")
        assert answer.status_code == 404 and b"patient" not in answer.data


@pytest.mark.parametrize(
    "path", ["/", "/api/slides", "/nowhere", "/static/js/api.js", "/healthz", "/dzi/x", "/metrics"]
)
def test_every_answer_carries_the_security_headers(client, path):
    with client.get(path) as answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert (
        policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy and "http" not in policy
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Set-Cookie" not in headers


def test_pages_hold_no_inline_script_or_style(client, slide):
    for path in ("/", f"/slides/{slide[0]}"):
        page = client.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", page)
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=", page)
        assert not re.search(r"https?://", page)


def test_an_unforeseen_error_is_a_problem_with_an_incident_number(app, client, monkeypatch):
    def broken(self):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("wsi_ml.slides.library.Library.slides", broken)
    with capture_logs() as lines:
        answer = client.get("/api/slides")
    assert (answer.status_code, answer.mimetype, answer.json["code"]) == (
        500,
        "application/problem+json",
        "internal_error",
    )
    number = re.search(r"incident ([0-9a-f]{12})", answer.json["detail"]).group(1)
    assert "secret" not in answer.text
    assert [line["incident"] for line in lines if line["event"] == "unhandled error"] == [number]


def test_the_description_names_every_route_and_no_other(app, client):
    described = set(client.get("/api/openapi.json").json["paths"])
    routes = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}
    routes = {route for route in routes if not route.startswith(("/static/", "/dzi/"))}
    assert routes == {path for path in described if not path.startswith("/dzi/")}


def test_the_description_names_every_method_and_no_other(app, client):
    methods: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith(("/static/", "/dzi/")):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            methods.setdefault(path, set()).update(each.lower() for each in rule.methods - {"HEAD", "OPTIONS"})
    described = client.get("/api/openapi.json").json["paths"]
    assert methods == {path: set(value) for path, value in described.items() if not path.startswith("/dzi/")}


def test_readiness_tells_viewing_and_synthesis_apart(client):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    parts = {"library": "ok", "disk": "ok", "jobs": {"queued": 0, "running": 0}, "synthesis": "engine_unavailable"}
    assert answer.json == {"ready": True, "parts": parts}


def test_two_apps_in_one_process_share_nothing(app, library, tmp_path):
    from app import create_app
    from app.settings import Settings
    from wsi_ml.slides.library import Library

    add_slide(library, "liver", Size(300, 200))
    other = create_app(Settings(library=Library.create(tmp_path / "other").root))
    assert len(app.test_client().get("/api/slides").json["slides"]) == 1
    assert other.test_client().get("/api/slides").json["slides"] == []
