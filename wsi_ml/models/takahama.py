"""`takahama`: the networks of paper D as one, with what must be known to run them on a slide (Takahama et al. 2019).

An extractor tells each patch alone; with a segmentation network, features of all patches of a slide make a map on
which each patch is told from its surroundings. The parts are those of `googlenet.py` and `feature_unet.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from wsi_ml.errors import BadRequestError
from wsi_ml.models.feature_unet import TakahamaUnet, TakahamaUnetConfig
from wsi_ml.models.googlenet import TakahamaExtractor, TakahamaExtractorConfig

TUMOUR = 1
FEATURES_OF = ("layer", "trunk")


@dataclass(frozen=True)
class TakahamaConfig:
    """Both networks and how a slide is cut for them."""

    extractor: Mapping[str, Any] = field(default_factory=lambda: {"classes": 0})
    """Fields of TakahamaExtractorConfig."""
    segmentation: Mapping[str, Any] | None = field(default_factory=dict)
    """Fields of TakahamaUnetConfig; None: the extractor's own classes are told."""
    features_of: str = "layer"
    """What of the extractor lies on the map: its last `layer` or the `trunk` (1024 averages)."""
    crop: int = 224
    """Side of the square in the middle of a patch that the extractor sees."""
    map_side: int = 32
    """Side of a map in patches."""
    maps_of: str = "lump"
    """A map shows a `slide` or a `lump` of tissue."""
    tissue: str = "saturation"
    """How tissue is found; see `wsi_ml.data.patch_truth.tissue_shares`."""
    tissue_share: float = 0.8
    """Share of a patch that must be tissue, strictly."""


class Takahama(nn.Module):
    """Extractor of patches and U-Net on the map of their features: classes of patches told from the whole slide."""

    def __init__(self, config: TakahamaConfig | None = None):
        super().__init__()
        self.config = config or TakahamaConfig()
        if self.config.features_of not in FEATURES_OF:
            raise BadRequestError(f"Features are of the {' or the '.join(FEATURES_OF)}, not {self.config.features_of}.")
        self.extractor = TakahamaExtractor(TakahamaExtractorConfig(**self.config.extractor))
        given = self.config.segmentation
        self.segmentation = None if given is None else TakahamaUnet(TakahamaUnetConfig(**given))
        taken = None if self.segmentation is None else self.segmentation.config.features
        if taken not in (None, self.features):
            raise BadRequestError(f"The segmentation takes {taken} features, the extractor gives {self.features}.")
        if self.segmentation is None and self.extractor.fc is None:
            raise BadRequestError("Without a segmentation network the extractor must tell classes.")

    @property
    def features(self) -> int:
        """How many features a patch has."""
        trunk = self.config.features_of == "trunk"
        return self.extractor.features.in_features if trunk else self.extractor.config.features

    def extract(self, rgb: Tensor) -> Tensor:
        """N×3×crop×crop → N×features."""
        return self.extractor.trunk(rgb) if self.config.features_of == "trunk" else self.extractor.extract(rgb)

    def tell(self, rgb: Tensor) -> Tensor:
        """N×3×crop×crop → N probabilities of tumour by the extractor alone."""
        return self.extractor(rgb).softmax(1)[:, TUMOUR]

    def forward(self, maps: Tensor) -> Tensor:
        """N×features×side×side maps of a slide's patches → N×side×side probabilities of tumour."""
        if self.segmentation is None:
            raise BadRequestError("This network has no segmentation: it tells patches alone.")
        return self.segmentation(maps).softmax(1)[:, TUMOUR]
