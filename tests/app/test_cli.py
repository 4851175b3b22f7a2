"""The command line: exit codes, one sentence for each failure, one JSON object on standard output."""

import json
import sys

import pytest

import app
from app.cli import main
from tests.slides.make_slides import picture, write_svs
from wsi_ml.jobs.order import order
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.slides.library import Library

SQUARE = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": "5b1c9d1e-0000-4000-8000-000000000001",
            "geometry": {"type": "Polygon", "coordinates": [[[10, 10], [110, 10], [110, 60], [10, 60], [10, 10]]]},
            "properties": {"objectType": "annotation", "classification": {"name": "tumour", "color": [200, 0, 0]}},
        }
    ],
}


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command on one library; gives exit code, standard output (parsed with --json) and standard error."""

    def command(*arguments):
        code = main([*map(str, arguments), "--library", str(tmp_path / "library")])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if "--json" in arguments else captured.out, captured.err

    return command


@pytest.fixture
def scan(tmp_path):
    return write_svs(tmp_path / "liver.svs", picture(1400, 1000))


def test_a_slide_goes_in_is_shown_verified_and_removed(run, scan):
    code, facts, progress = run("ingest", scan, "--json")
    entry = facts["slides"][0]
    assert (code, entry["file"], entry["new"]) == (0, "liver.svs", True)
    assert (entry["card"]["stored_size"], entry["card"]["base_size"]) == ([700, 500], [1400, 1000])
    assert "µm/px" in progress
    code, facts, _ = run("slides", "--json")
    assert [(each["id"], each["name"]) for each in facts["slides"]] == [(entry["id"], "liver")]
    assert run("show", "liver", "--json")[1]["versions"] == [entry["version"]]
    code, facts, _ = run("verify", "--json")
    assert (code, facts["ok"], facts["versions"], facts["faults"]) == (0, True, 1, [])
    code, facts, _ = run("remove", entry["id"], "--json")
    assert (code, facts["removed"]) == (0, [entry["version"]])
    assert run("slides")[1].startswith("The library is empty")


def test_the_same_file_again_is_no_work(run, scan):
    first = run("ingest", scan, "--json")[1]["slides"][0]
    again = run("ingest", scan, "--json")[1]["slides"][0]
    assert (again["id"], again["version"], again["new"]) == (first["id"], first["version"], False)


def test_verify_finds_a_flipped_bit_and_says_so_by_its_exit_code(run, scan, tmp_path):
    entry = run("ingest", scan, "--json")[1]["slides"][0]
    path = Library(tmp_path / "library").version_folder(entry["version"]) / "pyramid.tif"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.chmod(0o600)
    path.write_bytes(data)
    code, facts, _ = run("verify", "--json")
    assert (code, facts["ok"]) == (5, False)
    assert any(entry["version"] in fault for fault in facts["faults"])


@pytest.mark.parametrize("named", [(), ("liver",)])
def test_verify_reads_the_features_files_of_layers(run, scan, tmp_path, named):
    run("ingest", scan)
    (tmp_path / "a.geojson").write_text(json.dumps(SQUARE))
    layer = run("import", "liver", tmp_path / "a.geojson", "--json")[1]["layer"]
    assert run("verify", *named, "--json")[1]["faults"] == []
    path = tmp_path / "library" / "layers" / f"{layer['id']}.features"
    data = bytearray(path.read_bytes())
    data[30] ^= 16
    path.write_bytes(data)
    code, facts, _ = run("verify", *named, "--json")
    assert code == 5 and len(facts["faults"]) == 1 and path.name in facts["faults"][0]


def test_one_bad_file_does_not_stop_the_others(run, scan, tmp_path):
    (tmp_path / "letter.svs").write_text("<html>no slide</html>")
    code, facts, errors = run("ingest", tmp_path / "letter.svs", scan, "--json")
    assert code == 3
    assert facts["slides"][0]["error"]["code"] == "not_ingestible"
    assert facts["slides"][1]["new"] is True
    assert errors.count("ocular: ") == 1


def test_a_layer_goes_in_and_comes_out_unchanged(run, scan, tmp_path):
    run("ingest", scan)
    file = tmp_path / "truth.geojson"
    file.write_text(json.dumps(SQUARE))
    code, facts, _ = run("import", "liver", file, "--json")
    assert code == 0
    assert facts["layer"]["classes"][0] | {"area_um2": 312.5} == {
        "name": "tumour", "color": "#c80000", "count": 1, "area_um2": 312.5,
    }  # fmt: skip
    assert (facts["report"]["read"], facts["report"]["kept"]) == (1, 1)
    layer = run("layers", "liver", "--json")[1]["layers"][0]
    assert (layer["name"], layer["kind"], layer["count"]) == ("truth", "truth", 1)
    target = tmp_path / "out.geojson"
    run("export", "liver", "--layer", layer["id"], "--format", "geojson", "--output", target)
    back = json.loads(target.read_text())["features"][0]
    assert back["geometry"] == SQUARE["features"][0]["geometry"]
    assert back["properties"]["classification"] == {"name": "tumour", "color": [200, 0, 0]}
    stored = json.loads(run("export", "liver", "--layer", layer["id"], "--format", "geojson", "--plane", "stored")[1])
    assert stored["features"][0]["geometry"]["coordinates"][0][1] == [55, 5]


def test_a_layer_goes_out_in_other_formats_with_what_is_lost(run, scan, tmp_path):
    run("ingest", scan)
    file = tmp_path / "truth.geojson"
    file.write_text(json.dumps(SQUARE))
    layer = run("import", "liver", file, "--kind", "prediction", "--json")[1]["layer"]
    assert layer["kind"] == "prediction"
    target = tmp_path / "out.xml"
    export = ("export", "liver", "--layer", layer["id"], "--format", "asap")
    code, facts, errors = run(*export, "--class", "tumour", "--min-score", "0.5", "--output", target, "--json")
    assert (code, errors, facts["file"], facts["bytes"]) == (0, "", "out.xml", target.stat().st_size)
    assert [each["what"] for each in facts["report"]["losses"]] == ["id (ASAP XML has no place for it)"]
    code, _, errors = run(*export, "--output", target)
    assert errors == "ASAP XML: 1 of 1 features kept.\nlost: id (ASAP XML has no place for it) (×1; features 0)\n"
    code, text, errors = run(*export)
    assert text.encode() == target.read_bytes() and errors.startswith("ASAP XML: 1 of 1")
    code, facts, _ = run("import", "liver", target, "--json")
    assert facts["layer"]["classes"][0]["name"] == "tumour" and facts["report"]["format"] == "ASAP XML"
    for wrong, words in ((("--class", "x"), "no class “x”"), (("--min-score", "2"), "from 0 to 1")):
        code, _, errors = run(*export, *wrong, "--output", tmp_path / "never")
        assert (code, words in errors, (tmp_path / "never").exists()) == (1, True, False)
    blank = tmp_path / "blank.json"
    blank.write_text("{}")
    code, _, errors = run("import", "liver", blank)
    assert code == 3 and "no known annotation format" in errors


def test_an_invalid_annotation_file_is_refused_and_leaves_no_layer(run, scan, tmp_path):
    run("ingest", scan)
    crossed = json.loads(json.dumps(SQUARE))
    crossed["features"][0]["geometry"]["coordinates"] = [[[10, 10], [110, 60], [110, 10], [10, 60], [10, 10]]]
    file = tmp_path / "truth.geojson"
    file.write_text(json.dumps(crossed))
    code, _, errors = run("import", "liver", file)
    assert code == 3
    assert "60" in errors and "feature" in errors.lower()
    assert run("layers", "liver", "--json")[1]["layers"] == []


def test_jobs_are_listed_shown_and_cancelled(run, scan, tmp_path):
    slide_id = run("ingest", scan, "--json")[1]["slides"][0]["id"]
    assert run("jobs")[1] == "There are no jobs.\n"
    assert not (tmp_path / "library" / "jobs.sqlite").exists()
    new = order(tmp_path / "library", {"kind": "predict", "slide": slide_id, "model": "tissue"})
    job, _ = JobQueue(tmp_path / "library").submit(new)
    assert run("jobs", "--json")[1] == {"jobs": [job.to_json()]}
    assert run("jobs", "--slide", "liver", "--state", "done", "--json")[1] == {"jobs": []}
    code, text, _ = run("jobs", job.id)
    assert (code, text) == (0, f"{job.id}  queued, place 1          tissue on {slide_id}, whole slide\n")
    assert run("jobs", job.id, "--cancel", "--json")[1]["state"] == "cancelled"
    code, _, errors = run("jobs", job.id, "--cancel")
    assert (code, errors) == (1, "ocular: This job has ended already (cancelled); it cannot be cancelled.\n")
    assert run("jobs", "nosuchjob000")[0] == 4
    assert run("jobs", "--cancel")[0] == 1
    assert run("verify", "--json")[1]["ok"] is True


@pytest.mark.parametrize(
    "command",
    [("show", "nosuchslide0"), ("verify", "nosuchslide0"), ("layers", "nosuchslide0"), ("remove", "nosuchslide0")],
)
def test_an_unknown_slide_is_exit_code_4(run, scan, command):
    run("ingest", scan)
    code, _, errors = run(*command)
    assert (code, errors) == (4, "ocular: There is no slide of this id in the library.\n")


def test_a_missing_library_is_one_sentence(run):
    code, _, errors = run("slides")
    assert (code, errors) == (1, "ocular: There is no library in “library”; `ocular ingest` makes one.\n")


def test_models_and_architectures_are_listed_with_their_numbers(capsys):
    assert main(["models", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert models["bicubic"]["parameters"] == 0
    assert (
        models["sr-fast"]["scale"] == 2 and models["sr-fast"]["mpp_range"][0] < 0.5 < models["sr-fast"]["mpp_range"][1]
    )
    assert main(["models", "--architectures", "--json"]) == 0
    built = {each["name"]: each for each in json.loads(capsys.readouterr().out)["architectures"]}
    assert built["sr-fast"]["parameters"] == models["sr-fast"]["parameters"]


@pytest.mark.parametrize(
    "command",
    ["demo", "serve", "ingest", "slides", "show", "remove", "verify", "layers", "import", "export", "jobs", "models"],
)
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_serving_without_the_web_server_says_what_to_install(run, scan, monkeypatch):
    run("ingest", scan)
    monkeypatch.delitem(sys.modules, "app.server", raising=False)
    monkeypatch.setattr(app, "server", None, raising=False)
    monkeypatch.delattr(app, "server")
    monkeypatch.setitem(sys.modules, "granian.constants", None)
    code, _, errors = run("serve")
    assert (code, errors.count("\n")) == (2, 1)
    assert "pip install 'ocular-wsi[serve]'" in errors
