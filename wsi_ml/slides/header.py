"""Vetting of a file's header from its bytes alone, before any decoder sees it."""

from __future__ import annotations

from pathlib import Path


def vet(path: Path) -> None:
    """Refuse what must not reach OpenSlide."""
