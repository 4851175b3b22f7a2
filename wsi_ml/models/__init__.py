"""Networks: one file per family, shapes in comments, a frozen config each; `build` makes one by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from wsi_ml.errors import BadRequestError
from wsi_ml.models.sr_fast import SrFast, SrFastConfig

# Name -> (module class, its frozen config). A new family adds its file beside this one and its line here.
ARCHITECTURES: dict[str, tuple[Callable[[Any], nn.Module], type]] = {
    "sr-fast": (SrFast, SrFastConfig),
}


def build(name: str, **config: Any) -> nn.Module:
    """A network with fresh weights; `config` are fields of its config class.

    Raises BadRequestError for a name or a field that does not exist.
    """
    if name not in ARCHITECTURES:
        raise BadRequestError(f"There is no architecture {name!r}; there are {', '.join(sorted(ARCHITECTURES))}.")
    module_class, config_class = ARCHITECTURES[name]
    try:
        return module_class(config_class(**config))
    except TypeError as error:
        raise BadRequestError(f"The configuration does not fit {name}: {error}.") from error


def parameter_count(model: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def architectures() -> list[dict[str, Any]]:
    """Every architecture that can be built: name, learned parameters in its published configuration, what it is."""
    return [
        {"name": name, "parameters": parameter_count(build(name)), "about": (module_class.__doc__ or "").split("\n")[0]}
        for name, (module_class, _) in sorted(ARCHITECTURES.items())
    ]
