"""Configuration of the training scripts: one frozen dataclass each, filled from a TOML file and `--set key=value`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wsi_ml.errors import BadRequestError, OcularError

ConfigType = TypeVar("ConfigType")
PUBLISH = ("", "library that gets the run's model when the run has come to its end; empty: none (train.publish)")
"""Default and meaning of the key `publish`, which every training script has."""


def key(default: Any, meaning: str) -> Any:
    """A dataclass field with its default and the sentence that `--help` prints."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def describe(config_class: type) -> str:
    """One line per key: name, default, meaning."""
    lines = []
    for field in dataclasses.fields(config_class):
        lines.append(f"  {field.name} = {_text(field.default)}\n      {field.metadata['meaning']}")
    return "keys of --config (TOML) and --set:\n" + "\n".join(lines)


def read_config(config_class: type[ConfigType], file: Path | None, overrides: list[str]) -> ConfigType:
    """Defaults, then the TOML `file`, then `key=value` overrides; raises BadRequestError naming what is wrong."""
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BadRequestError(f"The configuration {file.name} cannot be read: {error}.") from error
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise BadRequestError(f"--set takes key=value, not {override!r}.")
        values[name.strip()] = text.strip()
    return config_from_values(config_class, values)


def config_from_values(config_class: type[ConfigType], values: dict[str, Any]) -> ConfigType:
    """Config of plain values (texts are converted to the type of the key's default); raises BadRequestError."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise BadRequestError(f"Unknown key {name!r}; --help lists the keys.")
    try:
        return config_class(**{name: _convert(value, fields[name].default) for name, value in values.items()})
    except ValueError as error:
        raise BadRequestError(f"Wrong value in the configuration: {error}.") from error


def arguments(script: str, config_class: type, argv: list[str] | None) -> argparse.Namespace:
    """The command line every training script shares: --config, --set, --resume."""
    parser = argparse.ArgumentParser(
        prog=f"python -m train.{script}", epilog=describe(config_class), formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="TOML file of keys below")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one key; wins over --config")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if there is one")
    return parser.parse_args(argv)


def ended(work: Callable[[], object]) -> int:
    """Exit code of a command: 0 when its work ended, 2 with one sentence for what was wrong with a key, run or data."""
    try:
        work()
    except (OcularError, FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _convert(value: Any, default: Any) -> Any:
    """`value` in the type of `default`; texts may come from the command line, lists from TOML."""
    if isinstance(default, tuple):
        parts = [part for part in value.split(",") if part] if isinstance(value, str) else value
        return tuple(str(part) for part in parts)
    if isinstance(default, bool):
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{value!r} is neither true nor false")
        return str(value).lower() == "true"
    return type(default)(value)


def _text(default: Any) -> str:
    return ",".join(default) if isinstance(default, tuple) else str(default)
