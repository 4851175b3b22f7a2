"""A training script without a network: a step a line of its journal, stopped, failed or resumed as its keys say."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from train.config import arguments, key, read_config


@dataclass(frozen=True)
class Config:
    run: str = key("runs/toy", "folder")
    steps: int = key(3, "steps")
    seed: int = key(0, "seed")
    stop_after: int = key(0, "steps after which the first stretch ends")
    start: str = key("", "run that this one starts from")
    broken: bool = key(False, "ends with a sentence")
    classes: tuple[str, ...] = key((), "names")


def main():
    args = arguments("study_toy", Config, None)
    config = read_config(Config, args.config, args.set)
    folder = Path(config.run)
    if config.start and not (Path(config.start) / "journal.jsonl").is_file():
        sys.exit("The run to start from is not there.")
    journal = folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()] if journal.is_file() else []
    done = lines[-1]["step"] if lines and args.resume else 0
    if config.broken:
        sys.exit("The loss is nan in step 1.")
    last = config.stop_after if config.stop_after and not lines else config.steps
    with journal.open("a") as file:
        values = {"steps": config.steps, "seed": config.seed}
        at = 1000.0 * (1 + bool(lines))
        start = {"step": done, "time": at, "event": "start", "config": values, "hardware": "abacus", "parameters": 7}
        file.write(json.dumps(start) + "\n")
        for step in range(done + 1, last + 1):
            file.write(json.dumps({"step": step, "time": at + 60 * (step - done)}) + "\n")


if __name__ == "__main__":
    main()
