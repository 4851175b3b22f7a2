"""Many runs by one plan: faults of the plan, order, skipping, resuming, sharing, failures."""

import json
import os
import subprocess
import sys

import pytest

from train import study, study_plan
from wsi_ml.errors import BadRequestError

HEAD = 'script = "study_toy"\nevaluate = "study_toy_measure"\n[keys]\nsteps = 2\n'


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(study_plan, "PACKAGE", "tests.train")
    monkeypatch.setattr(study, "POLL_SECONDS", 0.02)


@pytest.fixture
def plan(tmp_path):
    def write(text):
        (tmp_path / "plan.toml").write_text(text)
        return tmp_path / "plan.toml"

    return write


def go(file, tmp_path, *more):
    return study.main(["--plan", str(file), "--runs", str(tmp_path / "runs"), *more])


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "journal.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[run", "cannot be read"),
        ("script = 'study_toy'", r"holds no \[\[run\]\]"),
        ("speed = 3\n[[run]]\nname = 'a'", "has 'speed'; it may have config, evaluate"),
        ("[[run]]\nname = 'a'\nscript = 'study_toy'\nneed = 'b'", "Run 'a' has 'need'"),
        ("[[run]]\nname = 'a/b'\nscript = 'study_toy'", "letters, digits, - and _, not 'a/b'"),
        ("[[run]]\nname = 'a'", "Run 'a' names no script"),
        ("[[run]]\nname = 'a'\nscript = 'nothing'", "there is no tests.train/nothing.py"),
        ("[[run]]\nname = 'a'\nscript = 'study_toy_measure'", "which is no training script"),
        (HEAD + "[[run]]\nname = 'a'\nkeys = {rate = 1}", "Run 'a': Unknown key 'rate'"),
        (HEAD + "[[run]]\nname = 'a'\nkeys = {steps = 'x'}", "Run 'a': Wrong value"),
        (HEAD + "[[run]]\nname = 'a'\nkeys = {run = 'x'}", "the key run, which the study sets itself"),
        (HEAD + "[[run]]\nname = 'a'\nseeds = 3", "The seeds of run 'a' are a list"),
        (HEAD + "[[run]]\nname = 'a'\n[[run]]\nname = 'a'", "Two runs of the plan are named 'a'"),
        (HEAD + "[[run]]\nname = 'a'\nneeds = 'b'", "Run 'a' needs 'b', which the plan does not hold"),
        (HEAD + "[[run]]\nname = 'a'\nneeds = 'b'\n[[run]]\nname = 'b'\nneeds = ['a']", "needs runs that need it"),
    ],
)
def test_a_wrong_plan_is_named_before_anything_is_computed(plan, tmp_path, capsys, text, words):
    with pytest.raises(BadRequestError, match=words):
        study_plan.read_plan(plan(text), tmp_path / "runs")
    assert go(plan(text), tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_keys_of_plan_run_and_seed_are_joined(plan, tmp_path):
    text = HEAD + (
        "classes = ['x', 'y']\n[[run]]\nname = 'b'\nneeds = 'a-{seed}'\nseeds = [1, 2]\nevaluate = ''\n"
        "keys = {start = '{runs}/a-{seed}', broken = false, steps = 5}\n[[run]]\nname = 'a'\nseeds = [1, 2]\n"
    )
    runs = tmp_path / "r"
    planned = study_plan.read_plan(plan(text), runs)
    assert [run.name for run in planned] == ["a-1", "b-1", "a-2", "b-2"]
    assert planned[1].keys == {
        "steps": "5", "classes": "x,y", "start": f"{runs}/a-1", "broken": "false", "seed": "1", "run": f"{runs}/b-1",
    }  # fmt: skip
    assert planned[1].needs == ("a-1",) and planned[1].evaluate == ""
    assert planned[0].keys["steps"] == "2" and planned[0].evaluate == "study_toy_measure"
    assert [run.name for run in study.with_needs(planned, "b-2")] == ["a-2", "b-2"]
    with pytest.raises(BadRequestError, match="No run of the plan is named like 'c"):
        study.with_needs(planned, "c*")


def test_a_file_s_keys_are_those_of_the_run_unless_the_plan_says_otherwise(plan, tmp_path):
    (tmp_path / "keys.toml").write_text("run = 'elsewhere'\nsteps = 9\nseed = 4\nclasses = ['x']")
    head = f"script = 'study_toy'\nconfig = '{tmp_path}/keys.toml'\nkeys = {{steps = 7}}\n[[run]]\nname = 'a'\n"
    (run,) = study_plan.read_plan(plan(head), tmp_path)
    assert run.keys == {"run": f"{tmp_path}/a", "steps": "7", "seed": "4", "classes": "x"} and run.evaluate == ""
    with pytest.raises(BadRequestError, match="The config of run 'a' cannot be read"):
        study_plan.read_plan(plan(head + "config = 'nothing.toml'"), tmp_path)


def test_runs_are_trained_in_order_measured_once_and_then_skipped(plan, tmp_path, capsys):
    file = plan(
        HEAD + "[[run]]\nname = 'late'\nneeds = 'early'\nkeys = {start = '{runs}/early'}\n[[run]]\nname = 'early'"
    )
    assert go(file, tmp_path) == 0
    told = capsys.readouterr().out
    assert told.index("early: training") < told.index("early: measuring") < told.index("late: training")
    assert "2 of 2 runs are done." in told
    facts = json.loads((tmp_path / "runs" / "late" / "study.json").read_text())
    assert facts == {
        "script": "study_toy", "keys": {"steps": "2", "start": f"{tmp_path}/runs/early"}, "seed": 0,
        "steps": 2, "wanted": 2, "minutes": 2.0, "hardware": "abacus", "parameters": 7, "trained": True,
    }  # fmt: skip
    assert go(file, tmp_path, "--jobs", "2") == 0
    assert "training" not in capsys.readouterr().out
    assert (tmp_path / "runs" / "early" / "measured.txt").read_text() == "once\n"


def test_a_stretch_that_ended_early_is_named_and_taken_up_again(plan, tmp_path, capsys):
    file = plan(HEAD + "[[run]]\nname = 'a'\nkeys = {steps = 5, stop_after = 2}")
    assert go(file, tmp_path) == 1
    assert "a: FAILED: it stopped after step 2 of 5" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "a" / "results.json").exists()
    assert go(file, tmp_path) == 0
    assert steps_of(tmp_path / "runs" / "a") == [0, 1, 2, 2, 3, 4, 5]
    # Two minutes, then three; not the time between.
    assert study.read_facts(tmp_path / "runs" / "a")["minutes"] == 5.0


def test_what_was_trained_but_not_measured_is_only_measured(plan, tmp_path, capsys):
    text = HEAD + "[[run]]\nname = 'a'\n"
    assert go(plan(text + "evaluate_options = ['--fault']"), tmp_path) == 1
    assert "a: FAILED: The data is not there." in capsys.readouterr().out
    assert go(plan(text), tmp_path) == 0
    assert "training" not in capsys.readouterr().out and steps_of(tmp_path / "runs" / "a") == [0, 1, 2]


def test_a_failed_run_is_named_and_the_others_go_on(plan, tmp_path, capsys):
    text = HEAD + "[[run]]\nname = 'bad'\nkeys = {broken = true}\n[[run]]\nname = 'after'\nneeds = 'bad'\n"
    assert go(plan(text + "[[run]]\nname = 'good'"), tmp_path) == 1
    told = capsys.readouterr().out
    assert "failed: bad: The loss is nan in step 1." in told and "failed: after: it needs bad, which failed" in told
    assert "1 of 3 runs are done." in told and study.is_done(
        study_plan.read_plan(plan(text + "[[run]]\nname = 'good'"), tmp_path / "runs")[2]
    )


def test_a_folder_made_with_other_keys_is_not_touched(plan, tmp_path, capsys):
    assert go(plan(HEAD + "[[run]]\nname = 'a'"), tmp_path) == 0
    assert go(plan(HEAD + "[[run]]\nname = 'a'\nkeys = {steps = 9}"), tmp_path) == 1
    assert "a was made with other keys; move that folder away" in capsys.readouterr().out
    assert steps_of(tmp_path / "runs" / "a") == [0, 1, 2]


def test_a_run_of_a_living_process_is_left_to_it_and_that_of_a_dead_one_taken_over(plan, tmp_path, capsys):
    file = plan(HEAD + "[[run]]\nname = 'a'\n[[run]]\nname = 'b'")
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    program = (
        "import fcntl, os, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "lock.write(f'{os.getpid()}\\n'); lock.flush(); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder / study.LOCK_FILE)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        assert go(file, tmp_path) == 0
        told = capsys.readouterr().out
        assert "1 of 2 runs are done." in told and f"a: left to process {holder.pid}" in told
    finally:
        holder.kill()
        holder.communicate()
    assert (folder / study.LOCK_FILE).read_text() == f"{holder.pid}\n"
    assert go(file, tmp_path) == 0
    assert "2 of 2 runs are done." in capsys.readouterr().out
    assert (folder / study.LOCK_FILE).read_text() == f"{os.getpid()}\n"
