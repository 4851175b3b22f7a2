"""The command line of the scripts that measure a predictor by its card: read it, measure, print, fill in its scores."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from train.export import write_card
from wsi_ml.errors import OcularError
from wsi_ml.inference.predictor import Predictor, open_predictor


class ScoreRow(Protocol):
    """One measured set."""

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in the card."""
        ...


Row = TypeVar("Row", bound=ScoreRow)


def score_card(
    script: str,
    description: str | None,
    evaluate: Callable[[Predictor, Path], list[Row]],
    show: Callable[[list[Row]], str],
    argv: Sequence[str] | None,
) -> int:
    """Exit code: 0, or 2 with one sentence when the card or the data cannot be read."""
    parser = argparse.ArgumentParser(prog=f"python -m train.{script}", description=description)
    parser.add_argument("--card", type=Path, required=True, help="card of the predictor, its weights beside it")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--write", action="store_true", help="put the scores into the card")
    args = parser.parse_args(argv)
    try:
        rows = evaluate(open_predictor(args.card), args.data)
        if args.write:
            card = json.loads(args.card.read_text(encoding="utf-8"))
            write_card(args.card, {**card, "scores": [row.to_json() for row in rows]})
    except (OcularError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(show(rows) + "\n")
    return 0
