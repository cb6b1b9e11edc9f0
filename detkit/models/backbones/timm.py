"""timm's networks as backbones. timm is the extra [timm]; this is the one file that imports it."""

import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from detkit.errors import did_you_mean
from detkit.models.backbones.levels import OUT_LEVELS, choose_levels
from detkit.models.backbones.published import WeightsUnavailableError
from detkit.models.backbones.pyramid import SimplePyramid
from detkit.models.preprocess import Preprocess
from detkit.types import FeatureSpec

Options = dict[str, Any]  # arguments of timm's create_model, besides the name


class TimmBackbone(nn.Module):
    """Image to feature maps of any network of timm.

    The network lies in ``network``, so its tensors have that before timm's own names. Where all its maps have one
    stride (a plain vision transformer), a ``SimplePyramid`` makes the levels of the last one. What no wanted map
    needs is not built; where timm builds it all the same, it is frozen.

    Args:
        model: timm's name, e.g. ``convnext_tiny``, or with the tag of the weights that are meant:
            ``resnet50.a1_in1k``.
        out_levels: levels, or timm's names of layers. Of several maps of one stride, the level is the last.

    Raises:
        ValueError: if timm is not installed or has no such network or tag, or the network no such level, or
            strides that are no powers of two.
    """

    def __init__(self, model: str, out_levels: Sequence[str] = OUT_LEVELS) -> None:
        super().__init__()
        timm = _timm()
        name, _, tag = model.partition(".")
        _check_name(timm, name, tag)
        available, options = _outline(timm, name)
        _check_strides(name, available)
        plain = len({spec.stride for spec in available}) == 1
        self.pyramid = SimplePyramid(available[-1], out_levels) if plain else None
        chosen = [len(available) - 1] if plain else choose_levels(available, out_levels)
        self.out_specs = self.pyramid.out_specs if self.pyramid else [available[position] for position in chosen]

        options["out_indices"] = tuple(chosen)
        self.network: Any = _build(timm, name, options)
        for parameter in _unused(timm, name, options):
            self.network.get_parameter(parameter).requires_grad_(False)
        self.channels_last = hasattr(self.network, "output_fmt") and self.network.output_fmt.value == "NHWC"
        self.published = TimmWeights(name, tag, options)
        self.adapters = ("pyramid",)  # its tensors are in no weights of timm

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one (B, channels, H/stride, W/stride) per entry of ``out_specs``."""
        maps = self.network(images)
        if self.channels_last:
            maps = [values.permute(0, 3, 1, 2) for values in maps]
        return self.pyramid(maps[0]) if self.pyramid else maps


class TimmWeights:
    """Weights that timm publishes for a network, each under its tag.

    Args:
        model: timm's name of the network.
        tag: the weights that are meant first; "": timm's own choice.
        options: with which the network is built.
    """

    def __init__(self, model: str, tag: str, options: Options) -> None:
        self.model = model
        self.tag = tag
        self.options = options

    @property
    def names(self) -> list[str]:
        """The tags; the one that is meant comes first, without one timm's own choice."""
        return _tags(_timm(), self.model, self.tag)

    def preprocess(self, name: str | None = None) -> Preprocess:
        """RGB in [0, 1], with the tag's mean and standard deviation; the network's own where there are no weights."""
        config = self._config(name or next(iter(self.names), ""))
        return Preprocess(mean=tuple(config.mean), std=tuple(config.std))

    def fetch(self, name: str) -> dict[str, Tensor]:
        """The weights of a tag under the backbone's names, from timm's cache or its server.

        Raises:
            WeightsUnavailableError: if they are in neither.
        """
        config = self._config(name)
        try:
            network = _build(_timm(), f"{self.model}.{name}", {**self.options, "pretrained": True})
        except OSError as error:
            file = config.hf_hub_filename or "model.safetensors"
            source = f"{file} of the Hugging Face repository {config.hf_hub_id}" if config.hf_hub_id else config.url
            raise WeightsUnavailableError(
                f"{name} of {self.model} cannot be downloaded ({error}); where there is a network, fetch {source}, "
                "copy it to this machine and pass its path as weights=PATH"
            ) from error
        return {f"network.{key}": tensor for key, tensor in network.state_dict().items()}

    def _config(self, tag: str) -> Any:  # of timm.models.PretrainedCfg
        return _timm().get_pretrained_cfg(f"{self.model}.{tag}" if tag else self.model)


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            'TimmBackbone needs timm, which is not installed: in the clone, pip install -e ".[timm]"'
        ) from error
    return timm


def _check_name(timm: ModuleType, name: str, tag: str) -> None:
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models(), 3, list_all=False)
        raise ValueError(f"model: timm has no network {name!r}{hint}")
    tags = _tags(timm, name)
    if tag and tag not in tags:
        hint = did_you_mean(tag, tags, 3) or "; there are none"
        raise ValueError(f"model: timm has no weights {tag!r} of {name}{hint}")


def _check_strides(name: str, available: Sequence[FeatureSpec]) -> None:
    strides = sorted({spec.stride for spec in available})
    if any(stride & (stride - 1) for stride in strides):
        raise ValueError(
            f"model: the maps of {name} have strides {', '.join(map(str, strides))}, which must be powers of two; "
            "take another network"
        )


def _tags(timm: ModuleType, name: str, first: str = "") -> list[str]:
    own = timm.get_pretrained_cfg(name)
    first = first or (own.tag if own else "")
    tags = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
    return sorted(tags, key=lambda tag: tag != first)


def _outline(timm: ModuleType, name: str) -> tuple[list[FeatureSpec], Options]:
    """The maps that a network has, and the options with which it takes images of any size."""
    with torch.device("meta"):
        network = timm.create_model(name, features_only=True)
        is_fixed = network.pretrained_cfg["fixed_input_size"]
        known = inspect.signature(type(timm.create_model(name))).parameters if is_fixed else {}
    available = [FeatureSpec(i["num_chs"], i["reduction"], i["module"]) for i in network.feature_info.info]
    return available, {"dynamic_img_size": True} if "dynamic_img_size" in known else {}


def _build(timm: ModuleType, name: str, options: Options) -> nn.Module:
    network = timm.create_model(name, features_only=True, **options)
    if hasattr(network, "feature_hooks"):  # EfficientNet and its relatives build all stages, wanted or not
        network.blocks = network.blocks[: network.feature_info.info[options["out_indices"][-1]]["stage"]]
    return network


def _unused(timm: ModuleType, name: str, options: Options) -> list[str]:
    """Parameters that no wanted map depends on, found on the meta device."""
    with torch.device("meta"), torch.enable_grad():
        network: Any = _build(timm, name, options).eval()
        parameters = {key: parameter for key, parameter in network.named_parameters() if parameter.requires_grad}
        maps = network(torch.zeros(1, *network.pretrained_cfg["input_size"]))
        total = torch.stack([values.sum() for values in maps]).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return [key for key, gradient in zip(parameters, gradients, strict=True) if gradient is None]
