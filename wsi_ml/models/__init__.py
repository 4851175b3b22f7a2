"""Networks: one file per family, shapes in comments, a frozen config each; `build` makes one by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wsi_ml.errors import BadRequestError
from wsi_ml.models.cerberus import Cerberus, CerberusConfig
from wsi_ml.models.densenet import DenseNet, DenseNetConfig
from wsi_ml.models.efficientnet import EfficientNet, EfficientNetConfig
from wsi_ml.models.esp_psp import EspPsp, EspPspConfig
from wsi_ml.models.feature_unet import TakahamaUnet, TakahamaUnetConfig
from wsi_ml.models.googlenet import TakahamaExtractor, TakahamaExtractorConfig
from wsi_ml.models.mobilenet import MobileNet, MobileNetConfig
from wsi_ml.models.nuclei_unet import NucleiUnet, NucleiUnetConfig
from wsi_ml.models.resnet import ResNet, ResNetConfig
from wsi_ml.models.resnet_multitask import ResnetMultitask, ResnetMultitaskConfig
from wsi_ml.models.rrdb import Esrgan, EsrganConfig, PlainRrdb, PlainRrdbConfig, RrdbConfig, SrGanGenerator
from wsi_ml.models.sr_fast import SrFast, SrFastConfig
from wsi_ml.models.sr_joint import SrJoint, SrJointConfig
from wsi_ml.models.srresnet import MsrResNet, SrResNet, SrResNetConfig
from wsi_ml.models.takahama import Takahama, TakahamaConfig
from wsi_ml.models.tissue_cnn import TissueCnn, TissueCnnConfig
from wsi_ml.models.unet_discriminator import UnetDiscriminator, UnetDiscriminatorConfig
from wsi_ml.models.vgg import Vgg19, VggConfig
from wsi_ml.models.vgg_discriminator import VggDiscriminator, VggDiscriminatorConfig

# Name -> (module class, its frozen config). A new family adds its file beside this one and its line here.
ARCHITECTURES: dict[str, tuple[Callable[[Any], nn.Module], type]] = {
    "cerberus": (Cerberus, CerberusConfig),
    "densenet121": (DenseNet, DenseNetConfig),
    "efficientnet": (EfficientNet, EfficientNetConfig),
    "esp-psp": (EspPsp, EspPspConfig),
    "esrgan": (Esrgan, EsrganConfig),
    "mobilenet": (MobileNet, MobileNetConfig),
    "msrresnet": (MsrResNet, SrResNetConfig),
    "nuclei-unet": (NucleiUnet, NucleiUnetConfig),
    "resnet18-multitask": (ResnetMultitask, ResnetMultitaskConfig),
    "resnet50": (ResNet, ResNetConfig),
    "rrdb-plain": (PlainRrdb, PlainRrdbConfig),
    "sr-fast": (SrFast, SrFastConfig),
    "sr-gan-generator": (SrGanGenerator, RrdbConfig),
    "sr-joint": (SrJoint, SrJointConfig),
    "srresnet": (SrResNet, SrResNetConfig),
    "takahama": (Takahama, TakahamaConfig),
    "takahama-extractor": (TakahamaExtractor, TakahamaExtractorConfig),
    "takahama-unet": (TakahamaUnet, TakahamaUnetConfig),
    "tissue-cnn": (TissueCnn, TissueCnnConfig),
    "unet-discriminator": (UnetDiscriminator, UnetDiscriminatorConfig),
    "vgg-discriminator": (VggDiscriminator, VggDiscriminatorConfig),
    "vgg19": (Vgg19, VggConfig),
}

# What a random start is made of besides the functions of `torch.nn.init`; each gives the shape it was given.
STARTING = (Tensor.normal_, Tensor.mul_, Tensor.add_, nn.functional.normalize)


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


class _Unstarted(TorchFunctionMode):
    """Leaves out the random start: without numbers it does nothing, yet costs seconds on the meta device."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if function in STARTING or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return function(*args, **given)


@contextmanager
def weightless() -> Iterator[None]:
    """Networks built inside have names and shapes but no numbers (PyTorch's meta device): no memory, no start."""
    with torch.device("meta"), _Unstarted():
        yield


def parameter_count(model: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def architectures() -> list[dict[str, Any]]:
    """Every architecture that can be built: name, learned parameters in its published configuration, what it is."""
    with weightless():
        return [
            {
                "name": name,
                "parameters": parameter_count(build(name)),
                "about": (module_class.__doc__ or "").split("\n")[0],
            }
            for name, (module_class, _) in sorted(ARCHITECTURES.items())
        ]
