"""Any network as a backbone: its maps are chosen by the names of its layers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import DualGraphModule, create_feature_extractor

from detkit.errors import did_you_mean
from detkit.models.backbones.levels import choose_levels
from detkit.types import FeatureSpec

PROBE_HW = (128, 192)  # pixels; not square, so that a map of fixed size (adaptive pooling) has no stride
UNTRACEABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class LayerBackbone(nn.Module):
    """Image to the outputs of named layers of a network; what these do not need is left out.

    Its tensors keep the names that they have in the network. The network is traced by torch.fx, so its forward
    must not branch on the values or the size of an image; write the backbone by hand where it does (README,
    "Another backbone").

    Args:
        network: any module that takes images (B, 3, H, W); it shares its tensors with the backbone.
        layers: dotted names of layers that give maps, e.g. ``layer2`` or ``features.4``.
        out_levels: which of these come out, as "P3" or by name; None: all.

    Raises:
        ValueError: if the network has no such layer or level, its output is no map with a whole number as stride,
            or the network cannot be traced.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], out_levels: Sequence[str] | None = None) -> None:
        super().__init__()
        _check_names(network, layers)
        with evaluating(network):
            maps = _probe(network, layers)
            available = sorted((found.spec for found in maps.values()), key=lambda spec: spec.stride)
            chosen = choose_levels(available, out_levels or [spec.name for spec in available])
            self.out_specs: list[FeatureSpec] = [available[position] for position in chosen]
            extractor = _extract(network, {spec.name: maps[spec.name] for spec in self.out_specs})
        # Note [generated code]: the forward that torch.fx generated for each mode, called with this module as self
        self._run: dict[bool, Callable[..., dict[str, Tensor]]] = {
            True: type(fx.GraphModule(extractor, extractor.train_graph)).forward,
            False: type(fx.GraphModule(extractor, extractor.eval_graph)).forward,
        }
        self._adopt(extractor, set(network.state_dict()))
        self.training = network.training

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one (B, channels, H/stride, W/stride) per entry of ``out_specs``."""
        maps = self._run[self.training](self, images)
        return [maps[spec.name] for spec in self.out_specs]

    def _adopt(self, extractor: nn.Module, saved_names: set[str]) -> None:
        """Take over the extractor's tensors under their names; those that the network does not save are not saved."""
        for name, module in extractor.named_children():
            self.add_module(name, module)
        for name, parameter in extractor.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in list(extractor.named_buffers()):
            place, _, last = name.rpartition(".")
            self.get_submodule(place).register_buffer(last, buffer, persistent=name in saved_names)


class _Map(NamedTuple):
    """What a layer gave for the probe image."""

    spec: FeatureSpec
    values: Tensor  # (1, channels, h, w)
    overwritten: bool  # by a later layer that works in place


class _AllSeenError(Exception):
    """Ends the probe when all wanted layers have run; it is no fault."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module has its own mode again."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def probe_image(network: nn.Module) -> Tensor:
    """(1, 3, *PROBE_HW) in [0, 1], where the network is and in its precision."""
    like = next(network.parameters(), torch.zeros(()))
    image = torch.linspace(0, 1, 3 * PROBE_HW[0] * PROBE_HW[1], device=like.device, dtype=like.dtype)
    return image.view(1, 3, *PROBE_HW)


def stride_of(values: object) -> int | None:
    """Input pixels per cell of a map of the probe image; None for what is no map or has no whole number."""
    if not isinstance(values, Tensor) or values.dim() != 4 or 0 in values.shape:
        return None
    (rows, height_left), (columns, width_left) = (
        divmod(size, cells) for size, cells in zip(PROBE_HW, values.shape[-2:], strict=True)
    )
    return rows if rows == columns and height_left == width_left == 0 else None


def _check_names(network: nn.Module, layers: Sequence[str]) -> None:
    known = [name for name, _ in network.named_modules() if name]
    for layer in layers:
        if layer not in known:
            hint, top = (
                did_you_mean(layer, known, 3, list_all=False),
                ", ".join(name for name, _ in network.named_children()),
            )
            raise ValueError(
                f"layers: {type(network).__name__} has no layer {layer!r}{hint}; at the top it has {top or 'none'}"
            )
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers: each wanted layer once, at least one; got {', '.join(layers) or 'none'}")


def _probe(network: nn.Module, layers: Sequence[str]) -> dict[str, _Map]:
    """Run the network until all layers have given their maps; those in the order of the network."""
    seen: dict[str, tuple[Tensor, Tensor, int]] = {}

    def listen(layer: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if layer in seen:
                raise ValueError(f"layers: {layer} runs more than once; name the layer around it")
            if not isinstance(output, Tensor) or stride_of(output) is None:
                raise ValueError(f"layers: {layer} {_not_a_map(output)}")
            seen[layer] = (output, output.clone(), output._version)  # noqa: SLF001  (counts changes in place)
            if len(seen) == len(layers):
                raise _AllSeenError

        return hook

    handles = [network.get_submodule(layer).register_forward_hook(listen(layer)) for layer in layers]
    try:
        network(probe_image(network))
    except _AllSeenError:
        pass
    else:
        unused = ", ".join(layer for layer in layers if layer not in seen)
        raise ValueError(f"layers: {unused} of {type(network).__name__} never runs in its forward; name another")
    finally:
        for handle in handles:
            handle.remove()
    maps = {}
    for layer, (output, values, version) in seen.items():
        spec = FeatureSpec(values.shape[1], stride_of(values) or 0, layer)
        maps[layer] = _Map(spec, values, output._version != version)  # noqa: SLF001
    return maps


def _not_a_map(output: object) -> str:
    if not isinstance(output, Tensor):
        return f"gives a {type(output).__name__}, no map (B, C, H, W); name a layer that gives one tensor"
    shape = tuple(output.shape)
    if output.dim() != 4 or 0 in shape:
        return f"gives {shape}, no map (B, C, H, W)"
    height, width = (f"{size / cells:g}" for size, cells in zip(PROBE_HW, shape[-2:], strict=True))
    return (
        f"gives {shape} for an image of {PROBE_HW[0]} x {PROBE_HW[1]} pixels: a stride of {height} x {width}, "
        "but one whole number is needed"
    )


def _extract(network: nn.Module, maps: dict[str, _Map]) -> DualGraphModule:
    """A copy of the network's skeleton with two graphs that end in the wanted maps."""
    name = type(network).__name__
    try:
        extractor = cast("DualGraphModule", create_feature_extractor(network, list(maps), suppress_diff_warning=True))
    except UNTRACEABLE as error:
        raise ValueError(
            f"{name} cannot be traced ({type(error).__name__}: {error}); write a backbone with out_specs and a forward "
            "that returns the list of its maps: README, Another backbone"
        ) from error
    for graph in (extractor.train_graph, extractor.eval_graph):
        _keep_overwritten(graph, maps)
    traced = fx.GraphModule(extractor, extractor.eval_graph)(probe_image(network))
    for layer, found in maps.items():
        if not torch.allclose(traced[layer], found.values, equal_nan=True):
            raise ValueError(
                f"layers: {layer} of {name} runs more than once, or does not return what it computes last; "
                "name a layer within it"
            )
    return extractor


def _keep_overwritten(graph: fx.Graph, maps: dict[str, _Map]) -> None:
    """Copy each map that a later layer would change in place, e.g. one before a ReLU."""
    output = next(node for node in graph.nodes if node.op == "output")
    results = dict(output.args[0])
    for layer, found in maps.items():
        if found.overwritten:
            with graph.inserting_after(results[layer]):
                results[layer] = graph.call_method("clone", (results[layer],))
    output.args = (results,)
