"""A super-resolution network as an upscaler: array in, array out, on whatever the machine computes fastest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_ml.errors import ModelOutputError, ModelUnavailableError
from wsi_ml.models import checkpoint
from wsi_ml.models.rrdb import RrdbNet
from wsi_ml.models.sr_fast import SCALE, SrFast, interleave
from wsi_ml.models.srresnet import MsrResNet, SrResNet
from wsi_ml.sr.upscaler import UpscalerCard, refuse_one_colour


def fastest_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fastest_type(device: torch.device) -> torch.dtype:
    """bf16 where the machine multiplies it in hardware, else fp32: emulated bf16 is slower than fp32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def prepare(model: SrFast, device: torch.device, dtype: torch.dtype) -> SrFast:
    """The network ready to run: evaluation mode, channels last, layers in `dtype`, the picture's own way in fp32."""
    model = model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, layer in model.named_children():
        if name != "skip":
            layer.to(dtype)
    return model


def upscale(model: SrFast, rgb: Tensor) -> Tensor:
    """N×H×W×3 uint8 → N×2H×2W×3 uint8 on the model's device, rounded to nearest.

    Raises ModelOutputError when an output value is NaN or infinite.
    """
    with torch.inference_mode():
        phases = model.phases(rgb.permute(0, 3, 1, 2).float())
        # Rounding first makes the interleaving move a quarter of the bytes. A NaN or infinity makes the sum one.
        if not torch.isfinite(phases.sum()):
            raise ModelOutputError("The super-resolution network gave NaN or infinite pixels.")
        return interleave(phases.round().clamp_(0, 255).to(torch.uint8))


RgbNetwork = RrdbNet | SrResNet | MsrResNet
"""Networks that take and give RGB 0…1."""


def prepare_rgb(model: RgbNetwork, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A network of RGB 0…1 ready to run: evaluation mode, channels last, its body in `dtype`, the rest in fp32.

    The body is most of the work. What leads from pixels to pixels around it carries the picture itself: bf16 has eight
    bits and would put every pixel off by up to half a grey level at each layer.
    """
    model = model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype != torch.float32:
        first, last = model.body, model.body if isinstance(model, MsrResNet) else model.conv_body
        for part in {first, last}:
            part.to(dtype)
        first.register_forward_pre_hook(lambda _layer, given: (given[0].to(dtype),))
        last.register_forward_hook(lambda _layer, _given, made: made.float())
    return model


def upscale_rgb(model: nn.Module, rgb: Tensor) -> Tensor:
    """N×H×W×3 uint8 → N×2H×2W×3 uint8 by a network of RGB 0…1; a side that it cannot fold is padded by its border.

    Raises ModelOutputError when an output value is NaN or infinite.
    """
    height, width = rgb.shape[1:3]
    with torch.inference_mode():
        pixels = rgb.permute(0, 3, 1, 2).float().div_(255)
        fold = model.config.fold if isinstance(model, RrdbNet) else 1
        pixels = functional.pad(pixels, (0, -width % fold, 0, -height % fold), mode="replicate")
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        # Not the whole forward of `sr-joint`, which would classify as well.
        made = model.decode(model.encode(pixels)) if isinstance(model, RrdbNet) else model(pixels)
        made = made[:, :, : SCALE * height, : SCALE * width]
        if not torch.isfinite(made.sum()):
            raise ModelOutputError("The super-resolution network gave NaN or infinite pixels.")
        return made.mul(255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def make_ready(
    model: nn.Module, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]] | None:
    """The network prepared, and the function that runs it; None for one that does not enlarge ×2."""
    if isinstance(model, SrFast):
        return prepare(model, device, dtype), upscale  # type: ignore[return-value]
    if isinstance(model, RgbNetwork) and model.config.scale == SCALE:
        return prepare_rgb(model, device, dtype), upscale_rgb
    return None


class NetworkUpscaler:
    """See `wsi_ml.sr.upscaler.Upscaler`; loads the weights once, checked against the card."""

    def __init__(
        self,
        card: UpscalerCard,
        weights: Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.card = card
        self.weights = weights
        self.device = torch.device(device) if device else fastest_device()
        self.dtype = dtype or fastest_type(self.device)
        model = checkpoint.load(weights, card.sha256, card.architecture, card.config)
        ready = make_ready(model, self.device, self.dtype)
        if ready is None:
            raise ModelUnavailableError(
                f"The model {card.name} cannot be run as an upscaler: its network {card.architecture} does not "
                f"enlarge ×{SCALE}."
            )
        self.model, self._upscale = ready

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """RGB uint8 H×W×3 → 2H×2W×3; raises ModelOutputError for NaN, infinite or constant output."""
        return self._run(rgb[None])[0]

    def batch(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        """As the call; on a GPU pictures of one size go through together, on a CPU one by one (caches: faster)."""
        if self.device.type == "cpu":
            return [self(tile) for tile in tiles]
        done: dict[int, np.ndarray] = {}
        for shape in {tile.shape for tile in tiles}:
            numbers = [number for number, tile in enumerate(tiles) if tile.shape == shape]
            done |= dict(zip(numbers, self._run(np.stack([tiles[number] for number in numbers])), strict=True))
        return [done[number] for number in range(len(tiles))]

    def use_threads(self, count: int) -> None:
        """How many CPU threads work on the next calls from the calling thread (OpenMP keeps it for each thread)."""
        if self.device.type == "cpu" and torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def _run(self, rgb: np.ndarray) -> np.ndarray:
        """N×H×W×3 uint8 → N×2H×2W×3 uint8."""
        stored = torch.tensor(rgb) if not rgb.flags.writeable else torch.from_numpy(np.ascontiguousarray(rgb))
        pictures = self._upscale(self.model, stored.to(self.device)).cpu().numpy()
        for given, made in zip(rgb, pictures, strict=True):
            refuse_one_colour(given, made)
        return pictures
