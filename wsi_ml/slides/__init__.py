"""Slides: ingestion, the stored pyramid, the library, tiles."""
