"""How a network of some architecture becomes the map of a window; the one place that knows which needs what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from wsi_ml.inference.blended_map import BlendedMap
from wsi_ml.inference.card import PredictorCard
from wsi_ml.inference.cerberus_maps import CerberusMaps
from wsi_ml.inference.patch_network import PatchClasses, WholePatches

Adapter = Callable[[Any, PredictorCard], nn.Module]
"""A network and its card → a module N×3×side×side RGB → N×channels×map_side×map_side logits; raises
ModelUnavailableError for a card that does not fit the network."""

ADAPTERS: dict[str, Adapter] = {
    "cerberus": CerberusMaps,
    "sr-joint": PatchClasses,
    "resnet50": WholePatches,
    "densenet121": WholePatches,
    "efficientnet": WholePatches,
    "mobilenet": WholePatches,
    "esp-psp": BlendedMap,
    "resnet18-multitask": BlendedMap,
}
"""Architectures whose networks give no map of a window by themselves; the others (`nuclei-unet`) need no adapter."""


def adapted(network: nn.Module, card: PredictorCard) -> nn.Module:
    """The network as a map of windows of the card."""
    adapter = ADAPTERS.get(card.about.get("architecture", ""))
    return network if adapter is None else adapter(network, card)
