"""torchvision's classifiers as backbones, by the names of their layers."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn
from torchvision import models

from detkit.errors import did_you_mean
from detkit.models.backbones.layers import LayerBackbone, evaluating, probe_image, stride_of
from detkit.models.backbones.levels import OUT_LEVELS
from detkit.models.backbones.published import TorchvisionWeights


class TorchvisionBackbone(LayerBackbone):
    """Image to feature maps of any network in ``torchvision.models``; tensors keep torchvision's names.

    Args:
        model: torchvision's name of a classifier, e.g. ``vgg16``.
        layers: names of the layers whose maps it can give; None: for each stride the last layer of that stride
            (see ``find_layers``), which is a convolution of the classifier in some (``features.8`` of
            efficientnet_b0; name ``features.7`` for the map before it).
        out_levels: levels or names of layers. Deeper layers are left out.

    Raises:
        ValueError: if torchvision has no such classifier, or it no such layer or level, or it takes only images
            of one size.
    """

    def __init__(self, model: str, layers: Sequence[str] | None = None, out_levels: Sequence[str] = OUT_LEVELS) -> None:
        known = models.list_models(module=models)
        if model not in known:
            raise ValueError(
                f"model: torchvision has no classifier {model!r}{did_you_mean(model, known, 3, list_all=False)}"
            )
        network = models.get_model(model, weights=None)
        super().__init__(network, layers or find_layers(network), out_levels)
        self.published = TorchvisionWeights(model)


class _Step(NamedTuple):
    """One call of a module: the strides of what went in and came out, None where that is no map."""

    name: str
    in_stride: int | None
    out_stride: int | None


def find_layers(network: nn.Module) -> list[str]:
    """For each stride the name of the last layer that gives a map of it, in the order of the network.

    A layer is what changes the resolution by at most one level, as large as can be: a module that spans several
    levels is looked into, the blocks of a stage are not.

    Raises:
        ValueError: if the network refuses an image of another size than its own.
    """
    steps = _steps(network)
    modules = dict(network.named_modules())
    last: dict[int, str] = {}

    def look_into(parent: str) -> None:
        for step in steps.get(parent, []):
            one_level = step.in_stride and step.out_stride and step.out_stride <= 2 * step.in_stride
            if not one_level and any(modules[step.name].children()):
                look_into(step.name)
            elif step.out_stride:
                last.pop(step.out_stride, None)
                last[step.out_stride] = step.name

    look_into("")
    return list(last.values())


def _steps(network: nn.Module) -> dict[str, list[_Step]]:
    """Every call of every module, under the name of the module around it, in the order in which they end."""
    steps: dict[str, list[_Step]] = {}

    def listen(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            step = _Step(name, stride_of(inputs[0]) if inputs else None, stride_of(output))
            steps.setdefault(name.rpartition(".")[0], []).append(step)

        return hook

    handles = [module.register_forward_hook(listen(name)) for name, module in network.named_modules() if name]
    try:
        with evaluating(network):
            network(probe_image(network))
    except AssertionError as error:
        raise ValueError(
            f"{type(network).__name__} takes only images of one size ({error}); TimmBackbone has such networks for any"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return steps
