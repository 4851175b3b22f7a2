"""Hand-outlined nuclei as pictures of paper C's task, laid over drawn tissue in drawn stains anew at every look.

Most of the hand-outlined pictures show haematoxylin alone; a network that learns them as they are knows no eosin. See
`nuclei_stain` for what is drawn, `nuclei_batches` for the chances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_ml.data.nuclei import HAND_SET, DrawnPart, draw_parts, read_hand_set
from wsi_ml.data.nuclei_batches import NucleiBatchConfig, NucleiSampler
from wsi_ml.data.task_pictures import Square, TaskPicture
from wsi_ml.errors import BadRequestError


@dataclass(frozen=True)
class StainedPicture(TaskPicture):
    """A hand-outlined picture at its own scale that shows itself in another stain at every look."""

    sampler: NucleiSampler | None = None
    number: int = 0
    """Place among the sampler's hand-outlined pictures."""

    def square(self, side: int, rng: np.random.Generator, vary: bool = True) -> Square:
        """The picture restained, or, by the sampler's chances, a drawn scene or tissue without nuclei.

        `side` is the sampler's; there is no look without variation, or BadRequestError.
        """
        if self.sampler is None or side != self.sampler.config.side or not vary:
            raise BadRequestError(f"The picture {self.name} is shown varied and in its sampler's size only.")
        rgb, labels = self.sampler.sample(rng, self.number)
        return Square(rgb, labels, np.zeros(labels.shape, np.uint8))


def stained_pictures(
    data_root: Path, held_out: Sequence[str], side: int, seed: int, scenes: int, scene_parts: int
) -> list[TaskPicture]:
    """The pictures of DSB 2018 that are not held out, over `scene_parts` parts of each of `scenes` drawn scenes.

    Crowded and pink ones have larger weights. Raises FileNotFoundError when the set is not there.
    """
    hand = [picture for name, picture in read_hand_set(data_root).items() if name not in held_out]
    drawn: list[DrawnPart] = [part for scene in range(scenes) for part in draw_parts(seed + scene, scene_parts)]
    sampler = NucleiSampler(hand, drawn, NucleiBatchConfig(batch=1, side=side), seed)
    if not sampler.hand:
        raise BadRequestError(f"Nothing of {HAND_SET} is left to train on: all of it is held out.")
    weights = (sampler.chances * len(sampler.hand)).tolist()
    return [
        StainedPicture(picture.name, picture.rgb, picture.labels, None, weight, sampler, number)
        for number, (picture, weight) in enumerate(zip(sampler.hand, weights, strict=True))
    ]
