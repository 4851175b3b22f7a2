"""Slides: ingestion, the stored pyramid, the library, tiles; `open_slide` reads regions of any of them."""

from wsi_ml.slides.reading import LibrarySlide, SlideReader, open_slide

__all__ = ["LibrarySlide", "SlideReader", "open_slide"]
