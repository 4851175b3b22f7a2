"""The course of a run: what happens around every step of a loop, so that the loop itself shows only the learning."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from train import loop
from train.script import Run, RunConfig, parts_of_steps
from wsi_ml.data.batches import RowSource


class Course:
    """Journal, progress bar, stop request and states of a run, from step `start` to the last or to a stop.

    A context; `steps` gives the batches, and after each step the loop calls `note` once, then `saves`.
    """

    def __init__(self, config: RunConfig, run: Run, start: int, flops: int, facts: dict[str, Any]):
        self.config, self.run, self.start = config, run, start
        self.gflop = round(flops / 1e9, 2)
        """Billions of operations of a rank's part of a step."""
        self.facts = facts
        self.done, self.saved = start, start
        """Steps done, and those of the last good state on disk."""
        self.stopping = False
        self.last: dict[str, Any] = {}
        """The newest value of everything noted."""
        self._open = ExitStack()

    def __enter__(self) -> Course:
        config, run = self.config, self.run
        self.journal = self._open.enter_context(loop.Journal(run.folder, run.here.first))
        self._stop = self._open.enter_context(loop.stop_request())
        bar = {"total": config.steps, "initial": self.start, "desc": run.folder.name, "unit": "step", "mininterval": 5}
        self._bar = self._open.enter_context(tqdm(disable=not run.here.first, **bar))
        event = {"event": "start", "config": dataclasses.asdict(config), "world": run.here.world}
        machine = {"hardware": loop.hardware(run.device), "bf16": run.bf16, "step_gflop": self.gflop}
        self.journal.add(self.start, **event, **machine, **self.facts)
        self._clock, self._noted = time.perf_counter(), self.start
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def steps(self, *sources: RowSource) -> Iterator[tuple[int, list[dict[str, Tensor]]]]:
        """Each step (0-based) and this rank's parts of its batch; random numbers of the step are set first."""
        parts_of = parts_of_steps(self.config, sources, self.start, self.run.here, self.run.device)
        for step, parts in enumerate(parts_of, self.start):
            loop.seed_step(self.config.seed, step, self.run.here)
            yield step, parts
            if self.stopping:
                return

    def check(self, **values: float) -> None:
        """Raise ModelOutputError unless all are finite; called before the weights change."""
        named = {name.replace("_", " "): value for name, value in values.items()}
        loop.stop_unless_finite(named, self.done + 1, self.saved, self.run.here, self.run.device)

    def note(self, values: dict[str, Any]) -> None:
        """End a step: bar, stop request, and every `log_every` steps a line of the journal."""
        self.done += 1
        self._bar.update()
        self.stopping = loop.any_rank(bool(self._stop), self.run.here, self.run.device)
        if self.done % self.config.log_every == 0 or self.ended:
            self.write({**values, **self._speed()})

    @property
    def ended(self) -> bool:
        """The step just done was the last."""
        return self.stopping or self.done == self.config.steps

    @property
    def validates(self) -> bool:
        """Rank 0 looks at the validation patches after this step."""
        due = self.done % self.config.validate_every == 0 or self.done == self.config.steps
        return self.run.here.first and due

    def write(self, values: dict[str, Any]) -> None:
        """A line of the journal."""
        self.journal.add(self.done, **values)
        self.last |= values

    def show(self, picture: np.ndarray | None, words: str = "bicubic, network, scan") -> None:
        """Keep a validation picture, whose parts side by side are those that `words` name, if there is one."""
        if picture is not None:
            Image.fromarray(picture).save(self.run.folder / "pictures" / f"{self.done:06d}.png")
            self.journal.picture(self.done, words, picture)

    def save(
        self, model: nn.Module, average: loop.Average, optimizer: torch.optim.Optimizer,
        beside: loop.Trained | None = None,
    ) -> None:  # fmt: skip
        """Put the state on disk where one is due."""
        if self.done % self.config.save_every and not self.ended:
            return
        if self.run.here.first:
            config = dataclasses.asdict(self.config)
            loop.save_state(self.run.folder, self.done, config, model, average, optimizer, beside)
        self.saved = self.done

    def _speed(self) -> dict[str, float]:
        """Steps a second since the last line and, where the machine's peak was told, the share of it they make."""
        now = time.perf_counter()
        speed = (self.done - self._noted) / (now - self._clock)
        self._clock, self._noted = now, self.done
        values = {"steps_per_s": round(speed, 3)}
        if self.config.peak_tflops > 0:
            values["mfu"] = round(speed * self.gflop / 1e3 / self.config.peak_tflops, 4)
        return values
