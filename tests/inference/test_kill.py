"""Real processes killed with SIGKILL, and racing each other: nothing is lost, nothing is published twice."""

import functools
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import PROJECT_ROOT
from tests.inference.fakes import add_model, file_bytes, open_fake
from wsi_ml.inference import work
from wsi_ml.inference.predicting import PredictRequest, predict, prepare
from wsi_ml.inference.window_file import JOURNAL_FILE, RECORD_BYTES, WINDOWS_FILE
from wsi_ml.layers.store import LayerStore


def child(root, slide_id, seconds):
    command = [sys.executable, "-m", "tests.inference.child", str(root), slide_id, str(seconds)]
    return subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)


def request(slide_id):
    return PredictRequest(slide_id, "blur", parameters={"batch": 2})


def journal_of(root, slide_id):
    return root / work.WORK_FOLDER / prepare(root, request(slide_id)).key / JOURNAL_FILE


@pytest.fixture
def undisturbed(library, slide_id, tmp_path):
    """Features file of an uninterrupted run of the same library."""
    add_model(library.root)
    copy = tmp_path / "undisturbed"
    shutil.copytree(library.root, copy)
    return file_bytes(copy, predict(copy, request(slide_id), opener=open_fake).id)


def killed(root, slide_id, after):
    """Kill a prediction when it says that so many windows are finished; gives how many batches its journal holds."""
    process = child(root, slide_id, 0.03)
    with process, process.stdout as lines:
        for line in lines:
            if line.split()[0] == "windows" and int(line.split()[1]) >= after:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert LayerStore(root).layers(slide_id) == []
    return journal_of(root, slide_id).stat().st_size // RECORD_BYTES


def resumed(root, slide_id):
    """Finish it in this process; gives the features file and how many windows were computed."""
    predictors = []

    def opener(*arguments, **options):
        predictors.append(open_fake(*arguments, **options))
        return predictors[-1]

    layer = predict(root, request(slide_id), opener=opener)
    assert LayerStore(root).check() == []
    return file_bytes(root, layer.id), sum(predictors[0].calls), layer


@pytest.mark.parametrize("after", [2, 14])
def test_a_killed_prediction_goes_on_to_the_same_bytes(library, slide_id, undisturbed, after):
    finished = killed(library.root, slide_id, after)
    assert finished >= after // 2
    data, computed, layer = resumed(library.root, slide_id)
    assert data == undisturbed
    assert computed == layer.provenance["windows"] - 2 * finished
    assert sorted(path.name for path in (library.root / work.WORK_FOLDER).iterdir()) == []


def test_it_may_be_killed_again_and_again(library, slide_id, undisturbed):
    finished = [killed(library.root, slide_id, after) for after in (2, 8, 16)]
    assert finished == sorted(finished)
    assert resumed(library.root, slide_id)[0] == undisturbed


def test_what_the_kill_tore_and_a_disk_damaged_is_computed_again(library, slide_id, undisturbed):
    finished = killed(library.root, slide_id, 14)
    journal = journal_of(library.root, slide_id)
    os.truncate(journal, journal.stat().st_size - 5)
    with (journal.parent / WINDOWS_FILE).open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    data, computed, layer = resumed(library.root, slide_id)
    assert data == undisturbed
    assert computed == layer.provenance["windows"] - 2 * (finished - 2)


def test_two_processes_at_once_give_one_layer(library, slide_id, undisturbed):
    children = [child(library.root, slide_id, 0.01) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in children]
    assert [process.returncode for process in children] == [0, 0]
    layers = LayerStore(library.root).layers(slide_id)
    assert [layer.id for layer in layers] == [said[0][-1]] == [said[1][-1]]
    # One of them computed; the other waited and said nothing but the layer's id.
    assert sorted(words.count("windows") > 0 for words in said) == [False, True]
    assert file_bytes(library.root, layers[0].id) == undisturbed


def test_an_uninterrupted_run_has_the_same_bytes_however_fast(library, slide_id, undisturbed):
    layer = predict(library.root, request(slide_id), opener=functools.partial(open_fake, seconds=0.002))
    assert file_bytes(library.root, layer.id) == undisturbed
