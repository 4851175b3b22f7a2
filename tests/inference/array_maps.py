"""Maps that lie in memory, for tests of what is drawn from maps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wsi_ml.geometry import Region, Size
from wsi_ml.inference.card import PredictorCard, PredictorClass


@dataclass
class ArrayMaps:
    """See `wsi_ml.inference.maps.Maps`; `asked` lists the boxes that were read."""

    told: np.ndarray
    stride: int = 1
    computed: np.ndarray | None = None
    asked: list[Region] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return self.told.shape[0]

    @property
    def size(self) -> Size:
        return Size(self.told.shape[2], self.told.shape[1])

    def region(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        self.asked.append(self._box(map_x, map_y, width, height))
        return self.told[:, map_y : map_y + height, map_x : map_x + width].copy()

    def covered(self, map_x: int, map_y: int, width: int, height: int) -> np.ndarray:
        self._box(map_x, map_y, width, height)
        computed = np.ones(self.told.shape[1:], bool) if self.computed is None else self.computed
        return computed[map_y : map_y + height, map_x : map_x + width]

    def _box(self, *box: int) -> Region:
        asked = Region(*box)
        assert asked.x >= 0 and asked.y >= 0 and asked.width > 0 and asked.height > 0
        assert asked.x_end <= self.size.width and asked.y_end <= self.size.height
        return asked


def card_of(
    kind: str, names: tuple[str, ...], background: tuple[str, ...] = (), **postprocess: object
) -> PredictorCard:
    """A card of a kind for 0.5 µm/px, whose map pixel is a stored pixel."""
    channels = ("interior", "boundary", *(names if len(names) > 1 else ())) if kind == "instance" else names
    classes = tuple(PredictorClass(name) for name in names)
    return PredictorCard("test", kind, classes, channels, 0.5, (0.4, 0.6), 64, 0, 1, "0" * 64, background, postprocess)
