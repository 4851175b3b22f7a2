"""What every training reads: batches of patches, addressed by number, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from wsi_ml.errors import BadRequestError

NO_CLASS = -1


class PatchBatch(NamedTuple):
    """Patches of one step; rows without a ×40 picture or without a class say so and take no part in that loss."""

    stored: np.ndarray
    """uint8 N×S×S×3, RGB at ×20 as the store keeps it."""
    base: np.ndarray
    """uint8 N×2S×2S×3, RGB at ×40 of the same places; black where there is none."""
    has_base: np.ndarray
    """bool N."""
    labels: np.ndarray
    """int64 N: place in the source's `classes`, −1 for a patch without a class."""


class Rows(Protocol):
    """A batch of any kind: a named tuple of arrays whose first axis is the rows."""

    def _asdict(self) -> dict[str, Any]:
        """The arrays by name."""
        ...


class RowSource(Protocol):
    """Batches of any kind by number: batch `index` depends on the source's seed and on `index` alone."""

    def batch(self, index: int) -> Rows:
        """Batch `index`, the same at every call, in every process."""
        ...

    def __len__(self) -> int:
        """Batches an epoch."""
        ...


class BatchSource(Protocol):
    """Batches by number: batch `index` depends on the source's seed and on `index` alone.

    An endless source answers for every index from 0 on; its length only says what an epoch is.
    """

    classes: tuple[str, ...]
    """Names of the classes in the order of the labels; () for a source without classes."""

    def batch(self, index: int) -> PatchBatch:
        """Batch `index`, the same at every call, in every process."""
        ...

    def __len__(self) -> int:
        """Batches an epoch."""
        ...


class FiniteSource(BatchSource, Protocol):
    """A source that ends: every patch once, in a fixed order, unchanged; the last batch may be shorter.

    `batch` raises IndexError from `len(source)` on.
    """

    def slides_of(self, index: int) -> tuple[str, ...]:
        """Name of the slide each row of batch `index` comes from."""
        ...


def make_batch(
    stored: Sequence[np.ndarray], base: Sequence[np.ndarray | None], labels: Sequence[int]
) -> PatchBatch:  # fmt: skip
    """A batch of single patches; None in `base` for a patch that has no ×40 picture.

    Raises BadRequestError where a ×40 picture has not twice the side of its ×20 picture.
    """
    small = np.stack(stored)
    count, height, width, _ = small.shape
    large = np.zeros((count, 2 * height, 2 * width, 3), np.uint8)
    for row, picture in enumerate(base):
        if picture is not None:
            if picture.shape != large.shape[1:]:
                raise BadRequestError(
                    f"A ×40 patch of {picture.shape[1]} × {picture.shape[0]} px does not belong to a ×20 patch of "
                    f"{width} × {height} px; it must have twice the side."
                )
            large[row] = picture
    has_base = np.array([picture is not None for picture in base], bool)
    return PatchBatch(small, large, has_base, np.asarray(labels, np.int64))


def joined(batches: Sequence[PatchBatch]) -> PatchBatch:
    """Batches of the same side, one after the other, as one batch."""
    return PatchBatch(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def batches_an_epoch(patches: float, size: int, most: int | None = None) -> int:
    """Whole batches of `size` in so many patches: at least one, at most `most`."""
    whole = max(1, int(patches // size))
    return whole if most is None else min(whole, most)


def slice_of(index: int, size: int, count: int) -> range:
    """Rows of batch `index` of a finite source of `count` rows; raises IndexError beyond its end."""
    if not 0 <= index * size < count:
        raise IndexError(f"There is no batch {index} of {size} in {count} patches.")
    return range(index * size, min(count, (index + 1) * size))
