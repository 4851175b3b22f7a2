"""What each command of `ocular` does: call, print. Facts go to standard output, progress and errors to the other."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from app import faithful
from app.demo import REAL_NAME, add_prediction, add_real_slide, make_demo, order_prediction, predict_now
from app.progress import ProgressBar
from app.settings import Settings, SettingsError, load
from wsi_ml import errors
from wsi_ml.formats.reading import READERS
from wsi_ml.inference.card import PredictorCard
from wsi_ml.inference.predicting import model_folders
from wsi_ml.inference.predictor import available_predictors, card_faults
from wsi_ml.jobs.queue import JobQueue
from wsi_ml.layers.exporting import export_layer
from wsi_ml.layers.importing import import_layer
from wsi_ml.layers.store import LayerStore
from wsi_ml.licences import card_facts
from wsi_ml.slides.card import Card
from wsi_ml.slides.ingest import IngestResult, ingest
from wsi_ml.slides.library import Library
from wsi_ml.slides.verify import verify
from wsi_ml.sr.keeping import check_floor, keep_tiles
from wsi_ml.sr.upscaler import UpscalerCard, available_upscalers

READABLE = ", ".join(reader.title for reader in READERS)
EXIT_CODES: dict[type[BaseException], int] = {
    errors.IngestError: 3,
    errors.AnnotationFileError: 3,
    errors.NotPredictableError: 3,
    errors.NotFoundError: 4,
    errors.RemovedError: 4,
    errors.DamagedError: 5,
    errors.DiskFullError: 6,
    SettingsError: 2,
}
"""Exit code of each kind of failure; any other named error is 1."""


def exit_code(error: BaseException) -> int:
    """Exit code for a named error."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), 1)


def settings_of(options: argparse.Namespace) -> Settings:
    """Settings for this command: its flags over the environment over the file."""
    names = ("library", "host", "port", "workers")
    return load({name: getattr(options, name, None) for name in names}, getattr(options, "config", None))


def library_of(options: argparse.Namespace) -> Library:
    """The library a command works on; raises LibraryError when there is none."""
    return Library(settings_of(options).library)


def slide_id_of(library: Library, word: str) -> str:
    """Slide id for an id or a name; raises UnknownSlideError or RemovedError."""
    named = library.slide_by_name(word)
    return named.id if named else library.slide(word).id


def say(options: argparse.Namespace, facts: Any, text: str) -> None:
    """Print facts as one JSON object, or as text."""
    print(json.dumps(facts, ensure_ascii=False, indent=None) if options.json else text)


def run_serve(options: argparse.Namespace) -> None:
    """`ocular serve`."""
    serve(settings_of(options))


def serve(settings: Settings) -> None:
    """Serve until stopped; raises SettingsError where the web server is not installed."""
    try:
        from app import server  # the web server is an extra: the other commands work without it
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error.name} is not installed; pip install 'ocular-wsi[serve]' brings it") from error
    server.serve(settings)


def run_demo(options: argparse.Namespace) -> None:
    """`ocular demo`."""
    settings = load(
        {
            "library": options.library or Path("demo-library"),
            **{name: getattr(options, name) for name in ("host", "port", "workers")},
        },
        options.config,
    )
    say_line = functools.partial(print, file=sys.stderr, flush=True)
    if options.no_serve or not add_real_slide(settings.library, progress=ProgressBar(), say=say_line):
        add = order_prediction if options.beside_a_server else predict_now
        make_demo(settings.library, progress=ProgressBar(), say=say_line, add=add)
    if not options.no_serve:
        add_prediction(settings.library, REAL_NAME, say=say_line, add=order_prediction)
        with drawing_beside(settings.library):
            serve(settings)


@contextlib.contextmanager
def drawing_beside(library_root: Path) -> Iterator[None]:
    """Complete the demo library in a process of its own while the block serves what is there already.

    Drawing the synthetic slide takes longer than anybody should wait for the first pixels.
    """
    command = [sys.executable, "-m", "app.cli", "demo", "--no-serve", "--beside-a-server"]
    command += ["--library", str(library_root)]
    child = subprocess.Popen(["nice", "-n", "10", *command], stdout=sys.stderr)
    try:
        yield
    finally:
        child.terminate()
        child.wait()


def run_ingest(options: argparse.Namespace) -> int:
    """`ocular ingest`: every file is tried; the exit code is that of the last failure."""
    if options.floor is not None:
        check_floor(options.floor)
    library = Library.create(settings_of(options).library)
    if options.name and len(options.files) > 1:
        raise errors.BadRequestError("--name names one slide; give one FILE with it.")
    code, results = 0, []
    for path in options.files:
        try:
            result = ingest(path, library.root, mpp=options.mpp, name=options.name, progress=ProgressBar())
        except errors.OcularError as error:
            print(f"ocular: {error}", file=sys.stderr)
            code = exit_code(error)
            results.append({"file": path.name, "error": {"code": error.code, "detail": str(error)}})
            continue
        results.append({"file": path.name, "id": result.slide_id, "version": result.version, "new": result.created,
                        "card": result.card.to_json()})  # fmt: skip
        if not options.json:
            print(f"{result.slide_id}  {'ingested' if result.created else 'already there, no work done'}")
            print(card_text(result.card))
        if options.floor is not None:
            try:
                results[-1]["faithful"] = keep(options, path, library, result)
            except errors.OcularError as error:
                print(f"ocular: {error}", file=sys.stderr)
                code = exit_code(error)
                results[-1]["error"] = {"code": error.code, "detail": str(error)}
    if options.json:
        print(json.dumps({"slides": results}, ensure_ascii=False))
    return code


def keep(options: argparse.Namespace, path: Path, library: Library, ingested: IngestResult) -> dict[str, Any]:
    """The second half of `ocular ingest --floor`: compare the slide, which is there by now, with the scan."""
    floor, bar = options.floor, ProgressBar()
    kept = keep_tiles(path, library, ingested.slide_id, ingested.version, floor, progress=bar)
    facts = faithful.kept_json(kept.facts, kept.created)
    if not options.json:
        print(faithful.faithful_text(facts).removeprefix("\n"))
        if not kept.created:
            print("  already compared with this floor and model, no work done")
    return facts


def card_text(card: Card) -> str:
    """A card for people."""
    stored, base, source = card.stored_size, card.base_size, card.source
    return (
        f"  version {card.version}\n"
        f"  stored  {stored.width} × {stored.height} px at {card.stored_mpp:.4g} µm/px, {len(card.levels)} levels\n"
        f"  ×40     {base.width} × {base.height} px at {card.base_mpp:.4g} µm/px\n"
        f"  source  {source.vendor}, {source.l0_size.width} × {source.l0_size.height} px at {source.l0_mpp:.4g} µm/px"
        f"{' (given)' if source.mpp_given else ''}\n"
        f"  pixels  kernel {card.kernel}, {card.encoding}, "
        f"colour profile {card.icc}\n"
        f"  size    {card.pyramid_bytes / 1e6:.1f} MB stored, {source.bytes / 1e6:.1f} MB in the source"
        f" ({card.pyramid_bytes / source.bytes:.0%})"
    )


def run_slides(options: argparse.Namespace) -> None:
    """`ocular slides`."""
    library = library_of(options)
    facts, lines = [], []
    for slide in library.slides():
        card = library.card(slide.id)
        facts.append({"id": slide.id, "name": slide.name, "version": slide.current, "created": slide.created,
                      "base_size": list(card.base_size), "stored_mpp": card.stored_mpp})  # fmt: skip
        lines.append(
            f"{slide.id}  {card.base_size.width:>7} × {card.base_size.height:<7} "
            f"{card.stored_mpp:.4g} µm/px  {slide.name}"
        )
    say(options, {"slides": facts}, "\n".join(lines) or "The library is empty; `ocular ingest FILE` fills it.")


def run_show(options: argparse.Namespace) -> None:
    """`ocular show`."""
    library = library_of(options)
    slide = library.slide(slide_id_of(library, options.id))
    card = library.card(slide.id)
    kept = faithful.faithful_json(library, slide.current)
    facts = {"id": slide.id, "name": slide.name, "versions": library.versions(slide.id), "card": card.to_json(),
             "faithful": kept, "layers": LayerStore(library.root).layers_json(slide.id, card)}  # fmt: skip
    say(options, facts, f"{slide.id}  {slide.name}\n{card_text(card)}{faithful.faithful_text(kept)}")


def run_remove(options: argparse.Namespace) -> None:
    """`ocular remove`: the slide's pixels go; its layers stay in the database, for work is never thrown away."""
    library = library_of(options)
    slide = library.slide(slide_id_of(library, options.id))
    versions, kept = library.versions(slide.id), len(LayerStore(library.root).layers(slide.id))
    library.remove(slide.id)
    text = f"Removed {slide.name} ({slide.id}), {len(versions)} version(s); {kept} layer(s) are kept in the database."
    say(options, {"id": slide.id, "removed": versions, "layers_kept": kept}, text)


def run_verify(options: argparse.Namespace) -> int:
    """`ocular verify`: exit code 5 when anything is damaged."""
    library = library_of(options)
    report = verify(library, slide_id_of(library, options.id) if options.id else None)
    faults = [*report.faults, *LayerStore(library.root).check(slide_id_of(library, options.id) if options.id else None)]
    faults += [] if options.id else JobQueue(library.root).check()
    text = "\n".join(faults) or f"All well: {report.versions} version(s), {report.tiles} tiles checked."
    say(options, {"ok": not faults, "versions": report.versions, "tiles": report.tiles, "faults": faults}, text)
    return EXIT_CODES[errors.DamagedError] if faults else 0


def run_layers(options: argparse.Namespace) -> None:
    """`ocular layers`."""
    library = library_of(options)
    slide_id = slide_id_of(library, options.id)
    layers = LayerStore(library.root).layers_json(slide_id, library.card(slide_id))
    lines = [f"{each['id']}  {each['kind']:<10} {each['count']:>8} features  {each['name']}" for each in layers]
    say(options, {"layers": layers}, "\n".join(lines) or "This slide has no layers; `ocular import` adds one.")


def run_import(options: argparse.Namespace) -> None:
    """`ocular import`."""
    library = library_of(options)
    slide_id = slide_id_of(library, options.id)
    layer, report = import_layer(
        library.root,
        slide_id,
        options.file,
        kind=options.kind,
        name=options.name,
        plane=options.plane,
        repair=options.repair,
    )
    base_mpp = library.card(slide_id).base_mpp
    say(options, {"layer": layer.to_json(base_mpp), "report": report.to_json()}, "\n".join([layer.id, *report.lines()]))


def run_export(options: argparse.Namespace) -> None:
    """`ocular export`: to a file in one step, or to standard output; the loss report goes to standard error."""
    library = library_of(options)
    if options.min_score is not None and not 0 <= options.min_score <= 1:
        raise errors.BadRequestError("--min-score is a number from 0 to 1.")
    export = export_layer(library.root, slide_id_of(library, options.id), options.layer, options.format,
                          plane=options.plane, classes=options.classes, min_score=options.min_score)  # fmt: skip
    if options.output is None:
        for chunk in export.chunks:
            sys.stdout.buffer.write(chunk)
    else:
        write_whole(options.output, export.chunks)
    facts = {"report": export.report.to_json()}
    if options.output is None or not options.json:
        print(json.dumps(facts) if options.json else "\n".join(export.report.lines()), file=sys.stderr)
    if options.output is not None:
        facts = {"file": options.output.name, "bytes": options.output.stat().st_size, **facts}
        say(options, facts, f"Wrote {options.output.name}.")


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file whole or not at all; raises DiskFullError."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise errors.DiskFullError(f"{path.name} cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def run_models(options: argparse.Namespace) -> None:
    """`ocular models`."""
    if options.architectures:
        from wsi_ml.models import architectures  # imports torch, which no other command of the web needs

        facts: list[dict[str, Any]] = architectures()
        lines = [f"{each['name']:<18} {each['parameters']:>12,} parameters  {each['about']}" for each in facts]
        say(options, {"architectures": facts}, "\n".join(lines))
        return
    folders = model_folders(settings_of(options).library)
    cards, predictors = available_upscalers(folders), available_predictors(folders)
    lines = [_model_line(card, card.parameters, f"×{card.scale}") for card in cards]
    lines += [_model_line(card, card.about.get("parameters", 0), ", ".join(card.drawn)) for card in predictors]
    faults = card_faults(folders)
    for fault in faults:
        print(f"ocular: not offered: {fault}", file=sys.stderr)
    values = [card.to_json() for card in cards] + [card.to_json() for card in predictors]
    values = [{**value, **card_facts(value)} for value in values]
    say(options, {"models": values, "not_offered": faults}, "\n".join(lines))


def _model_line(card: UpscalerCard | PredictorCard, parameters: int, gives: str) -> str:
    low, high = card.mpp_range
    value = card.to_json()
    facts = card_facts(value)
    labels = f"labels {', '.join(facts['label_kinds'])}  " if facts["label_kinds"] else ""
    licence = f"licence {value['licence']}  " if value.get("licence") else ""
    return (
        f"{card.name:<20} {card.kind:<8} {parameters:>11,} parameters  stored {low:g}–{high:g} µm/px  "
        f"sha256 {card.sha256[:12]}  {labels}{licence}{'RESEARCH ONLY  ' if facts['research_only'] else ''}{gives}"
    )
