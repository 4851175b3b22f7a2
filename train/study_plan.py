"""The plan of a study: which runs there are, what each is told, which must be there before it."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config import read_config
from wsi_ml.errors import BadRequestError

PACKAGE = "train"
"""Where the scripts that a plan names lie."""
PLAN_KEYS = {"script", "evaluate", "evaluate_options", "config", "keys", "run"}
RUN_KEYS = {"name", "script", "evaluate", "evaluate_options", "config", "keys", "needs", "seeds"}


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study."""

    name: str
    folder: Path
    script: str
    """Module of the package `train` that trains."""
    evaluate: str
    """Module that measures the finished run by `--run` and `--output`; empty: none."""
    evaluate_options: tuple[str, ...]
    keys: dict[str, str]
    """All keys as `--set` takes them, the run's folder among them; those of a TOML file that `config` names, too."""
    needs: tuple[str, ...]
    """Names of runs that this one starts from."""

    def settings(self) -> list[str]:
        """The keys as `key=value`."""
        return [f"{name}={value}" for name, value in self.keys.items()]


def read_plan(file: Path, runs: Path) -> list[PlannedRun]:
    """The runs of a plan, their folders below `runs`, each after those that it needs.

    Raises BadRequestError with one sentence for a plan that cannot be read, holds what no plan holds, or gives a
    script a key or value that it does not take: before anything is computed.
    """
    try:
        plan = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequestError(f"The plan {file.name} cannot be read: {error}.") from error
    _refuse_unknown(plan, PLAN_KEYS, f"The plan {file.name}")
    entries = plan.get("run")
    if not isinstance(entries, list) or not entries:
        raise BadRequestError(f"The plan {file.name} holds no [[run]].")
    planned = [each for entry in entries for each in _runs_of(plan, entry, runs)]
    for run in planned:
        _check_script(run)
    return in_order(planned)


def in_order(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs in the plan's order, but each after those that it needs; raises BadRequestError where none can be."""
    names = [run.name for run in planned]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadRequestError(f"Two runs of the plan are named {twice[0]!r}.")
    for run in planned:
        missing = [name for name in run.needs if name not in names]
        if missing:
            raise BadRequestError(f"Run {run.name!r} needs {missing[0]!r}, which the plan does not hold.")
    ordered: list[PlannedRun] = []
    waiting = list(planned)
    while waiting:
        there = {run.name for run in ordered}
        ready = next((run for run in waiting if there.issuperset(run.needs)), None)
        if ready is None:
            raise BadRequestError(f"Run {waiting[0].name!r} needs runs that need it in turn.")
        ordered.append(ready)
        waiting.remove(ready)
    return ordered


def _runs_of(plan: dict[str, Any], entry: dict[str, Any], runs: Path) -> list[PlannedRun]:
    """The run of an entry, or one for each of its seeds."""
    name = entry.get("name")
    if not isinstance(name, str) or not name or not name.replace("-", "").replace("_", "").isalnum():
        raise BadRequestError(f"A run is named by letters, digits, - and _, not {name!r}.")
    _refuse_unknown(entry, RUN_KEYS, f"Run {name!r}")
    seeds = entry.get("seeds", [None])
    if not isinstance(seeds, list) or not seeds:
        raise BadRequestError(f"The seeds of run {name!r} are a list of numbers, not {seeds!r}.")
    return [_run_of(plan, entry, runs, seed) for seed in seeds]


def _run_of(plan: dict[str, Any], entry: dict[str, Any], runs: Path, seed: int | None) -> PlannedRun:
    given = {name: entry.get(name, plan.get(name)) for name in ("script", "evaluate", "evaluate_options", "config")}
    name = entry["name"] if seed is None else f"{entry['name']}-{seed}"
    if not given["script"]:
        raise BadRequestError(f"Run {name!r} names no script, and neither does the plan.")
    folder = runs / name

    def filled(value: object) -> str:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text.lower() if isinstance(value, bool) else text
        return text.replace("{runs}", str(runs)).replace("{seed}", "" if seed is None else str(seed))

    told = {**plan.get("keys", {}), **entry.get("keys", {})}
    if "run" in told:
        raise BadRequestError(f"Run {name!r} is given the key run, which the study sets itself.")
    # What the file says is part of the run's keys, so that a change of the file is noticed like one of the plan.
    keys = {key: filled(value) for key, value in {**_keys_of(given["config"], name), **told}.items()}
    if seed is not None:
        keys["seed"] = str(seed)
    needs = entry.get("needs", [])
    return PlannedRun(
        name, folder, str(given["script"]), str(given["evaluate"] or ""),
        tuple(filled(each) for each in given["evaluate_options"] or ()),
        {**keys, "run": str(folder)}, tuple(filled(each) for each in ([needs] if isinstance(needs, str) else needs)),
    )  # fmt: skip


def _keys_of(config: str | None, name: str) -> dict[str, Any]:
    if not config:
        return {}
    try:
        return tomllib.loads(Path(config).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequestError(f"The config of run {name!r} cannot be read: {error}.") from error


def _check_script(run: PlannedRun) -> None:
    """Raise BadRequestError unless the modules are there and the script takes the keys."""
    for module in filter(None, (run.script, run.evaluate)):
        if not module.isidentifier() or importlib.util.find_spec(f"{PACKAGE}.{module}") is None:
            raise BadRequestError(f"Run {run.name!r} names the script {module!r}; there is no {PACKAGE}/{module}.py.")
    config_class = getattr(importlib.import_module(f"{PACKAGE}.{run.script}"), "Config", None)
    if config_class is None:
        raise BadRequestError(f"Run {run.name!r} names {run.script!r}, which is no training script.")
    try:
        read_config(config_class, None, run.settings())
    except (BadRequestError, ValueError) as error:
        raise BadRequestError(f"Run {run.name!r}: {error}") from error


def _refuse_unknown(table: dict[str, Any], known: set[str], whose: str) -> None:
    unknown = sorted(table.keys() - known)
    if unknown:
        raise BadRequestError(f"{whose} has {unknown[0]!r}; it may have {', '.join(sorted(known))}.")
