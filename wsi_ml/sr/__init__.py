"""Super-resolution: the upscaler contract, bicubic, the networks and the engine that runs them."""

from wsi_ml.sr.upscaler import Upscaler, UpscalerCard, available_upscalers, open_upscaler

__all__ = ["Upscaler", "UpscalerCard", "available_upscalers", "open_upscaler"]
