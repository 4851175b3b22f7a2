"""Train `nuclei-unet`: inside and rim of nuclei at ×20, from hand-outlined pictures and drawn scenes.

A quick try on a CPU (twenty steps, a minute):

    python -m train.nuclei --set run=runs/try --set steps=20 --set scenes=1 --set batch=2

The recipe of the shipped weights:    python -m train.nuclei --config train/configs/nuclei.toml
Several GPUs or machines:             torchrun --nproc-per-node 4 -m train.nuclei --config train/configs/nuclei.toml
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
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from train import command, loop
from train.config import PUBLISH, key
from train.script import write_network_file
from wsi_ml.data.nuclei import TEST, VALIDATION, DrawnPart, NucleiPicture, draw_parts, read_hand_set
from wsi_ml.data.nuclei_batches import NucleiBatch, NucleiBatchConfig, NucleiSampler
from wsi_ml.models import parameter_count
from wsi_ml.models.nuclei_unet import NucleiUnet, NucleiUnetConfig

VALIDATION_SEED = 1_000_003
"""Added to the seed for the batches that are validated on, which no training step sees."""
ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Config:
    """Keys of the training; the meanings are printed by `--help`."""

    data: str = key("../shared/data", "folder of the data set nuclei-dsb2018-brightfield")
    run: str = key("runs/nuclei", "folder of this run: state, journal, validation pictures, TensorBoard")
    test: tuple[str, ...] = key(TEST, "pictures held out for the final scores; never read by this script")
    validation: tuple[str, ...] = key(VALIDATION, "pictures for watching the run; not trained on")
    scenes: int = key(12, "drawn scenes to train on")
    scene_parts: int = key(4, "parts of 512 stored pixels drawn of each scene, 1...9")
    channels: int = key(32, "feature channels of the network's finest grid")
    batch: int = key(8, "pictures per step and rank")
    side: int = key(160, "side of a picture in stored pixels; a multiple of 8")
    margin: int = key(16, "pixels at a picture's border that teach nothing, as they lack their surroundings")
    drawn_chance: float = key(0.3, "chance of a drawn scene in place of a hand-outlined picture")
    empty_chance: float = key(0.14, "chance of drawn tissue without any nucleus")
    diameter_low: float = key(7.5, "smallest median diameter, in stored pixels, to which a picture's nuclei are scaled")
    diameter_high: float = key(24.0, "largest such diameter")
    restain_chance: float = key(0.85, "chance that a picture of one dye is laid over drawn tissue")
    shrink_chance: float = key(0.25, "chance that empty rings are drawn round some nuclei")
    red_chance: float = key(0.25, "chance of a cluster of drawn red cells")
    dirt_chance: float = key(0.2, "chance of drawn specks of ink or pigment")
    touch_weight: float = key(3.0, "further weight of pixels where two nuclei touch")
    steps: int = key(8000, "optimizer steps of the whole run")
    warm_up: int = key(200, "steps of linear warm-up")
    rate: float = key(2e-3, "top learning rate of AdamW; cosine down to rate_end")
    rate_end: float = key(1e-5, "last learning rate")
    decay: float = key(1e-3, "weight decay of AdamW")
    clip: float = key(1.0, "largest norm of the gradient")
    average: float = key(0.998, "decay of the moving average of the weights, which is what is validated and shipped")
    seed: int = key(40, "seed of weights, batches, scenes and augmentation")
    precision: str = key("auto", "auto (bf16 where the machine has it), bf16 or fp32")
    device: str = key("auto", "auto (GPU when there is one), cpu, cuda")
    threads: int = key(2, "CPU threads for the network")
    log_every: int = key(50, "steps between lines of the journal")
    validate_every: int = key(500, "steps between validations")
    validation_batches: int = key(6, "batches of held-out pictures, and as many of held-out drawn scenes")
    save_every: int = key(250, "steps between saved states")
    publish: str = key(*PUBLISH)

    def __post_init__(self) -> None:
        if self.side % 8 or self.side <= 2 * self.margin:
            raise ValueError(f"side {self.side} is no multiple of 8, or has nothing left within margin {self.margin}")
        if set(self.test) & set(self.validation):
            raise ValueError("a picture is in both test and validation")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision {self.precision!r} is not auto, bf16 or fp32")
        if min(self.steps, self.log_every, self.validate_every, self.save_every) < 1:
            raise ValueError("steps and intervals are at least 1")


def batch_config(config: Config) -> NucleiBatchConfig:
    """What a batch is made of."""
    return NucleiBatchConfig(
        batch=config.batch, side=config.side, drawn_chance=config.drawn_chance, empty_chance=config.empty_chance,
        diameter_low=config.diameter_low, diameter_high=config.diameter_high, restain_chance=config.restain_chance,
        shrink_chance=config.shrink_chance, red_chance=config.red_chance, dirt_chance=config.dirt_chance,
    )  # fmt: skip


def draw(config: Config, first: int, scenes: int) -> list[DrawnPart]:
    """Parts of `scenes` drawn scenes whose seeds begin at `first`."""
    return [part for seed in range(first, first + scenes) for part in draw_parts(seed, config.scene_parts)]


def split(config: Config) -> tuple[list[NucleiPicture], list[NucleiPicture]]:
    """Hand-outlined pictures to train on and to validate on; raises ValueError for a name that is not there."""
    pictures = read_hand_set(Path(config.data))
    unknown = sorted((set(config.test) | set(config.validation)) - set(pictures))
    if unknown:
        raise ValueError(f"The split names pictures that are not in the data: {', '.join(unknown)}.")
    held_out = set(config.test) | set(config.validation)
    return [picture for name, picture in pictures.items() if name not in held_out], [
        pictures[name] for name in config.validation
    ]


def validation_sets(config: Config, pictures: list[NucleiPicture]) -> dict[str, list[NucleiBatch]]:
    """Fixed batches of held-out pictures and of a scene that is not trained on, both treated as in training."""
    seed, count = config.seed + VALIDATION_SEED, range(config.validation_batches)
    drawn = draw(config, config.seed + config.scenes, 1)
    made = dataclasses.replace(batch_config(config), empty_chance=0.0)
    hand = NucleiSampler(pictures, drawn, dataclasses.replace(made, drawn_chance=0.0), seed)
    scenes = NucleiSampler(pictures, drawn, dataclasses.replace(made, drawn_chance=1.0), seed)
    return {"hand": [hand.batch(index) for index in count], "drawn": [scenes.batch(index) for index in count]}


def as_input(rgb: np.ndarray, device: torch.device) -> Tensor:
    """N×H×W×3 uint8 array → N×3×H×W float tensor 0…1 in channels-last memory on the device."""
    return torch.from_numpy(rgb).to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255.0


def inner(values: Tensor, margin: int) -> Tensor:
    """What is left of …×H×W without a margin on each side."""
    return values[..., margin : values.shape[-2] - margin, margin : values.shape[-1] - margin]


def loss_of(logits: Tensor, maps: Tensor, touching: Tensor, touch_weight: float) -> Tensor:
    """Cross-entropy of both maps, heavier where nuclei touch, and soft Dice (Milletari et al. 2016) of each."""
    weight = 1.0 + touch_weight * touching[:, None]
    entropy = functional.binary_cross_entropy_with_logits(logits, maps, reduction="none")
    told = logits.sigmoid()
    common, both = (told * maps * weight).sum((0, 2, 3)), ((told + maps) * weight).sum((0, 2, 3))
    dice = 1.0 - (2.0 * common + 1.0) / (both + 1.0)
    return (entropy * weight).mean() + 0.5 * dice.mean()


def dices(told: Tensor, maps: Tensor) -> tuple[float, float]:
    """Dice of the nuclei (interior and rim together, from one half) and of the rim, over all pixels of N×2×H×W."""
    pairs = ((told.sum(1) >= 0.5, maps.sum(1) >= 0.5), (told[:, 1] >= 0.5, maps[:, 1] >= 0.5))
    nucleus, rim = (float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp(min=1)) for a, b in pairs)
    return nucleus, rim


@torch.inference_mode()
def validate(
    config: Config, average: loop.Average, sets: dict[str, list[NucleiBatch]], bf16: bool, device: torch.device,
    picture: Path,
) -> tuple[dict[str, float], np.ndarray]:  # fmt: skip
    """Dice on the held-out batches with the averaged weights; saves a picture: input, truth, told."""
    model = start_model(config, device)
    model.load_state_dict(average.tensors)
    model.eval()
    values: dict[str, float] = {}
    for name, batches in sets.items():
        told, truth = [], []
        for batch in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(as_input(batch.rgb, device), whole=True)
            told.append(inner(logits.float().sigmoid(), config.margin).cpu())
            truth.append(inner(torch.from_numpy(batch.maps), config.margin))
        nucleus, rim = dices(torch.cat(told), torch.cat(truth))
        values |= {f"dice/{name}": round(nucleus, 4), f"rim_dice/{name}": round(rim, 4)}
        if name == "hand":
            shown = show(batches[-1].rgb, truth[-1].numpy() * 255.0, told[-1].numpy() * 255.0, margin=config.margin)
    Image.fromarray(shown).save(picture)
    return values, shown


def show(rgb: np.ndarray, *maps: np.ndarray, margin: int) -> np.ndarray:
    """Rows of pictures: the input, then each of the maps (interior red, rim green), uint8."""
    edge = slice(margin, -margin or None)
    rows = [np.concatenate(list(rgb[:, edge, edge]), axis=1)]
    for two in maps:
        colours = np.stack([two[:, 0], two[:, 1], np.zeros_like(two[:, 0])], axis=-1)
        rows.append(np.concatenate(list(colours.astype(np.uint8)), axis=1))
    return np.concatenate(rows)


def start_model(config: Config, device: torch.device) -> nn.Module:
    """A fresh network from the seed."""
    torch.manual_seed(config.seed)
    model = NucleiUnet(NucleiUnetConfig(config.channels))
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    folder = Path(config.run)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    device = loop.pick_device(config.device, here.local)
    bf16 = loop.pick_bf16(config.precision, device)
    pictures, held_out = split(config)
    sampler = NucleiSampler(pictures, draw(config, config.seed, config.scenes), batch_config(config), config.seed)
    sets = validation_sets(config, held_out)

    model = start_model(config, device)
    average = loop.Average(model, config.average)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.rate, betas=ADAM_BETAS, weight_decay=config.decay)
    start = 0
    if resume and (folder / loop.STATE_FILE).is_file():
        start, _, tensors = loop.read_state(folder)
        loop.restore(tensors, model, average, optimizer)
    if here.first:
        write_network_file(folder, config, "nuclei", "nuclei-unet", {"channels": config.channels}, ("Nucleus",))
    network = DistributedDataParallel(model) if here.world > 1 else model
    last: dict[str, Any] = {"parameters": parameter_count(model), "bf16": bf16}
    bar = tqdm(total=config.steps, initial=start, disable=not here.first, desc="nuclei", unit="step", mininterval=5)

    with loop.Journal(folder, here.first) as journal, loop.stop_request() as stop, ThreadPoolExecutor(1) as pool, bar:
        journal.add(start, event="start", config=dataclasses.asdict(config), world=here.world, **last)
        coming = pool.submit(sampler.batch, start * here.world + here.rank)
        clock, logged = time.perf_counter(), start
        for step in range(start, config.steps):
            batch = coming.result()
            coming = pool.submit(sampler.batch, (step + 1) * here.world + here.rank)
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            for group in optimizer.param_groups:
                group["lr"] = rate

            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(as_input(batch.rgb, device), whole=True)
            maps, touching = (torch.from_numpy(part).to(device).float() for part in (batch.maps, batch.touching))
            told, maps, touching = (inner(part, config.margin) for part in (logits.float(), maps, touching))
            loss = loss_of(told, maps, touching, config.touch_weight)
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
                values, shown = validate(config, average, sets, bf16, device, folder / "pictures" / f"{done:06d}.png")
                last |= values
                journal.add(done, **values)
                journal.picture(done, "input, truth, told", shown)
            if here.first and (done % config.save_every == 0 or ended):
                loop.save_state(folder, done, dataclasses.asdict(config), model, average, optimizer)
            if stopping:
                break
    return last


def main(argv: list[str] | None = None) -> int:
    """Command line; see `command.run_script`."""
    return command.run_script("nuclei", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
