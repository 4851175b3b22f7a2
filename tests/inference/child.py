"""A prediction in a process of its own, for tests that kill it or race it: `… ROOT SLIDE SECONDS` prints its progress.

Every batch takes SECONDS at least; the last line is the layer's id.
"""

from __future__ import annotations

import functools
import sys

from tests.inference.fakes import open_fake
from wsi_ml.inference.predicting import PredictRequest, predict


def main(root: str, slide_id: str, seconds: str) -> None:
    layer = predict(
        root,
        PredictRequest(slide_id, "blur", parameters={"batch": 2}),
        progress=lambda done, total, unit: print(unit, done, flush=True),
        opener=functools.partial(open_fake, seconds=float(seconds)),
    )
    print(layer.id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
