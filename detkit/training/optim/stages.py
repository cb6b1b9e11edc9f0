"""The stages of a backbone, found in its structure: what ``freeze=2`` and ``layer_decay`` count."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from torch import nn

from detkit.errors import RecipeError


class Stage(NamedTuple):
    """A part of the backbone between two places where the stages around it meet.

    Args:
        modules: names in the model, e.g. ("backbone.conv1", "backbone.bn1").
        parameters: names in the model.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def stages_of(model: nn.Module, asked: str) -> list[Stage]:
    """The backbone's stages in the order in which it holds them; the stem is stage 0.

    A stage is a child of the backbone that has parameters. Instead of a child whose items are stages the
    items count one by one: a ModuleList, what ``out_specs`` name by number (``blocks.2``), or any Sequential
    where they name no layer. Single layers that follow each other are one stage up to a map that comes out,
    so a convolution and its norm are; a norm never is a stage of its own. A lone child is looked into; a child
    that all maps come out of, beside the network that feeds it, is the last stage. What no child holds, e.g.
    position embeddings, is the stem's. ResNet: conv1 and bn1, layer1, .., layer4. CSPDarknet: stem, stages.0, ...

    Args:
        model: with an attribute ``backbone``.
        asked: key and value that need stages, for the message.

    Raises:
        RecipeError: if the model has no backbone.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        has = ", ".join(name for name, _ in model.named_children())
        raise RecipeError(f"{asked} needs a model with a backbone; {type(model).__name__} has {has}")
    outs = [spec.name for spec in getattr(backbone, "out_specs", ())]
    last = _maker_of_all(backbone, outs)
    inner, wrapped = _unwrapped(backbone, last)
    prefix = ".".join(["backbone", *wrapped])
    outs = [out.removeprefix(".".join([*wrapped, ""])) for out in outs]
    modules = [[f"{prefix}.{path}" for path in paths] for paths in _joined(inner, outs, last)]
    modules = [*modules, *([[f"backbone.{last}"]] if last else [])] or [["backbone"]]
    parameters: list[list[str]] = [[] for _ in modules]
    for name, _ in model.named_parameters():
        if name.startswith("backbone."):
            holders = [number for number, paths in enumerate(modules) if any(name.startswith(f"{p}.") for p in paths)]
            parameters[holders[0] if holders else 0].append(name)
    return [Stage(tuple(paths), tuple(names)) for paths, names in zip(modules, parameters, strict=True)]


def _maker_of_all(backbone: nn.Module, outs: Collection[str]) -> str | None:
    """The child that makes every map of what the others give, e.g. the pyramid on a vision transformer."""
    for name, child in backbone.named_children():
        is_list = isinstance(child, nn.ModuleList | nn.Sequential)
        if outs and not is_list and all(out.startswith(f"{name}.") for out in outs) and len(_learning(backbone)) > 1:
            return name
    return None


def _unwrapped(module: nn.Module, last: str | None) -> tuple[nn.Module, list[str]]:
    """The module inside those that hold one child and nothing else but the last stage, and the way to it."""
    way: list[str] = []
    while len(learning := [pair for pair in _learning(module) if way or pair[0] != last]) == 1:
        name, child = learning[0]
        if next(child.children(), None) is None:
            break
        way.append(name)
        module = child
    return module, way


def _joined(backbone: nn.Module, outs: Collection[str], last: str | None) -> list[list[str]]:
    """Names of the modules of each stage."""
    flat = [out.replace(".", "_") for out in outs]  # timm writes features_3 for the layer features.3
    says_nothing = not any(
        out == name or out.startswith(f"{name}_") for out in flat for name, _ in backbone.named_children()
    )
    stages: list[list[str]] = []
    is_open = False  # so far the stage consists of single layers, and no map came out
    for path, child in _items(backbone, "", outs, nn.Sequential if says_nothing else nn.ModuleList):
        if path != last and _learns(child):
            single = next(child.children(), None) is None
            norm = all(parameter.ndim < 2 for parameter in child.parameters())
            if stages and (norm or (single and is_open)):
                stages[-1].append(path)
            else:
                stages.append([path])
                is_open = single
        is_open &= path.replace(".", "_") not in flat
    return stages


def _items(
    module: nn.Module, prefix: str, outs: Collection[str], split: type[nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = prefix + name
        numbered = any(out.startswith(f"{path}.") and out[len(path) + 1].isdigit() for out in outs)
        if numbered or isinstance(child, nn.ModuleList) or (isinstance(child, split) and not prefix):
            yield from _items(child, f"{path}.", outs, split)
        else:
            yield path, child


def _learning(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module.named_children() if _learns(child)]


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
