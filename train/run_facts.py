"""What a run's folder tells of it: network, keys, weights, how far it came and how it was trained."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from train import loop
from train.script import NETWORK_FILE
from wsi_ml.errors import ModelUnavailableError

RESULTS_FILE = "results.json"
MACHINE_KEYS = (
    "data", "run", "start", "threads", "device", "log_every", "validate_every", "save_every", "labelled_data",
    "start_run", "vgg", "start_discriminator", "workers", "compile", "peak_tflops", "publish", "extractor", "maps",
    "segmentation",
)  # fmt: skip
"""Keys that tell of the machine, or of places on it, and not of the training."""


@dataclass(frozen=True)
class RunFacts:
    """A run as its folder tells it."""

    folder: Path
    script: str
    """The training script's name, `semi_supervised`."""
    architecture: str
    network: dict[str, Any]
    """Arguments for `wsi_ml.models.build`."""
    facts: dict[str, Any]
    """All of network.json."""
    keys: dict[str, Any]
    """The keys of the script, as its configuration takes them."""
    tensors: dict[str, Tensor]
    """All of the state; `weights` are those that count."""
    steps: int
    """Steps done."""

    @property
    def wanted(self) -> int:
        """Steps of the whole run."""
        return int(self.keys.get("steps", self.steps))

    @property
    def finished(self) -> bool:
        """The last step is done."""
        return self.steps >= self.wanted

    @property
    def weights(self) -> dict[str, Tensor]:
        """The moving average, which is what is validated and published."""
        return loop.part(self.tensors, "average")

    def training(self) -> dict[str, Any]:
        """The card's account of the training: steps, minutes, hardware, seed, stages; no place of this machine."""
        told = {"steps": self.steps, "seed": self.keys.get("seed"), **journal_facts(self.folder)}
        return {**told, **({} if self.finished else {"unfinished": f"step {self.steps} of {self.wanted}"}),
                "script": f"train.{self.script}", "stages": stages(self.folder)}  # fmt: skip

    def results(self) -> list[dict[str, Any]]:
        """Rows about this run in its results.json, which an evaluation wrote; none where there is no such file."""
        try:
            rows = json.loads((self.folder / RESULTS_FILE).read_text(encoding="utf-8")).get("runs", [])
        except (OSError, ValueError, AttributeError):
            return []
        return [row for row in rows if isinstance(row, dict) and row.get("run", self.folder.name) == self.folder.name]


def read_run(folder: Path) -> RunFacts:
    """A run by its folder; raises ModelUnavailableError, saying what is missing, when it is none."""
    try:
        facts = json.loads((folder / NETWORK_FILE).read_text(encoding="utf-8"))
        script, architecture, network = str(facts["script"]), str(facts["architecture"]), dict(facts["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"{folder.name or folder} is no run of a training script: its {NETWORK_FILE} cannot be read. Runs of "
            "before this file was written get it when their script is started once more with --resume."
        ) from error
    steps, keys, tensors = loop.read_state(folder)
    return RunFacts(folder, script, architecture, network, facts, keys, tensors, steps)


def journal_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's journal; none where it cannot be read."""
    try:
        return [json.loads(line) for line in (folder / loop.JOURNAL_FILE).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def journal_facts(folder: Path) -> dict[str, Any]:
    """Minutes over all stretches of a run, and the hardware of the last, of its journal; None where not known."""
    lines = journal_lines(folder)
    starts = [place for place, line in enumerate(lines) if line.get("event") == "start"]
    edges = sorted({*starts, len(lines)})
    seconds = sum(lines[end - 1]["time"] - lines[at]["time"] for at, end in itertools.pairwise(edges))
    hardware = lines[starts[-1]].get("hardware") if starts else None
    return {"minutes": round(seconds / 60, 1) if starts else None, "hardware": hardware}


def stages(folder: Path) -> list[dict[str, Any]]:
    """Where the run was started and resumed and which keys it changed there, from its journal."""
    found: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    for entry in journal_lines(folder):
        if entry.get("event") != "start":
            continue
        store = {"store": entry["store"]} if "store" in entry else {}
        now = {**entry["config"], **store, "ranks": entry["world"]}
        kept = {name: value for name, value in now.items() if name not in MACHINE_KEYS}
        changed = {name: value for name, value in kept.items() if name not in before or before[name] != value}
        found.append({"from_step": entry["step"], "keys": changed})
        before = kept
    return found
