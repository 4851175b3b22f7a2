"""A network as a predictor: windows in, probabilities out, on whatever the machine computes fastest."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsi_ml.errors import BadRequestError, ModelMemoryError, ModelOutputError, ModelUnavailableError
from wsi_ml.inference.adapters import adapted
from wsi_ml.inference.card import PredictorCard
from wsi_ml.inference.patch_network import PatchClasses
from wsi_ml.models import checkpoint
from wsi_ml.models.losses import IMAGENET_DEVIATION, IMAGENET_MEAN
from wsi_ml.sr.network import fastest_device, fastest_type

FULL = 255.0
GPU_CALLERS = 2
"""One batch is copied while the other is computed."""


class NetworkPredictor:
    """See `wsi_ml.inference.predictor.Predictor`; loads the weights once, checked against the card.

    Raises ModelUnavailableError for weights that are missing, damaged or do not fit, and for a GPU that is not there.
    """

    def __init__(self, card: PredictorCard, weights: Path, device: str = "auto", threads: int = 0):
        self.card = card
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ModelUnavailableError("This machine has no GPU that torch can use; take device `auto` or `cpu`.")
        self.device = fastest_device() if device == "auto" else torch.device(device)
        self.dtype = fastest_type(self.device)
        self.numbers = f"{self.device.type} {str(self.dtype).removeprefix('torch.')}"
        self._cores = threads or len(os.sched_getaffinity(0))
        self._threads_each = self._cores
        self._local = threading.local()
        about = card.about
        model = checkpoint.load(weights, card.sha256, about.get("architecture", ""), about.get("config", {}))
        model = adapted(model, card)
        self._imagenet = about.get("normalise") == "imagenet"
        self._softmax = about["activation"] == "softmax"
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def callers(self, batches: int) -> int:
        """See `wsi_ml.inference.predictor.Shared`.

        On a CPU a core each: teams of threads wait for each other at every layer, and lose most when the machine has
        other work too. Only a run of fewer batches than cores shares the cores among them.
        """
        if self.device.type != "cpu":
            return min(GPU_CALLERS, max(1, batches))
        count = max(1, min(self._cores, batches))
        self._threads_each = self._cores // count
        return count

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """N×side×side×3 uint8 → N×C×map_side×map_side uint8.

        Raises ModelOutputError for NaN, infinite or mis-shaped output, ModelMemoryError when one window is too much.
        """
        if self.device.type == "cpu":
            # OpenMP keeps the number for each calling thread.
            if torch.get_num_threads() != self._threads_each:
                torch.set_num_threads(self._threads_each)
            return self._run(torch.from_numpy(windows)).numpy()
        with torch.cuda.stream(self._stream()):
            return self._halving(torch.from_numpy(windows).pin_memory())

    def classify(self, patches: np.ndarray) -> np.ndarray:
        """N×P×P×3 uint8 → N×classes float32 probabilities of patches by themselves, without what lies around them.

        Raises BadRequestError for a predictor that tells only maps, ModelOutputError for NaN or infinite output.
        """
        if not isinstance(self.model, PatchClasses):
            raise BadRequestError(f"The model {self.card.name} tells maps of windows, not single patches.")
        with torch.inference_mode():
            rgb = self._rgb(torch.from_numpy(patches).to(self.device))
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits = self.model.classify(rgb).float()
            if not torch.isfinite(logits.sum()):
                raise ModelOutputError(f"The model {self.card.name} gave NaN or infinite values.")
            return (logits.softmax(dim=1) if self._softmax else logits.sigmoid()).cpu().numpy()

    def _halving(self, windows: Tensor) -> np.ndarray:
        """Run a batch on the GPU, in halves where it finds no memory for the whole."""
        try:
            return self._run(windows.to(self.device, non_blocking=True)).cpu().numpy()
        except torch.OutOfMemoryError as error:
            if len(windows) == 1:
                raise ModelMemoryError(f"The GPU has no memory for one window of {self.card.name}.") from error
        middle = len(windows) // 2
        return np.concatenate([self._halving(windows[:middle]), self._halving(windows[middle:])])

    def _run(self, windows: Tensor) -> Tensor:
        """N×S×S×3 uint8 → N×C×m×m uint8 on the same device."""
        with torch.inference_mode():
            rgb = self._rgb(windows)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits = self.model(rgb)
            logits = logits.float()
            self._check(logits, len(windows))
            probabilities = logits.softmax(dim=1) if self._softmax else logits.sigmoid()
            return probabilities.mul_(FULL).round_().to(torch.uint8).contiguous()

    def _rgb(self, windows: Tensor) -> Tensor:
        """N×S×S×3 uint8 → N×3×S×S float 0…1, or by ImageNet's mean and deviation where the card says so."""
        # A permuted view of N×S×S×3 is channels-last as it lies.
        rgb = windows.permute(0, 3, 1, 2).float().div_(FULL)
        if self._imagenet:
            for channel, (mean, deviation) in enumerate(zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)):
                rgb[:, channel].sub_(mean).div_(deviation)
        return rgb

    def _check(self, logits: Tensor, count: int) -> None:
        side = self.card.map_side
        expected = (count, len(self.card.channels), side, side)
        if tuple(logits.shape) != expected:
            raise ModelOutputError(
                f"The model {self.card.name} gave a map of shape {tuple(logits.shape)} in place of {expected}; "
                "its card and its network do not fit."
            )
        # A NaN or infinity makes the sum one, and one number is cheaper to look at than all.
        if not torch.isfinite(logits.sum()):
            raise ModelOutputError(f"The model {self.card.name} gave NaN or infinite values.")

    def _stream(self) -> torch.cuda.Stream:
        """The calling thread's own stream, so that two callers overlap copying and computing."""
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)
        return self._local.stream
