"""Train `sr-fast`: ×2 super-resolution of stored (×20) pixels towards the scan (×40).

A quick try on a CPU (ten steps, half a minute):

    python -m train.sr_fast --set run=runs/try --set steps=10 --set scan_tiles=0

The recipe of the shipped weights:    python -m train.sr_fast --config train/configs/sr_fast.toml
Several GPUs or machines:             torchrun --nproc-per-node 4 -m train.sr_fast --config train/configs/sr_fast.toml
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
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from train import command, loop
from train.config import PUBLISH, key
from train.script import write_network_file
from wsi_ml.data.augment import AugmentConfig
from wsi_ml.data.pairs import Compression, PairSampler, PatchConfig, load_slides, slide_pairs
from wsi_ml.errors import ModelUnavailableError
from wsi_ml.models import parameter_count
from wsi_ml.models.sr_fast import SrFast, SrFastConfig
from wsi_ml.sr.bicubic import BicubicUpscaler
from wsi_ml.sr.network import prepare, upscale
from wsi_ml.sr.scores import Scores, score
from wsi_ml.sr.upscaler import bicubic_card

GREY_UNIT = 64.0
CHARBONNIER = 1e-3
ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Config:
    """Keys of the training; the meanings are printed by `--help`."""

    data: str = key("../shared/data", "folder of the data sets sr-x40-dev, sr-x40-dev2 and wsi-atlas-dev")
    run: str = key("runs/sr-fast", "folder of this run: state, journal, validation pictures, TensorBoard")
    test: tuple[str, ...] = key(
        ("BS12", "lung-squamous-cell-carcinoma", "ectopic-pancreas"),
        "slides held out for the final scores; never read by this script",
    )
    validation: tuple[str, ...] = key(("hacettepe-com-case-12", "EAS22"), "slides for watching the run; not trained on")
    scan_tiles: int = key(150, "tissue tiles cut from each whole x40 scan, besides the ready tiles")
    channels: int = key(48, "feature channels of the network")
    layers: int = key(8, "inner 3x3 convolutions of the network")
    start: str = key("", "weights to start from (.safetensors of an sr-fast of as many channels and no more layers)")
    batch: int = key(16, "patches per step and rank; a multiple of per_tile")
    per_tile: int = key(4, "patches cut from one augmented tile")
    side: int = key(48, "side of a patch in stored pixels")
    store_chance: float = key(0.5, "chance that a tile is compressed exactly as the store does it")
    raw_chance: float = key(0.1, "chance that a tile is not compressed")
    steps_chance: float = key(0.25, "chance of other equal quantisation steps, 2...steps_high")
    steps_high: int = key(16, "coarsest of these steps")
    quality_low: int = key(85, "lowest quality of Annex K of the other tiles; the highest is 98, 4:2:0 or 4:4:4")
    stain_chance: float = key(0.5, "chance that a tile's stains are changed")
    stain_gain: float = key(0.12, "largest relative change of the amount of one stain")
    stain_shift: float = key(0.02, "largest added optical density per colour (tint, lamp)")
    colour_chance: float = key(0.1, "chance that a tile's three colours change places: other stains")
    sharpness_chance: float = key(0.15, "chance that a tile is made a little softer or sharper before it is reduced")
    sharpness: float = key(0.3, "largest share of that change")
    steps: int = key(20000, "optimizer steps of the whole run")
    warm_up: int = key(200, "steps of linear warm-up")
    rate: float = key(2e-3, "top learning rate of Adam; cosine down to rate_end")
    rate_end: float = key(2e-6, "last learning rate")
    squared_from: float = key(
        0.7, "share of the steps after which the loss is squared error (PSNR) in place of Charbonnier"
    )
    clip: float = key(1.0, "largest norm of the gradient")
    average: float = key(0.999, "decay of the moving average of the weights, which is what is validated and shipped")
    seed: int = key(20, "seed of weights, batches and augmentation")
    precision: str = key("auto", "auto (bf16 where the machine has it), bf16 or fp32")
    device: str = key("auto", "auto (GPU when there is one), cpu, cuda")
    threads: int = key(2, "CPU threads for the network")
    log_every: int = key(50, "steps between lines of the journal")
    validate_every: int = key(1000, "steps between validations")
    validation_tiles: int = key(8, "tiles of each validation slide")
    save_every: int = key(1000, "steps between saved states")
    publish: str = key(*PUBLISH)

    def __post_init__(self) -> None:
        if self.batch % self.per_tile:
            raise ValueError(f"batch {self.batch} is no multiple of per_tile {self.per_tile}")
        if set(self.test) & set(self.validation):
            raise ValueError("a slide is in both test and validation")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision {self.precision!r} is not auto, bf16 or fp32")
        if min(self.steps, self.log_every, self.validate_every, self.save_every) < 1:
            raise ValueError("steps and intervals are at least 1")


def make_sampler(config: Config) -> PairSampler:
    """Training pairs of every slide that is neither a test nor a validation slide."""
    slides = load_slides(Path(config.data), config.test + config.validation, config.scan_tiles, config.seed)
    patches = PatchConfig(
        config.batch,
        config.per_tile,
        config.side,
        config.store_chance,
        config.raw_chance,
        config.steps_chance,
        config.steps_high,
        config.quality_low,
    )
    augmentation = AugmentConfig(
        stain_chance=config.stain_chance,
        stain_gain=config.stain_gain,
        stain_shift=config.stain_shift,
        colour_chance=config.colour_chance,
        sharpness_chance=config.sharpness_chance,
        sharpness=config.sharpness,
    )
    return PairSampler(slides, patches, augmentation, config.seed)


def validation_pairs(config: Config) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """(stored, scanned) tiles of each validation slide."""
    return {slide: slide_pairs(Path(config.data), slide, config.validation_tiles) for slide in config.validation}


def loss_of(made: Tensor, base: Tensor, squared: bool) -> Tensor:
    """Charbonnier (Lai et al. 2017, eq. 5) or squared error of grey levels in units of 64."""
    error = (made - base) / GREY_UNIT
    if squared:
        return 4.0 * (error * error).mean()
    return (error * error + CHARBONNIER**2).sqrt().mean()


def as_input(rgb: np.ndarray, device: torch.device) -> Tensor:
    """N×H×W×3 uint8 array → N×3×H×W float tensor in channels-last memory on the device."""
    return torch.from_numpy(rgb).to(device, non_blocking=True).permute(0, 3, 1, 2).float()


def validate(
    config: Config, average: loop.Average, pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]], bf16: bool,
    device: torch.device, picture: Path,
) -> tuple[dict[str, float], np.ndarray]:  # fmt: skip
    """Gain over bicubic per slide with the averaged weights, run as the product runs them; saves one picture."""
    model = SrFast(SrFastConfig(config.channels, config.layers))
    model.load_state_dict(average.tensors)
    model = prepare(model, device, torch.bfloat16 if bf16 else torch.float32)
    bicubic = BicubicUpscaler(bicubic_card())

    def network(rgb: np.ndarray) -> np.ndarray:
        return upscale(model, torch.from_numpy(rgb[None]).to(device))[0].cpu().numpy()

    values: dict[str, float] = {}
    for slide, tiles in pairs.items():
        made, plain = score(network, tiles), score(bicubic, tiles)
        values |= _gains(slide, made, plain)
    stored, base = next(iter(pairs.values()))[0]
    shown = np.concatenate([bicubic(stored), network(stored), base], axis=1)
    Image.fromarray(shown).save(picture)
    return values, shown


def _gains(slide: str, made: Scores, plain: Scores) -> dict[str, float]:
    return {
        f"psnr/{slide}": round(made.psnr, 4),
        f"psnr_gain/{slide}": round(made.psnr - plain.psnr, 4),
        f"ssim_gain/{slide}": round(made.ssim - plain.ssim, 5),
    }


def start_model(config: Config, device: torch.device) -> nn.Module:
    """A fresh network from the seed, or one that computes what the network in the file `start` does."""
    torch.manual_seed(config.seed)
    model = SrFast(SrFastConfig(config.channels, config.layers))
    if config.start:
        model.load_state_dict(deeper(read_start(Path(config.start)), model))
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def read_start(file: Path) -> dict[str, Tensor]:
    """Tensors of a weights file; raises ModelUnavailableError when it cannot be read."""
    try:
        return safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelUnavailableError(f"The weights {file.name} cannot be read: {error}.") from error


def deeper(tensors: dict[str, Tensor], model: SrFast) -> dict[str, Tensor]:
    """State of `model` that computes what `tensors` of a network of fewer layers do (Chen et al. 2016, Net2Net, §3.2).

    What follows a ReLU is not negative, so an inner layer that is the identity changes nothing; the new ones come last.
    """
    state = dict(tensors)
    for number, layer in enumerate(model.inner):
        if f"inner.{number}.weight" not in state:
            state[f"inner.{number}.weight"] = nn.init.dirac_(torch.empty_like(layer.weight))  # type: ignore[arg-type]
            state[f"inner.{number}.bias"] = torch.zeros_like(layer.bias)  # type: ignore[arg-type]
    for name, tensor in model.state_dict().items():
        if name not in state or state[name].shape != tensor.shape:
            raise ValueError(f"the weights to start from do not fit: {name} must be {tuple(tensor.shape)}")
    return state


def train(config: Config, resume: bool, here: loop.Ranks) -> dict[str, Any]:
    """Run the steps, return the last journal values; on a CPU a resumed run equals an uninterrupted one bit for bit."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    folder = Path(config.run)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    device = loop.pick_device(config.device, here.local)
    bf16 = loop.pick_bf16(config.precision, device)
    sampler, pairs = make_sampler(config), validation_pairs(config)

    model = start_model(config, device)
    average = loop.Average(model, config.average)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, betas=ADAM_BETAS)
    start = 0
    if resume and (folder / loop.STATE_FILE).is_file():
        start, _, tensors = loop.read_state(folder)
        loop.restore(tensors, model, average, optimizer)
    if here.first:
        write_network_file(
            folder, config, "sr_fast", "sr-fast", {"channels": config.channels, "layers": config.layers}, ()
        )
    network = DistributedDataParallel(model) if here.world > 1 else model
    last: dict[str, Any] = {"parameters": parameter_count(model), "bf16": bf16}
    bar = tqdm(total=config.steps, initial=start, disable=not here.first, desc="sr-fast", unit="step", mininterval=5)

    with loop.Journal(folder, here.first) as journal, loop.stop_request() as stop, ThreadPoolExecutor(1) as pool, bar:
        journal.add(
            start,
            event="start",
            config=dataclasses.asdict(config),
            store=Compression().text,
            world=here.world,
            **last,
        )
        coming = pool.submit(sampler.batch, start * here.world + here.rank)
        clock, logged = time.perf_counter(), start
        for step in range(start, config.steps):
            stored, base = coming.result()
            coming = pool.submit(sampler.batch, (step + 1) * here.world + here.rank)
            rate = loop.cosine(step, config.steps, config.warm_up, config.rate, config.rate_end)
            for group in optimizer.param_groups:
                group["lr"] = rate

            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                made = network(as_input(stored, device))
            loss = loss_of(made, as_input(base, device), squared=step >= config.squared_from * config.steps)
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
                values, shown = validate(config, average, pairs, bf16, device, folder / "pictures" / f"{done:06d}.png")
                last |= values
                journal.add(done, **values)
                journal.picture(done, "bicubic, sr-fast, scan", shown)
            if here.first and (done % config.save_every == 0 or ended):
                loop.save_state(folder, done, dataclasses.asdict(config), model, average, optimizer)
            if stopping:
                break
    return last


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when the run ended, 2 with one sentence for a wrong configuration or missing data."""
    return command.run_script("sr_fast", Config, train, argv)


if __name__ == "__main__":
    sys.exit(main())
