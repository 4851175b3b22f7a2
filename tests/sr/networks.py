"""Networks with random weights that give pictures worth looking at, written as cards and weights for the tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from wsi_ml.models import build
from wsi_ml.models.rrdb import RrdbNet
from wsi_ml.sr.upscaler import UpscalerCard

SMALL: dict[str, dict[str, Any]] = {
    "sr-fast": {"channels": 16, "layers": 2},
    "sr-joint": {"channels": 16, "growth": 8, "blocks": 2, "classes": 3},
    "sr-gan-generator": {"channels": 16, "growth": 8, "blocks": 2},
    "esrgan": {"channels": 16, "growth": 8, "blocks": 3},
    "rrdb-plain": {"channels": 16, "growth": 8},
    "srresnet": {"channels": 16, "blocks": 2},
    "msrresnet": {"channels": 16, "blocks": 2},
}
"""Every architecture that enlarges ×2, small."""


def tissue(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs and fine grain in H&E-like colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 3.1 + rng.random()) * np.cos(y / 2.7 + rng.random()) + np.sin((x + 2 * y) / 9.0)
    base = np.stack([190 + 25 * waves, 140 + 35 * waves, 190 + 15 * waves], axis=-1)
    return np.clip(base + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8)


def lively_network(architecture: str, config: dict[str, Any], seed: int = 0) -> nn.Module:
    """A random network whose pictures have tissue's contrast: at its own start its output is nearly one colour."""
    torch.manual_seed(seed)
    model = build(architecture, **config).eval()
    if architecture == "sr-fast":
        return model
    pixels = torch.from_numpy(tissue(48, 48)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        model.conv_last.weight.mul_(0.15 / picture_of(model, pixels).std())
        model.conv_last.bias.add_(0.6 - picture_of(model, pixels).mean())
    return model


def picture_of(model: nn.Module, pixels: Tensor) -> Tensor:
    """N×3×H×W RGB 0…1 (grey levels for sr-fast) → the enlarged picture, without what the network tells besides."""
    return model.decode(model.encode(pixels)) if isinstance(model, RrdbNet) else model(pixels)


def write_model(
    folder: Path,
    name: str,
    architecture: str = "sr-joint",
    config: dict[str, Any] | None = None,
    *,
    half: bool = False,
    **facts: Any,
) -> UpscalerCard:
    """Card and weights of a lively network in a folder; `facts` replace fields of the card."""
    config = SMALL[architecture] if config is None else config
    model = lively_network(architecture, config)
    tensors = {key: tensor.half() if half else tensor for key, tensor in model.state_dict().items()}
    data = safetensors.torch.save({key: tensor.contiguous() for key, tensor in tensors.items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.safetensors").write_bytes(data)
    card = UpscalerCard(
        **{
            "name": name,
            "kind": "sr",
            "scale": 2,
            "halo": 64,
            "multiple": 2,
            "mpp_range": (0.35, 0.65),
            "sha256": hashlib.sha256(data).hexdigest(),
            "parameters": sum(tensor.numel() for tensor in model.parameters()),
            "architecture": architecture,
            "config": config,
            "weights": f"{name}.safetensors",
            **facts,
        }
    )
    (folder / f"{name}.json").write_text(json.dumps(card.to_json()))
    return card
