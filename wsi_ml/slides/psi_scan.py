"""A `.psi` slide as a scan to ingest, with the interface of scan.Scan. Import this only inside the ingestion child."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from wsi_ml.geometry import Region
from wsi_ml.slides.colour import ToSrgb
from wsi_ml.slides.plan import ScanFacts
from wsi_ml.slides.psi import PsiFile

VENDOR = "psi"


class PsiScan:
    """An open `.psi` file; a context manager. Raises IngestError like PsiFile."""

    def __init__(self, path: Path):
        self.file = PsiFile(path)

    def __enter__(self) -> PsiScan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def facts(self) -> ScanFacts:
        """What the file says about itself; µm/px is 10 / magnification, None where the file knows no magnification."""
        facts = self.file.facts
        return ScanFacts(
            vendor=VENDOR,
            l0_size=facts.size,
            level_sizes=[self.file.size(layer) for layer in self.file.layers],
            level_downsamples=[float(layer) for layer in self.file.layers],
            l0_bounds=Region(0, 0, *facts.size),
            mpp=facts.mpp,
            objective_power=facts.magnification,
        )

    def colour(self) -> ToSrgb:
        """The format keeps no colour profile: its colours are taken as they are."""
        return ToSrgb(None)

    def read(self, level: int, level_region: Region) -> np.ndarray:
        """RGB uint8 of a region of one level (layer 2^level); beyond the edge its last row or column is repeated."""
        layer = self.file.layers[level]
        size = self.file.size(layer)
        x, y = min(level_region.x, size.width - 1), min(level_region.y, size.height - 1)
        width, height = min(level_region.x_end, size.width) - x, min(level_region.y_end, size.height) - y
        rgb = self.file.region(layer, Region(x, y, width, height))
        missing = (level_region.height - height, level_region.width - width)
        return np.pad(rgb, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge") if any(missing) else rgb

    def save_associated(self, folder: Path) -> list[str]:
        """The format has no label and no macro picture; nothing is written."""
        return []
