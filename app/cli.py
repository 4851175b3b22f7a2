"""`ocular …`: the command line. `app/commands.py` holds what each command does."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app import commands, compare_command, jobs_command, predict_command, trust_command
from app.settings import SettingsError
from wsi_ml import errors
from wsi_ml.formats.writing import WRITERS
from wsi_ml.inference.cohort import ENGINES
from wsi_ml.inference.parameters import HELP
from wsi_ml.jobs.job import STATES
from wsi_ml.layers.layer import KINDS
from wsi_ml.sr.fidelity import DEFAULT_FLOOR


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or one of `commands.EXIT_CODES` after a sentence on stderr."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except (errors.OcularError, SettingsError) as error:
        print(f"ocular: {error}", file=sys.stderr)
        return commands.exit_code(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("ocular: stopped; nothing half-written is left", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The command line of `ocular`, every command with `--help`."""
    parser = argparse.ArgumentParser(prog="ocular", description="Keeps whole slides at ×20 and shows them at ×40.")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serving(parsers)
    _add_slides(parsers)
    _add_layers(parsers)
    _add_jobs(parsers)
    _add_predict(parsers)
    _add_trust(parsers)
    models = _command(parsers, "models", commands.run_models, "list the models with their cards")
    models.add_argument(
        "--architectures", action="store_true", help="list every architecture that can be built instead"
    )
    return parser


def _command(
    parsers: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str, library: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parsers.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    parser.set_defaults(run=run)
    if library:
        parser.add_argument(
            "--library", type=Path, metavar="DIR", help="library folder (default: the setting `library`)"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def _add_serving(parsers: Any) -> None:
    demo = _command(parsers, "demo", commands.run_demo, "make the demo library and serve it")
    serve = _command(parsers, "serve", commands.run_serve, "serve a library in the browser")
    for parser in (demo, serve):
        parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
        parser.add_argument("--port", type=int, help="port to listen on (default: 8040)")
        parser.add_argument("--workers", type=int, help="web processes (default: 2)")
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings in a TOML file")
    demo.add_argument("--no-serve", action="store_true", help="only make the library")
    # For the process that completes the library of a running demo: that one's workers predict.
    demo.add_argument("--beside-a-server", action="store_true", help=argparse.SUPPRESS)


def _add_slides(parsers: Any) -> None:
    ingest = _command(parsers, "ingest", commands.run_ingest, "take whole-slide files into the library")
    ingest.add_argument("files", nargs="+", type=Path, metavar="FILE", help="any file that OpenSlide opens, or a .psi")
    ingest.add_argument("--mpp", type=float, metavar="M", help="µm per pixel of the scan, where the file does not say")
    ingest.add_argument(
        "--floor", type=float, metavar="SSIM",
        help="compare each ×40 tile with the scan and keep the scan's where SSIM is below this (recommended: "
        f"{DEFAULT_FLOOR:g}); also for a slide that is there already",
    )  # fmt: skip
    ingest.add_argument(
        "--name", metavar="N", help="name of the slide (default: the file's name); an existing one gets a new version"
    )
    _command(parsers, "slides", commands.run_slides, "list the slides")
    for name, run, about in (
        ("show", commands.run_show, "print a slide's card"),
        ("remove", commands.run_remove, "remove a slide and all its versions"),
    ):
        _command(parsers, name, run, about).add_argument("id", metavar="ID", help="slide id, or its name")
    verify = _command(parsers, "verify", commands.run_verify, "check every checksum and row")
    verify.add_argument("id", nargs="?", metavar="ID", help="only this slide")


def _add_layers(parsers: Any) -> None:
    layers = _command(parsers, "layers", commands.run_layers, "list the layers of a slide")
    import_ = _command(
        parsers, "import", commands.run_import, "import a layer from an annotation file, with a loss report"
    )
    export = _command(parsers, "export", commands.run_export, "export a layer")
    for parser in (layers, import_, export):
        parser.add_argument("id", metavar="ID", help="slide id, or its name")
    compare = _command(
        parsers, "compare", compare_command.run_compare, "compare a prediction with a truth layer: F1, PQ, AJI, Dice"
    )
    compare.add_argument("id", metavar="ID", help="slide id, or its name")
    compare.add_argument("--truth", required=True, metavar="L", help="layer id")
    compare.add_argument("--prediction", required=True, metavar="L", help="layer id")
    compare.add_argument("--min-score", type=float, default=0.0, metavar="S", help="predictions from this score on")
    compare.add_argument("--iou", type=float, default=0.5, metavar="I", help="a match has a greater IoU (default: 0.5)")
    compare.add_argument(
        "--classes", choices=("match", "any"), help="match within a class, or any (default: match where names agree)"
    )
    import_.add_argument(
        "file", type=Path, metavar="FILE", help=f"annotation file: {commands.READABLE}; also .gz, .zip"
    )
    import_.add_argument("--name", help="name of the layer (default: the file's name)")
    import_.add_argument("--kind", choices=KINDS, default="truth", help="kind of layer (default: truth)")
    import_.add_argument(
        "--repair", action="store_true", help="mend invalid rings where that is possible, and list each"
    )
    export.add_argument("--layer", required=True, metavar="L", help="layer id")
    export.add_argument("--format", required=True, choices=tuple(WRITERS), metavar="F", help=", ".join(WRITERS))
    export.add_argument(
        "--class", action="append", dest="classes", metavar="C", help="only this class; may be repeated"
    )
    export.add_argument(
        "--min-score", type=float, metavar="S", help="only features with at least this score, 0 to 1, or without one"
    )
    export.add_argument("--output", type=Path, metavar="FILE", help="file to write (default: standard output)")
    for parser in (import_, export):
        parser.add_argument(
            "--plane",
            choices=("base", "stored", "scan"),
            default="base",
            help="pixel grid of the coordinates (default: base, ×40)",
        )


def _add_predict(parsers: Any) -> None:
    predict = _command(parsers, "predict", predict_command.run_predict, "run a model over slides, to a layer each")
    predict.add_argument("ids", nargs="+", metavar="ID", help="slide id, or its name")
    predict.add_argument("--model", required=True, metavar="M", help="name of a model, or the .json file of its card")
    predict.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="here, or on a Ray cluster")
    predict.add_argument("--region", metavar="BOX", help="x0,y0,x1,y1 in pixels of the ×40 plane (default: the slide)")
    what = "; ".join(f"{name}: {about}" for name, about in HELP.items())
    predict.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=what)
    predict.add_argument("--name", metavar="N", help="name of the layer (default: the model's)")


def _add_trust(parsers: Any) -> None:
    trust = _command(parsers, "trust", trust_command.run_trust, "map where synthesised pixels can be believed")
    trust.add_argument("id", metavar="ID", help="slide id, or its name")
    trust.add_argument("--model", default="sr-fast", metavar="M", help="upscaler (default: sr-fast)")
    trust.add_argument("--region", metavar="BOX", help="x0,y0,x1,y1 in pixels of the ×40 plane (default: the slide)")


def _add_jobs(parsers: Any) -> None:
    jobs = _command(parsers, "jobs", jobs_command.run_jobs, "list background jobs, show one, or cancel it")
    jobs.add_argument("id", nargs="?", metavar="ID", help="only this job")
    jobs.add_argument("--cancel", action="store_true", help="cancel it")
    jobs.add_argument("--slide", metavar="ID", help="only jobs of this slide (id or name)")
    jobs.add_argument("--state", choices=STATES, help="only jobs in this state")


if __name__ == "__main__":
    sys.exit(main())
