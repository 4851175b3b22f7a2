"""The studies of three published systems beside the papers' tables: `python -m benchmarks.segmentation_tables`.

    python -m train.study --plan train/configs/studies/semi_labels.toml     # hours, see docs/training.md
    python -m benchmarks.segmentation_tables semi                           # collects runs/semi_*, writes the tables

What each run measured is copied to docs/results/<system>/<study>/<run>.json, so that the tables can be printed where
the runs are not. The tables are those of `semi_tables`, `cerberus_tables` and `multistage_tables`.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, table

NONE = "–"
FORMAT = 1
SYSTEMS = {
    "semi": "benchmarks.semi_tables",
    "cerberus": "benchmarks.cerberus_tables",
    "multistage": "benchmarks.multistage_tables",
}
"""Modules of tables. Each has TITLE; RUNS, a pattern of folders below runs/; `shrink`, what is kept of results.json;
and `body`, the words and tables, which may write pictures into the folder that it is given."""
FACTS = ("script", "keys", "seed", "steps", "minutes", "hardware", "parameters")


@dataclass(frozen=True)
class RunResult:
    """A run as it was made and measured."""

    study: str
    """Name of the plan."""
    name: str
    facts: dict[str, Any]
    """script, keys (as the plan gave them: texts), seed, steps, minutes, hardware, parameters."""
    results: dict[str, Any]
    """What is kept of the run's results.json."""

    @property
    def row(self) -> str:
        """The run's name without its seed: runs of one row differ in nothing else."""
        seed = f"-{self.facts.get('seed')}"
        return self.name.removesuffix(seed)


@dataclass(frozen=True)
class Direction:
    """A statement of a paper about which of two is better, and what our figures say of it."""

    words: str
    paper: str
    """Its figures, or where it says so."""
    ours: str
    """Our figures."""
    holds: bool | None
    """None: not measured here."""
    close: bool = False
    """What it rests on is smaller than what another seed changes."""


def collect(runs: Path, results: Path, shrink: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Copy what the finished runs below `runs` measured to results/<study>/<run>.json; gives how many there were.

    Raises SystemExit naming a damaged file.
    """
    count = 0
    for file in sorted(runs.glob("*/results.json")):
        facts = read(file.with_name("study.json")) if file.with_name("study.json").is_file() else {}
        if not facts.get("trained"):
            continue
        kept = {name: facts.get(name) for name in FACTS}
        value = {"format": FORMAT, "study": runs.name, "run": file.parent.name, "facts": kept}
        target = results / runs.name / f"{file.parent.name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value | {"results": shrink(read(file))}, ensure_ascii=False, separators=(",", ":"))
        target.write_text(text + "\n", encoding="utf-8")
        count += 1
    return count


def read(file: Path) -> dict[str, Any]:
    """A JSON file; raises SystemExit naming a damaged one."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(f"{file.parent.name}/{file.name} is no JSON: {error}.") from error


def read_results(folder: Path) -> list[RunResult]:
    """The runs copied to a folder, by study and name; raises SystemExit naming a damaged or foreign file."""
    found = []
    for file in sorted(folder.glob("*/*.json")):
        value = read(file)
        if value.get("format") != FORMAT:
            raise SystemExit(f"{file.parent.name}/{file.name} has format {value.get('format')!r}, not {FORMAT}.")
        found.append(RunResult(value["study"], value["run"], value["facts"], value["results"]))
    return found


def by_row(runs: Iterable[RunResult]) -> dict[str, list[RunResult]]:
    """Runs of all seeds by their row, in order of the names."""
    rows: dict[str, list[RunResult]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    return rows


def mean(values: Sequence[float | None]) -> float | None:
    """Mean over seeds; None where there is none or one is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def over_seeds(values: Sequence[float | None], places: int = 3) -> str:
    """`mean`, or `mean ± standard deviation` of two and more seeds; – where one is missing."""
    middle = mean(values)
    if middle is None:
        return NONE
    text = figure(middle, places)
    return text if len(values) == 1 else f"{text} ± {figure(float(np.std(values, ddof=1)), places)}"


def figure(value: float | None, places: int = 3) -> str:
    """A number as the papers print it: .831, – where there is none."""
    if value is None:
        return NONE
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def spent(runs: Sequence[RunResult]) -> dict[str, object]:
    """Cells that say what a row cost."""
    seeds = sorted({str(run.facts["seed"]) for run in runs if run.facts.get("seed") is not None})
    steps = sorted({run.facts["steps"] for run in runs if run.facts.get("steps") is not None})
    minutes = [run.facts.get("minutes") for run in runs]
    return {
        "steps": ", ".join(f"{each:,}" for each in steps) or NONE,
        "seeds": ", ".join(seeds) or NONE,
        "minutes a run": over_seeds(minutes, 1) if runs else NONE,
    }


def effort(runs: Sequence[RunResult]) -> str:
    """Runs, minutes in all, hardware and sizes of the networks, in a sentence."""
    if not runs:
        return "No run was measured."
    minutes = sum(run.facts.get("minutes") or 0.0 for run in runs)
    machines = sorted({str(run.facts["hardware"]) for run in runs if run.facts.get("hardware")})
    sizes = sorted({run.facts["parameters"] for run in runs if run.facts.get("parameters")})
    text = f"{len(runs)} runs, {minutes:.0f} minutes in all, on: {'; '.join(machines) or 'not noted'}."
    return text + (f" Parameters: {', '.join(f'{size:,}' for size in sizes)}." if sizes else "")


def directions(found: Sequence[Direction], seeds: bool = True) -> str:
    """The table of what reproduced, with its count; without `seeds` it is not known what another seed changes."""
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    rows: list[dict[str, object]] = [
        {"the paper says": each.words, "paper": each.paper, "ours": each.ours,
         "reproduced": verdicts[each.holds] + (", within the seeds' spread" if each.close else "")}
        for each in found
    ]  # fmt: skip
    measured = [each for each in found if each.holds is not None]
    held, close = sum(bool(each.holds) for each in measured), sum(each.close for each in measured)
    told = f"{held} of {len(measured)} directions that were measured reproduced"
    less = f"{close} of these verdicts rest on less than what another seed changes"
    return f"{told}; {less if seeds else 'what another seed changes is not known'}.\n\n{table(rows)}"


def spread(rows: Iterable[Sequence[float | None]]) -> float | None:
    """Standard deviation between seeds, pooled over rows of two and more; None where there are none."""
    several = [[value for value in row if value is not None] for row in rows]
    several = [row for row in several if len(row) > 1]
    freedom = sum(len(row) - 1 for row in several)
    squares = sum(float(np.var(row)) * len(row) for row in several)
    return (squares / freedom) ** 0.5 if freedom else None


def write_report(system: str, results: Path) -> Path:
    """docs/results/<system>/README.md of the runs copied there; gives the file."""
    module = importlib.import_module(SYSTEMS[system])
    folder = results / system
    runs = read_results(folder)
    head = f"# {module.TITLE}\n\nWritten by `python -m benchmarks.segmentation_tables {system}`. {effort(runs)}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "README.md"
    file.write_text(f"{head}\n\n{module.body(runs, folder).strip()}\n", encoding="utf-8")
    return file


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"{', '.join(SYSTEMS)}; default: all")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the studies' runs")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", help="folder of results folders")
    args = parser.parse_args(argv)
    unknown = [name for name in args.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"there is no system {unknown[0]!r}; there are {', '.join(SYSTEMS)}")
    for system in args.systems or SYSTEMS:
        module = importlib.import_module(SYSTEMS[system])
        studies = sorted(folder for folder in args.runs.glob(module.RUNS) if folder.is_dir())
        count = sum(collect(folder, args.results / system, module.shrink) for folder in studies)
        file = write_report(system, args.results)
        print(f"{system}: {count} runs collected, {file.parent.name}/{file.name} written")


if __name__ == "__main__":
    main()
