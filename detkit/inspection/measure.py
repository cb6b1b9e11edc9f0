"""Cost and outputs of each part of a model for one image."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from detkit.errors import RecipeError, stride_fault
from detkit.ops.strides import largest_stride_of
from detkit.types import FeatureSpec


class Output(NamedTuple):
    """An output tensor of a module for one image."""

    name: str  # of the field of a NamedTuple or dict; "" otherwise
    shape: tuple[int, ...]  # without the batch dimension
    spec: FeatureSpec | None = None  # the entry of ``out_specs``


class Part(NamedTuple):
    """A module of a model, with the modules inside it."""

    name: str  # dotted path; "" for the whole model
    kind: str  # name of its class
    depth: int  # 0 for the parts of the model, 1 for theirs
    parameters: int
    trainable: int  # of the parameters
    flops: int  # a multiply-add counts as 2
    activations: int
    outputs: tuple[Output, ...]  # of the first call; empty for a module that is never called
    calls: int


class Anatomy(NamedTuple):
    """A model and its parts; each part comes before the parts inside it."""

    whole: Part
    parts: list[Part]
    image_hw: tuple[int, int]


@runtime_checkable
class HasOutSpecs(Protocol):
    """A backbone or a neck, which describes its feature maps."""

    out_specs: Sequence[FeatureSpec]


@runtime_checkable
class HasFields(Protocol):
    """A NamedTuple."""

    def _asdict(self) -> dict[str, object]: ...


class _Cost(NamedTuple):
    flops: int = 0
    activations: int = 0


class _Record(NamedTuple):
    cost: _Cost
    outputs: tuple[Output, ...]
    calls: int


def measure_parts(model: nn.Module, image_hw: tuple[int, int], depth: int = 1) -> Anatomy:
    """Run a model on one black image in evaluation mode, and measure each module.

    Convolutions, matrix products and attention are counted; norms, activation functions, sampling and deformable
    convolutions are not. Activations are the elements of the outputs of counted operations.

    Args:
        model: for images (1, 3, H, W) in [0, 1]; it is not changed.
        image_hw: size of the image.
        depth: 0 for the children of the model, 1 for their children as well, and so on.

    Raises:
        RecipeError: if a side of the image is no multiple of the model's ``largest_stride``.

    Source: Radosavovic et al., Designing Network Design Spaces, 2020, §3.2 (activations). https://arxiv.org/abs/2003.13678
    """
    check_size(model, image_hw)
    parameter = next(model.parameters(), torch.zeros(()))
    with evaluation_mode(model), torch.no_grad():
        records = _run(model, torch.zeros(1, 3, *image_hw, device=parameter.device))
    parts = list(_walk(model, "", 0, depth, records))
    return Anatomy(_part(model, "", 0, records), parts, image_hw)


def check_size(model: nn.Module, image_hw: tuple[int, int]) -> None:
    """Refuse an image size that does not fit the model.

    Raises:
        RecipeError: if a side is no multiple of the model's ``largest_stride``.
    """
    if fault := stride_fault(image_hw, largest_stride_of(model)):
        raise RecipeError(f"data.image_hw: {fault}")


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode; at the end every module returns to its mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _run(model: nn.Module, images: Tensor) -> dict[nn.Module, _Record]:
    """Cost and outputs of every module that is called.

    Fused attention is switched off, because torch's counter does not know the fused kernels of the CPU.
    """
    elements = dict.fromkeys(flop_registry, _elements)
    flops, activations = FlopCounterMode(display=False), FlopCounterMode(display=False, custom_mapping=elements)
    started: list[_Cost] = []
    records: dict[nn.Module, _Record] = {}

    def now() -> _Cost:
        return _Cost(flops.get_total_flops(), activations.get_total_flops())

    def before(_: nn.Module, __: object) -> None:
        started.append(now())

    def after(module: nn.Module, _: object, output: object) -> None:
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


def _elements(*_: object, out_shape: Sequence[int], **__: object) -> int:
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
    """Cost of a module; a container that is never called costs what its children cost."""
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


def _outputs(module: nn.Module, output: object) -> Iterator[Output]:
    """The tensors of an output, with their names and specs if there are any."""
    if isinstance(output, tuple) and isinstance(output, HasFields):
        output = output._asdict()
    if isinstance(output, Tensor):
        output = [output]
    if not isinstance(output, dict | list | tuple):
        return
    named = output.items() if isinstance(output, dict) else (("", value) for value in output)
    specs = module.out_specs if isinstance(module, HasOutSpecs) else []
    for number, (name, value) in enumerate(named):
        if isinstance(value, Tensor):
            spec = specs[number] if len(specs) == len(output) else None
            shape = tuple(value.shape)
            yield Output(name, shape[1:] if shape[:1] == (1,) else shape, spec)
