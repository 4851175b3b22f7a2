"""Progress of an ingestion on standard error: one bar a phase, with sizes, µm/px, MB/s and the time left."""

from __future__ import annotations

import sys

from tqdm import tqdm

from wsi_ml.slides.ingest import Progress

WORDS = {
    "draw": "drawing",
    "hash": "reading",
    "convert": "converting",
    "verify": "verifying",
    "keep": "comparing",
}
"""Phases that take long enough for a bar; the others pass in a blink."""


class ProgressBar:
    """Callback for `ingest`: draws bars for people; where standard error is no terminal, prints one line a phase."""

    def __init__(self) -> None:
        self._phase = ""
        self._bar: tqdm | None = None

    def __call__(self, progress: Progress) -> None:
        """Show one step."""
        if progress.phase != self._phase:
            self._start(progress)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{progress.mb_per_s:.0f} MB/s", refresh=False)
            self._bar.update(progress.done - self._bar.n)

    def _start(self, progress: Progress) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._phase = progress.phase
        if progress.message:
            tqdm.write(f"  {progress.message}", file=sys.stderr)
        if progress.phase in WORDS and sys.stderr.isatty():
            form = "  {desc:<10} {percentage:3.0f}% |{bar:30}| {elapsed} elapsed, {remaining} left, {postfix}"
            self._bar = tqdm(
                initial=progress.done,
                total=progress.total,
                desc=WORDS[progress.phase],
                bar_format=form,
                file=sys.stderr,
            )
