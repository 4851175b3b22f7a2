"""Which pictures keep their pixel labels when only a share of them may (Ciga & Martel 2021; Zeng, Tang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from wsi_ml.errors import BadRequestError

Item = TypeVar("Item")


def labelled_part(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(items that keep their labels, the others): max(1, ⌊share·N⌋) of a fixed shuffle, so that shares are nested.

    A share of 0 keeps one, as the published program does. Raises BadRequestError for no items or a share beyond 0…1.
    """
    if not items or not 0 <= share <= 1:
        raise BadRequestError(f"A share from 0 to 1 of at least one picture is needed, not {share:g} of {len(items)}.")
    order = np.random.default_rng(seed).permutation(len(items))
    # 0.29 · 100 is 28.999…: what is meant are whole pictures.
    count = max(1, int(share * len(items) + 1e-9))
    chosen = set(order[:count].tolist())
    kept = [item for number, item in enumerate(items) if number in chosen]
    return kept, [item for number, item in enumerate(items) if number not in chosen]
