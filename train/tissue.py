"""Train `tissue-cnn`: six kinds of tissue at ×20, from weakly labelled patches.

A quick try on a CPU (twenty steps, seconds):    python -m train.tissue --set run=runs/try --set steps=20 --set batch=8
The recipe of the shipped weights:               python -m train.tissue --config train/configs/tissue.toml
"""

from __future__ import annotations

import dataclasses
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from train import command, loop
from train.config import PUBLISH, key
from train.nuclei import as_input
from train.script import write_network_file
from wsi_ml.data.tissue import (
    CLASSES,
    CODES,
    TEST_SLIDES,
    TissuePatch,
    TissueSampler,
    read_tissue_set,
    split_patches,
)
from wsi_ml.metrics.classification import balanced_accuracy, confusion_matrix
from wsi_ml.models import parameter_count
from wsi_ml.models.tissue_cnn import TissueCnn, TissueCnnConfig

ADAM_BETAS = (0.9, 0.99)
VALIDATION_BATCH = 64


@dataclass(frozen=True)
class Config:
    """Keys of the training; the meanings are printed by `--help`."""

    data: str = key("../shared/data", "folder of the data set tissue-weak-dev")
    run: str = key("runs/tissue", "folder of this run: state, journal, TensorBoard")
    test: tuple[str, ...] = key(TEST_SLIDES, "slides held out whole for the final scores; never read by this script")
    channels: int = key(32, "feature channels of the network's finest grid")
    batch: int = key(32, "patches per step and rank")
    mix_chance: float = key(0.35, "chance that a patch has part of another one beside it")
    smoothing: float = key(0.05, "share of every label that is spread over all classes: labels are weak")
    steps: int = key(2500, "optimizer steps of the whole run")
    warm_up: int = key(100, "steps of linear warm-up")
    rate: float = key(1.5e-3, "top learning rate of AdamW; cosine down to rate_end")
    rate_end: float = key(1e-5, "last learning rate")
    decay: float = key(2e-2, "weight decay of AdamW")
    clip: float = key(1.0, "largest norm of the gradient")
    average: float = key(0.995, "decay of the moving average of the weights, which is what is validated and shipped")
    seed: int = key(60, "seed of weights, batches and augmentation")
    precision: str = key("auto", "auto (bf16 where the machine has it), bf16 or fp32")
    device: str = key("auto", "auto (GPU when there is one), cpu, cuda")
    threads: int = key(2, "CPU threads for the network")
    log_every: int = key(50, "steps between lines of the journal")
    validate_every: int = key(250, "steps between validations, on patches of other places of the slides trained on")
    save_every: int = key(250, "steps between saved states")
    publish: str = key(*PUBLISH)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision {self.precision!r} is not auto, bf16 or fp32")
        if min(self.steps, self.batch, self.log_every, self.validate_every, self.save_every) < 1:
            raise ValueError("steps, batch and intervals are at least 1")


def loss_of(logits: Tensor, shares: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of N×classes logits with shares of classes, smoothed."""
    return functional.cross_entropy(logits, shares, label_smoothing=smoothing)


@torch.inference_mode()
def probabilities(model: nn.Module, patches: list[TissuePatch], bf16: bool, device: torch.device) -> np.ndarray:
    """Patches × classes, float32."""
    told = []
    for first in range(0, len(patches), VALIDATION_BATCH):
        rgb = np.stack([patch.rgb for patch in patches[first : first + VALIDATION_BATCH]])
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(as_input(rgb, device))
        told.append(logits.float().softmax(dim=1)[:, :, 0, 0].cpu().numpy())
    return np.concatenate(told)


def validate(
    config: Config, average: loop.Average, patches: list[TissuePatch], bf16: bool, device: torch.device
) -> dict[str, float]:
    """Balanced accuracy and log loss with the averaged weights."""
    model = start_model(config, device)
    model.load_state_dict(average.tensors)
    shares = probabilities(model.eval(), patches, bf16, device)
    labels = np.array([patch.label for patch in patches])
    log_loss = -np.log(np.maximum(shares[np.arange(len(labels)), labels], 1e-6)).mean()
    accuracy = balanced_accuracy(confusion_matrix(labels, shares.argmax(axis=1), len(CODES)))
    return {"balanced_accuracy/place": round(accuracy or 0.0, 4), "log_loss/place": round(float(log_loss), 4)}


def start_model(config: Config, device: torch.device) -> nn.Module:
    """A fresh network from the seed."""
    torch.manual_seed(config.seed)
    model = TissueCnn(TissueCnnConfig(len(CODES), config.channels))
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    folder = Path(config.run)
    folder.mkdir(parents=True, exist_ok=True)
    device = loop.pick_device(config.device, here.local)
    bf16 = loop.pick_bf16(config.precision, device)
    patches = split_patches(read_tissue_set(Path(config.data)), config.test)
    sampler = TissueSampler(patches.training, config.batch, config.mix_chance, config.seed)

    model = start_model(config, device)
    average = loop.Average(model, config.average)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.rate, betas=ADAM_BETAS, weight_decay=config.decay)
    start = 0
    if resume and (folder / loop.STATE_FILE).is_file():
        start, _, tensors = loop.read_state(folder)
        loop.restore(tensors, model, average, optimizer)
    if here.first:
        write_network_file(
            folder,
            config,
            "tissue",
            "tissue-cnn",
            {"classes": len(CODES), "channels": config.channels},
            tuple(CLASSES.values()),
        )
    network = DistributedDataParallel(model) if here.world > 1 else model
    last: dict[str, Any] = {"parameters": parameter_count(model), "bf16": bf16}
    bar = tqdm(total=config.steps, initial=start, disable=not here.first, desc="tissue", unit="step", mininterval=5)

    with loop.Journal(folder, here.first) as journal, loop.stop_request() as stop, ThreadPoolExecutor(1) as pool, bar:
        journal.add(start, event="start", config=dataclasses.asdict(config), world=here.world, **last)
        coming = pool.submit(sampler.batch, start * here.world + here.rank)
        clock, logged = time.perf_counter(), start
        for step in range(start, config.steps):
            rgb, shares = coming.result()
            coming = pool.submit(sampler.batch, (step + 1) * here.world + here.rank)
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            for group in optimizer.param_groups:
                group["lr"] = rate

            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(as_input(rgb, device))
            loss = loss_of(logits.float()[:, :, 0, 0], torch.from_numpy(shares).to(device), config.smoothing)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            average.update(model, step)

            done = step + 1
            bar.update()
            stopping = loop.any_rank(bool(stop), here, device)
            ended = done == config.steps or stopping
            if done % config.log_every == 0 or ended:
                speed = (done - logged) / (time.perf_counter() - clock)
                clock, logged = time.perf_counter(), done
                last |= {"loss": float(loss.detach()), "rate": rate, "steps_per_s": round(speed, 2)}
                journal.add(done, **{name: last[name] for name in ("loss", "rate", "steps_per_s")})
            if here.first and (done % config.validate_every == 0 or done == config.steps):
                last |= validate(config, average, patches.by_place, bf16, device)
                journal.add(done, **{name: last[name] for name in ("balanced_accuracy/place", "log_loss/place")})
            if here.first and (done % config.save_every == 0 or ended):
                loop.save_state(folder, done, dataclasses.asdict(config), model, average, optimizer)
            if stopping:
                break
    return last


def main(argv: list[str] | None = None) -> int:
    """Command line; see `command.run_script`."""
    return command.run_script("tissue", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
