"""`ocular predict`: a model over one slide or many, with progress, to a table of slides, layers and counts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app.commands import exit_code, library_of, say, slide_id_of
from wsi_ml.errors import BadRequestError
from wsi_ml.inference.cohort import CohortResult, predict_cohort
from wsi_ml.inference.predicting import PredictRequest
from wsi_ml.layers.layer import BaseBox
from wsi_ml.slides.library import Library

WORDS = {"windows": "computing", "blocks": "drawing"}


def run_predict(options: argparse.Namespace) -> int:
    """`ocular predict`: every slide is tried; the exit code is that of the last failure."""
    library = library_of(options)
    model = Path(options.model) if options.model.endswith(".json") else options.model
    choices: dict[str, Any] = {
        "region": region_of(options.region), "parameters": parameters_of(options.set), "name": options.name,
    }  # fmt: skip
    slides = [library.slide(slide_id_of(library, word)) for word in options.ids]
    requests = [PredictRequest(slide.id, model, slide.current, **choices) for slide in slides]
    names = {slide.id: slide.name for slide in slides}
    with CohortBars(names) as bars:
        results = predict_cohort(library.root, requests, engine=options.engine, progress=bars)
    for result in results:
        if result.error is not None:
            tqdm.write(f"ocular: {names[result.request.slide_id]}: {result.error}", file=sys.stderr)
    facts = [_facts(library, names, result) for result in results]
    say(options, {"predictions": facts}, table(facts))
    return next((exit_code(result.error) for result in reversed(results) if result.error is not None), 0)


def region_of(text: str | None) -> BaseBox | None:
    """A box of `x0,y0,x1,y1`; raises BadRequestError."""
    if text is None:
        return None
    try:
        return BaseBox(*(float(each) for each in text.split(",")))
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"--region is x0,y0,x1,y1 in pixels of the ×40 plane, not {text!r}.") from error


def parameters_of(pairs: list[str]) -> dict[str, str]:
    """Parameters of `key=value` words; raises BadRequestError for anything else and for a key given twice."""
    parameters: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key in parameters:
            raise BadRequestError(f"--set takes key=value, each key once, not {pair!r}.")
        parameters[key] = value
    return parameters


def table(facts: list[dict[str, Any]]) -> str:
    """Slides, layers and counts for people: a line for each class of each slide."""
    rows = [("slide", "name", "layer", "class", "features", "area mm²")]
    for each in facts:
        if each["layer"] is None:
            rows.append((each["slide"], each["name"], "–", each["error"]["code"], "–", "–"))
            continue
        for number, told in enumerate(each["layer"]["classes"]):
            head = ("", "", "") if number else (each["slide"], each["name"], each["layer"]["id"])
            rows.append((*head, told["name"], f"{told['count']:,}", f"{told['area_um2'] / 1e6:.3f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    """Words to the left, the two numbers to the right."""
    cells = [word.ljust(width) for word, width in zip(row[:4], widths, strict=False)]
    cells += [word.rjust(width) for word, width in zip(row[4:], widths[4:], strict=True)]
    return "  ".join(cells).rstrip()


def _facts(library: Library, names: dict[str, str], result: CohortResult) -> dict[str, Any]:
    request, layer, error = result.request, result.layer, result.error
    mpp = library.card(request.slide_id, request.version).base_mpp
    return {
        "slide": request.slide_id,
        "name": names[request.slide_id],
        "layer": None if layer is None else layer.to_json(mpp),
        "error": None if error is None else {"code": error.code, "detail": str(error)},
    }


class CohortBars:
    """Progress of a cohort on standard error: a bar for each slide at work; where that is no terminal, lines."""

    def __init__(self, names: dict[str, str]):
        self._names = names
        self._bars: dict[tuple[str, str], tqdm | None] = {}

    def __enter__(self) -> CohortBars:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            if bar is not None:
                bar.close()

    def __call__(self, request: PredictRequest, done: int, total: int, unit: str) -> None:
        """Show one step."""
        key = (request.slide_id, unit)
        if key not in self._bars:
            self._bars[key] = self._start(f"{self._names[request.slide_id]}: {WORDS[unit]}", done, total, unit)
        bar = self._bars[key]
        if bar is not None:
            bar.update(done - bar.n)
            if done == total:
                bar.close()

    def _start(self, words: str, done: int, total: int, unit: str) -> tqdm | None:
        if not sys.stderr.isatty():
            so_far = f", {done:,} of them there" if done else ""
            tqdm.write(f"  {words} {total:,} {unit}{so_far}", file=sys.stderr)
            return None
        return tqdm(total=total, initial=done, desc=f"  {words}", unit=f" {unit}", leave=False, file=sys.stderr)
