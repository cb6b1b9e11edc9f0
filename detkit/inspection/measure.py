"""What each part of a model costs for one image, and what it gives."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from detkit.errors import RecipeError
from detkit.types import FeatureSpec


class Output(NamedTuple):
    """A tensor that a module gives for one image."""

    name: str  # of the field in a named output; empty where there is none
    shape: tuple[int, ...]  # without the batch, where it has one
    spec: FeatureSpec | None = None  # what ``out_specs`` says of it


class Part(NamedTuple):
    """A module of a model, with all that is in it."""

    name: str  # dotted, as in the names of its weights; empty for the whole model
    kind: str  # its class
    depth: int  # 0 for the parts of the model, 1 for theirs
    parameters: int
    trainable: int  # of the parameters
    flops: int  # a multiply-add is two
    activations: int
    outputs: tuple[Output, ...]  # of the first call; empty for a module that was not called itself
    calls: int


class Anatomy(NamedTuple):
    """A model and its parts, each before what is inside of it."""

    whole: Part
    parts: list[Part]
    image_hw: tuple[int, int]


class _Cost(NamedTuple):
    flops: int = 0
    activations: int = 0


class _Record(NamedTuple):
    cost: _Cost
    outputs: tuple[Output, ...]
    calls: int


def measure(model: nn.Module, image_hw: tuple[int, int], depth: int = 1) -> Anatomy:
    """Run a model on one black image, in evaluation mode, and note what each module does.

    Counted are convolutions, matrix products and attention, whoever calls them; norms,
    activation functions, sampling and deformable convolutions are not. Activations are the
    elements of the outputs of what is counted.

    Args:
        model: takes (1, 3, H, W) in [0, 1]; left as it was.
        image_hw: size of the image.
        depth: 0: the children of the model; 1: theirs as well, and so on.

    Raises:
        RecipeError: if a side of the image is no multiple of the model's ``largest_stride``.

    Source: Radosavovic et al., Designing Network Design Spaces, 2020, §3.2 (activations). https://arxiv.org/abs/2003.13678
    """
    check_size(model, image_hw)
    parameter = next(model.parameters(), torch.zeros(()))
    with evaluating(model), torch.no_grad():
        records = _run(model, torch.zeros(1, 3, *image_hw, device=parameter.device))
    parts = list(_walk(model, "", 0, depth, records))
    return Anatomy(_part(model, "", 0, records), parts, image_hw)


def check_size(model: nn.Module, image_hw: tuple[int, int]) -> None:
    """Refuse a size that the model cannot take.

    Raises:
        RecipeError: if a side is no multiple of the model's ``largest_stride``.
    """
    stride = getattr(model, "largest_stride", 1)
    if any(side % stride for side in image_hw):
        raise RecipeError(
            f"data.image_hw: sides must be multiples of {stride}, the model's largest stride; got {list(image_hw)}"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module returns to the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _run(model: nn.Module, images: Tensor) -> dict[nn.Module, _Record]:
    """Cost and outputs of every module that is called.

    Attention is done in plain matrix products meanwhile: torch's counter knows no fused kernel of the CPU.
    """
    elements = dict.fromkeys(flop_registry, _elements)
    flops, activations = FlopCounterMode(display=False), FlopCounterMode(display=False, custom_mapping=elements)
    started: list[_Cost] = []
    records: dict[nn.Module, _Record] = {}

    def now() -> _Cost:
        return _Cost(flops.get_total_flops(), activations.get_total_flops())

    def before(_: nn.Module, __: Any) -> None:
        started.append(now())

    def after(module: nn.Module, _: Any, output: Any) -> None:
        spent = _minus(now(), started.pop())
        old = records.get(module) or _Record(_Cost(), tuple(_outputs(module, output)), 0)
        records[module] = _Record(_plus(old.cost, spent), old.outputs, old.calls + 1)

    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        torch.backends.mha.set_fastpath_enabled(False)
        for context in (sdpa_kernel(SDPBackend.MATH), flops, activations):
            stack.enter_context(context)
        model(images)
    return records


def _elements(*_: Any, out_shape: Any, **__: Any) -> int:
    return torch.Size(out_shape).numel()


def _walk(
    module: nn.Module, prefix: str, depth: int, deepest: int, records: dict[nn.Module, _Record]
) -> Iterator[Part]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict) and not len(child):
            continue
        yield _part(child, prefix + name, depth, records)
        if depth < deepest:
            yield from _walk(child, f"{prefix}{name}.", depth + 1, deepest, records)


def _part(module: nn.Module, name: str, depth: int, records: dict[nn.Module, _Record]) -> Part:
    parameters = list(module.parameters())
    record = records.get(module) or _Record(_cost(module, records), (), 0)
    return Part(
        name=name,
        kind=type(module).__name__,
        depth=depth,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        flops=record.cost.flops,
        activations=record.cost.activations,
        outputs=record.outputs,
        calls=record.calls,
    )


def _cost(module: nn.Module, records: dict[nn.Module, _Record]) -> _Cost:
    """That of a list of modules is what its members cost."""
    if module in records:
        return records[module].cost
    total = _Cost()
    for child in module.children():
        total = _plus(total, _cost(child, records))
    return total


def _plus(a: _Cost, b: _Cost) -> _Cost:
    return _Cost(a.flops + b.flops, a.activations + b.activations)


def _minus(a: _Cost, b: _Cost) -> _Cost:
    return _Cost(a.flops - b.flops, a.activations - b.activations)


def _outputs(module: nn.Module, output: Any) -> Iterator[Output]:
    """The tensors of an output, with names and specs as far as there are any."""
    if isinstance(output, Tensor):
        output = [output]
    names = getattr(output, "_fields", None) or (list(output) if isinstance(output, dict) else None)
    values = list(output.values()) if isinstance(output, dict) else output
    if not isinstance(values, list | tuple):
        return
    specs = getattr(module, "out_specs", None)
    for number, value in enumerate(values):
        if isinstance(value, Tensor):
            spec = specs[number] if specs and len(specs) == len(values) else None
            shape = tuple(value.shape)
            yield Output(names[number] if names else "", shape[1:] if shape[:1] == (1,) else shape, spec)
