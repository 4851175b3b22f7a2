"""Many runs by one plan: each in a process of its own, resumed where it stopped, measured once it is through.

    python -m train.study --plan train/configs/studies/semi_labels.toml                 # into runs/semi_labels
    python -m train.study --plan train/configs/studies/semi_labels.toml --only 's-*'    # some of them
    python -m train.study --plan train/configs/studies/semi_labels.toml --jobs 2        # two at a time

Any number of such processes may share a study: each takes the next run that nobody works on. What is done is skipped,
so that a study that was stopped goes on where it was. Tables are made by `python -m benchmarks.segmentation_tables`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from train import loop, run_facts, study_plan
from train.run_facts import RESULTS_FILE
from train.study_plan import PlannedRun, read_plan
from wsi_ml.errors import BadRequestError

FACTS_FILE, LOG_FILE, LOCK_FILE = "study.json", "study.log", "study.lock"
POLL_SECONDS = 0.2
"""Between two looks at the processes; runs last minutes."""
WHEREABOUTS = ("run", "device", "threads", "workers")
"""Keys that may differ from those a run was begun with: they change nothing of what it is."""


def read_facts(folder: Path) -> dict[str, Any]:
    """What a study has noted of a run: its keys and, once it is trained, seed, steps, minutes, hardware; {} if none."""
    try:
        return json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def is_trained(run: PlannedRun) -> bool:
    """The run's script has come to its end."""
    return bool(read_facts(run.folder).get("trained"))


def is_done(run: PlannedRun) -> bool:
    """Trained, and measured where the plan wants it."""
    return is_trained(run) and (not run.evaluate or (run.folder / RESULTS_FILE).is_file())


def trained_facts(folder: Path) -> dict[str, Any]:
    """Of a run's journal: seed, steps done and wanted, parameters, minutes over all stretches, hardware; None if not.

    `wanted` is None for a script that takes no steps.
    """
    lines = run_facts.journal_lines(folder)
    first: dict[str, Any] = next((line for line in reversed(lines) if line.get("event") == "start"), {})
    config = first.get("config", {})
    return {
        "seed": config.get("seed"), "steps": lines[-1]["step"] if lines else None, "wanted": config.get("steps"),
        "parameters": first.get("parameters"), **run_facts.journal_facts(folder),
    }  # fmt: skip


def take_lock(folder: Path) -> IO[str] | None:
    """The lock of a run's folder, held until the file is closed in this process and in those that it was handed to.

    None while another process has it. That of a process that is gone is free: the system has let go of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def lock_holder(folder: Path) -> str:
    """Number of the process that took a run's lock last, for messages."""
    try:
        return (folder / LOCK_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return "?"


@dataclass
class Work:
    """A run that is being trained or measured by a process of this study."""

    run: PlannedRun
    lock: IO[str]
    measuring: bool
    process: subprocess.Popen[bytes]


class Study:
    """The runs of a plan and how far this process has come with them."""

    def __init__(self, planned: Sequence[PlannedRun], jobs: int):
        self.planned, self.jobs = list(planned), jobs
        self.by_name = {run.name: run for run in planned}
        self.failed: dict[str, str] = {}
        """Why runs failed, by name."""
        self.working: list[Work] = []

    def go(self) -> bool:
        """Do what there is to do; true if no run failed. Stops on SIGTERM or SIGINT, when runs have saved."""
        with loop.stop_request() as asked:
            self._refuse_others()
            while not asked:
                while len(self.working) < self.jobs and self._begin_next():
                    pass
                if not self.working and not self._waits():
                    break
                self._look()
                time.sleep(POLL_SECONDS)
            for work in self.working:
                work.process.terminate()
            while self.working:
                self._look(stopping=True)
                time.sleep(POLL_SECONDS)
        self._say_rest(bool(asked))
        return not self.failed and not asked

    def _refuse_others(self) -> None:
        """Fail the runs whose folders hold one of other keys, so that no figure stands for what it was not made by."""
        for run in self.planned:
            facts = read_facts(run.folder)
            if any(facts.get(name, value) != value for name, value in asked_of(run).items()):
                where = run.folder.name
                self._fail(run, f"{where} was made with other keys; move that folder away or rename the run")

    # -- which run ---------------------------------------------------------------------------------------------------

    def _open(self) -> list[PlannedRun]:
        """Runs that are neither done nor failed nor in work here."""
        mine = {work.run.name for work in self.working}
        return [run for run in self.planned if run.name not in mine | self.failed.keys() and not is_done(run)]

    def _begin_next(self) -> bool:
        """Begin the first run that may begin; false if there is none."""
        for run in self._open():
            broken = next((name for name in run.needs if name in self.failed), None)
            if broken is not None:
                self._fail(run, f"it needs {broken}, which failed")
                return True
            if not all(is_trained(self.by_name[name]) for name in run.needs):
                continue
            lock = take_lock(run.folder)
            if lock is None:
                continue
            if is_done(run):  # another process finished it since we looked
                lock.close()
                continue
            return self._begin(run, lock)
        return False

    def _waits(self) -> bool:
        """True while another process works on a run that one of the open runs needs."""
        return any(
            not is_trained(self.by_name[name]) and not is_free(self.by_name[name].folder)
            for run in self._open()
            for name in run.needs
        )

    # -- one run -----------------------------------------------------------------------------------------------------

    def _begin(self, run: PlannedRun, lock: IO[str]) -> bool:
        facts = read_facts(run.folder)
        if not facts:
            self._note(run, asked_of(run))
        self._start(run, lock, measuring=bool(facts.get("trained")))
        return True

    def _start(self, run: PlannedRun, lock: IO[str], measuring: bool) -> None:
        say(f"{run.name}: {'measuring' if measuring else 'training'}")
        arguments = evaluate_arguments(run) if measuring else train_arguments(run)
        with (run.folder / LOG_FILE).open("ab") as log:
            # Handed the lock, the process keeps it should this one be killed: nobody trains the same run twice.
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock.fileno(),)
            )
        self.working.append(Work(run, lock, measuring, process))

    def _look(self, stopping: bool = False) -> None:
        """Take note of processes that have ended."""
        for work in [each for each in self.working if each.process.poll() is not None]:
            self.working.remove(work)
            run, code = work.run, work.process.returncode
            if code:
                if not stopping:
                    self._fail(run, last_line(run.folder / LOG_FILE) or f"exit code {code}")
            elif not work.measuring:
                self._trained(run, stopping)
                if is_trained(run) and run.evaluate and not stopping:
                    self._start(run, work.lock, measuring=True)
                    continue
            elif not (run.folder / RESULTS_FILE).is_file():
                self._fail(run, f"{run.evaluate} left no {RESULTS_FILE}")
            work.lock.close()

    def _trained(self, run: PlannedRun, stopping: bool) -> None:
        """Note that a run's script ended well, unless it ended early."""
        found = trained_facts(run.folder)
        if found["wanted"] is not None and found["steps"] < found["wanted"]:
            if not stopping:
                self._fail(run, f"it stopped after step {found['steps']} of {found['wanted']}")
            return
        # Figures of an earlier state say nothing of this one.
        (run.folder / RESULTS_FILE).unlink(missing_ok=True)
        self._note(run, read_facts(run.folder) | found | {"trained": True})

    def _note(self, run: PlannedRun, facts: dict[str, Any]) -> None:
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        loop.write_atomic(run.folder / FACTS_FILE, text.encode())

    def _fail(self, run: PlannedRun, why: str) -> None:
        self.failed[run.name] = why
        say(f"{run.name}: FAILED: {why}")

    def _say_rest(self, stopped: bool) -> None:
        done = sum(is_done(run) for run in self.planned)
        say(f"{done} of {len(self.planned)} runs are done{', stopped' if stopped else ''}.")
        for run in self._open():
            if not is_free(run.folder):
                say(f"{run.name}: left to process {lock_holder(run.folder)}")
        for name, why in self.failed.items():
            say(f"failed: {name}: {why}")


def asked_of(run: PlannedRun) -> dict[str, Any]:
    """What the plan says of how a run is made."""
    keys = {name: value for name, value in run.keys.items() if name not in WHEREABOUTS}
    return {"script": run.script, "keys": keys}


def is_free(folder: Path) -> bool:
    """Nobody works on the run of a folder."""
    lock = take_lock(folder)
    if lock is not None:
        lock.close()
    return lock is not None


def train_arguments(run: PlannedRun) -> list[str]:
    """Module and arguments that train a run, from its last state if there is one."""
    settings = [part for setting in run.settings() for part in ("--set", setting)]
    return [f"{study_plan.PACKAGE}.{run.script}", *settings, "--resume"]


def evaluate_arguments(run: PlannedRun) -> list[str]:
    """Module and arguments that measure a run."""
    folder = str(run.folder)
    return [f"{study_plan.PACKAGE}.{run.evaluate}", "--run", folder, "--output", folder, *run.evaluate_options]


def last_line(log: Path) -> str:
    """The last line of a process's output that says something: the sentence of a fault."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def say(words: str) -> None:
    """A line for the one who waits."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {words}\n")
    sys.stdout.flush()


def with_needs(planned: Sequence[PlannedRun], pattern: str) -> list[PlannedRun]:
    """The runs whose names match, and those that they need; raises BadRequestError if there are none."""
    by_name = {run.name: run for run in planned}
    wanted = {run.name for run in planned if fnmatch(run.name, pattern)}
    if not wanted:
        raise BadRequestError(f"No run of the plan is named like {pattern!r}.")
    more = set(wanted)
    while more:
        more = {name for run in more for name in by_name[run].needs} - wanted
        wanted |= more
    return [run for run in planned if run.name in wanted]


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when no run failed, 1 when one did or the study was stopped, 2 for a wrong plan."""
    parser = argparse.ArgumentParser(
        prog="python -m train.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, required=True, help="TOML file, see docs/training.md")
    parser.add_argument("--runs", type=Path, help="folder of the runs; default: runs/<name of the plan>")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="runs named so (* and ?), and what they need")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args(argv)
    runs = args.runs or Path("runs") / args.plan.stem
    try:
        planned = with_needs(read_plan(args.plan, runs), args.only)
    except BadRequestError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0 if Study(planned, max(1, args.jobs)).go() else 1


if __name__ == "__main__":
    sys.exit(main())
