"""A source of batches as a PyTorch data set, and the loader that reads it ahead in several processes."""

from __future__ import annotations

import signal

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsi_ml.data.batches import RowSource


class BatchDataset(Dataset[dict[str, Tensor]]):
    """Map-style: item `index` is batch `index` as tensors under the names of the batch's arrays.

    Pictures stay uint8 N×H×W×3: a quarter of the bytes to hand over, and the accelerator converts faster.
    """

    def __init__(self, source: RowSource):
        self.source = source

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        batch = self.source.batch(index)
        return {name: torch.from_numpy(values) for name, values in batch._asdict().items()}

    def __len__(self) -> int:
        return len(self.source)


def batch_loader(
    source: RowSource, indexes: range, workers: int = 0, *, pin: bool = False, ahead: int = 2
) -> DataLoader[dict[str, Tensor]]:
    """Batches `indexes` in order, made in `workers` processes (0: in this one), each `ahead` batches ahead.

    For rank r of w from step s on, `indexes` is range(s * w + r, steps * w, w): no rank, worker or resumed run
    repeats or loses a batch, whatever their number. `pin` puts the tensors into page-locked memory.
    """
    if workers:
        # OpenCV's threads do not survive a fork, and a worker that waits for them waits for ever. From here on OpenCV
        # works in the calling thread, in this process and in the workers.
        cv2.setNumThreads(1)
    return DataLoader(
        BatchDataset(source),
        batch_size=None,
        sampler=indexes,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=ahead if workers else None,
        # Forked, so that a source that holds its tiles in memory shares them; sources open their files anew in each.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_start_worker if workers else None,
    )


def _start_worker(_: int) -> None:
    """A signal for the whole group is the training's to answer, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
