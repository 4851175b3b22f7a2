"""Settings: later sources win, wrong ones stop the start with one line that names the key."""

import re

import pytest

from app.settings import Settings, SettingsError, load
from tests.conftest import PROJECT_ROOT


def test_flags_win_over_the_environment_and_the_environment_over_the_file(tmp_path):
    config = tmp_path / "ocular.toml"
    config.write_text("port = 1001\nworkers = 3\nsr_queue = 7\n")
    settings = load({"port": 1003, "host": None}, config, {"OCULAR_PORT": "1002", "OCULAR_WORKERS": "4"})
    assert (settings.port, settings.workers, settings.sr_queue, settings.host) == (1003, 4, 7, "127.0.0.1")


def test_the_file_can_be_named_by_the_environment(tmp_path):
    config = tmp_path / "ocular.toml"
    config.write_text("port = 1001\n")
    assert load({}, environment={"OCULAR_CONFIG": str(config)}).port == 1001


@pytest.mark.parametrize(
    ("flags", "environment", "line"),
    [
        ({"port": 70000}, {}, "port: Input should be less than or equal to 65535, not 70000"),
        ({}, {"OCULAR_WORKERS": "many"}, "workers: Input should be a valid integer"),
        ({}, {"OCULAR_WORKRS": "2"}, "workrs: there is no such setting"),
        ({}, {"OCULAR_HOST": "0.0.0.0"}, "host: 0.0.0.0 is not a loopback address and no login is configured"),
        ({}, {"OCULAR_HOST": "slides.example.org"}, "host: slides.example.org is not a loopback address"),
        ({}, {"OCULAR_LOGIN": "open"}, "login: Input should be 'none'"),
        ({}, {"OCULAR_SR_QUEUE": "0"}, "sr_queue: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(flags, environment, line):
    with pytest.raises(SettingsError) as caught:
        load(flags, environment=environment)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["port = ", "workrs = 2\n"])
def test_a_wrong_file_is_refused(tmp_path, text):
    config = tmp_path / "ocular.toml"
    config.write_text(text)
    with pytest.raises(SettingsError):
        load({}, config, {})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"^config: none\.toml cannot be read"):
        load({}, tmp_path / "none.toml", {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback_addresses_need_no_login(host):
    assert load({"host": host}, environment={}).host == host


def test_every_setting_has_a_sentence_and_stands_in_the_documentation():
    text = (PROJECT_ROOT / "docs" / "settings.md").read_text("utf-8")
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith((".", "503."))
        row = re.search(rf"^\| `{name}` \| (.*) \| (.*) \|$", text, re.MULTILINE)
        assert row and row.group(2) == field.description
