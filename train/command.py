"""The command line of every training script: keys, the training, and the publication that `publish` asks for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train import loop
from train.config import ConfigType, arguments, ended, read_config
from train.publish import Wish, default_name, models_folder, publish


def run_script(
    name: str,
    config_class: type[ConfigType],
    train: Callable[[ConfigType, bool, loop.Ranks], object],
    argv: list[str] | None,
) -> int:
    """0 when the run ended, 2 with one sentence for a wrong key, missing data, a NaN loss, a model not published."""
    args = arguments(name, config_class, argv)

    def work() -> None:
        config: Any = read_config(config_class, args.config, args.set)
        with loop.ranks() as here:
            if config.publish:
                models_folder(Path(config.publish))  # a library that is not there is told before the work, not after
            train(config, args.resume, here)
            if config.publish and here.first:
                publish_run(Path(config.run), Path(config.publish))

    return ended(work)


def publish_run(run: Path, library: Path) -> None:
    """Publish a run that has come to its end; of one that was stopped say how it goes on."""
    steps, keys, _ = loop.read_state(run)
    if steps < keys.get("steps", steps):
        sys.stderr.write(f"{run.name} was stopped at step {steps}: it is published when --resume has ended it.\n")
        return
    for file in publish(run, library, Wish(default_name(run))):
        sys.stderr.write(f"published: {file.stem}\n")
