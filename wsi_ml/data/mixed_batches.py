"""Batches of two sources joined: pairs for super-resolution beside labelled patches, for the joint stage."""

from __future__ import annotations

from wsi_ml.data.batches import BatchSource, PatchBatch, joined
from wsi_ml.errors import BadRequestError


class MixedBatches:
    """Endless: rows of `pairs`, then rows of `labelled`, in the numbers the two give; classes are those of `labelled`.

    The labels of `pairs` are not used: its classes are another list. An epoch is that of the longer source.
    """

    def __init__(self, pairs: BatchSource, labelled: BatchSource):
        if not labelled.classes:
            raise BadRequestError("The second source of a mixed batch must have classes.")
        self.pairs, self.labelled = pairs, labelled
        self.classes = labelled.classes

    def batch(self, index: int) -> PatchBatch:
        """Batch `index` of both; raises ValueError where their sides differ."""
        first, second = self.pairs.batch(index), self.labelled.batch(index)
        if not self.pairs.classes or self.pairs.classes == self.classes:
            return joined([first, second])
        return joined([first._replace(labels=first.labels * 0 - 1), second])

    def __len__(self) -> int:
        return max(len(self.pairs), len(self.labelled))


def shares(batch: int, labelled_share: float) -> tuple[int, int]:
    """Rows of pairs and of labelled patches in a batch, at least one of each; raises BadRequestError where none fit."""
    if batch < 2 or not 0 < labelled_share < 1:
        raise BadRequestError("A mixed batch needs at least 2 rows and a labelled share between 0 and 1.")
    labelled = min(batch - 1, max(1, round(batch * labelled_share)))
    return batch - labelled, labelled
