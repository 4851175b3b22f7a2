"""Every setting of the server in one frozen class: defaults < file < environment (`OCULAR_…`) < flags."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENVIRONMENT_PREFIX = "OCULAR_"
OTHER_VARIABLES = {"OCULAR_CONFIG", "OCULAR_DEMO_SLIDE", "OCULAR_SETTINGS"}


class SettingsError(Exception):
    """A setting is wrong; the text is one line that names the key."""


class Settings(BaseSettings):
    """Settings of one server, read once at the start and never changed."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    library: Path = Field(Path("ocular-library"), description="Folder of the slide library.")
    host: str = Field("127.0.0.1", description="Address to listen on; without a login only a loopback address.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8040, description="Port to listen on; 0 takes a free one.")
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Web processes; tiles are served by all of them."
    )
    login: Literal["none"] = Field("none", description="How people log in; `none` is for one person on one machine.")
    trusted_hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "localhost", "[::1]"),
        description="Host names that requests may carry (against DNS rebinding); a proxy's public name is added here.",
    )
    cache_mb: Annotated[int, Field(ge=0)] = Field(2048, description="Most disk space for synthesised tiles, in MB.")
    sr_queue: Annotated[int, Field(ge=1, le=4096)] = Field(64, description="Most tiles waiting to be synthesised.")
    sr_deadline_s: Annotated[float, Field(gt=0, le=600)] = Field(
        30.0, description="Longest wait for a synthesised tile in seconds; then the answer is 503."
    )
    sr_threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Threads of the network on a CPU; 0 takes all cores."
    )
    sr_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run; `auto` takes a GPU when there is one."
    )
    sr_warm: bool = Field(True, description="Load the network at the start instead of at the first synthesised tile.")
    job_workers: Annotated[int, Field(ge=0, le=64)] = Field(
        1, description="Whole-slide jobs at a time; one worker more takes small regions. 0 runs no jobs in this server."
    )
    job_memory_mb: Annotated[int, Field(ge=256)] = Field(
        4096, description="Most memory of one job in MB; a job that takes more fails."
    )
    job_threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Threads of a job's model on a CPU; 0 takes all cores."
    )
    job_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models of jobs run; `auto` takes a GPU when there is one."
    )
    job_nice: Annotated[int, Field(ge=0, le=19)] = Field(
        10, description="How far jobs stand back behind the server; small regions half as far."
    )
    body_limit_mb: Annotated[int, Field(ge=1, le=1024)] = Field(2, description="Largest request body in MB.")
    drain_s: Annotated[float, Field(ge=0, le=300)] = Field(
        10.0, description="Longest wait for running requests at shutdown, in seconds."
    )
    log_format: Literal["json", "text"] = Field("text", description="Form of the log lines on standard error.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )

    @field_validator("trusted_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _loopback_without_login(self) -> Settings:
        if self.login == "none" and not is_loopback(self.host):
            raise ValueError(
                f"host: {self.host} is not a loopback address and no login is configured; "
                "use 127.0.0.1 and put a proxy with a login in front"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and the file come in through `load`; nothing else is read."""
        return (init_settings,)


def is_loopback(host: str) -> bool:
    """True for `localhost` and the addresses of the loopback network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(flags: dict[str, Any], config: Path | None = None, environment: dict[str, str] | None = None) -> Settings:
    """Settings of a TOML file, the environment and flags, later ones winning; flags that are None are not set.

    Raises SettingsError with one line that names the key at fault.
    """
    environment = dict(os.environ) if environment is None else environment
    values: dict[str, Any] = {}
    config = config or (Path(environment["OCULAR_CONFIG"]) if environment.get("OCULAR_CONFIG") else None)
    if config is not None:
        values |= _read_file(config)
    for variable, text in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in OTHER_VARIABLES:
            values[variable.removeprefix(ENVIRONMENT_PREFIX).lower()] = text
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"config: {path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"config: {path.name} is not valid TOML: {error}") from error


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{key}: there is no such setting"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}, not {first['input']!r}" if key else message
