"""The stages of a backbone, derived from its module structure, for ``freeze=2`` and ``layer_decay``."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from torch import nn

from detkit.errors import RecipeError


class Stage(NamedTuple):
    """One stage of a backbone.

    Args:
        modules: names of its modules in the model, e.g. ("backbone.conv1", "backbone.bn1").
        parameters: names of its parameters in the model.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def stages_of(model: nn.Module, setting: str) -> list[Stage]:
    """The backbone's stages in the order of its modules; the stem is stage 0.

    A stage is a child of the backbone with parameters, by these rules:

    - The items of a ModuleList, of a child that ``out_specs`` name by number (``blocks.2``), or of any Sequential if
      ``out_specs`` name no layer, are separate stages.
    - Consecutive single layers, e.g. a convolution and its norm, are one stage up to the next output feature map.
    - A norm is never a stage of its own.
    - If the backbone has only one child, the rules apply to the children of that child.
    - If one of several children produces all output feature maps, it is the last stage.
    - Parameters outside the children, e.g. position embeddings, belong to the stem.

    ResNet: conv1 and bn1, layer1, .., layer4. CSPDarknet: stem, stages.0, ...

    Args:
        model: has an attribute ``backbone``.
        setting: key and value that need the stages, for the error message.

    Raises:
        RecipeError: if the model has no backbone.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        parts = ", ".join(name for name, _ in model.named_children())
        raise RecipeError(f"{setting} needs a model with a backbone; {type(model).__name__} has {parts}")
    out_names = [spec.name for spec in getattr(backbone, "out_specs", ())]
    last = _last_stage_name(backbone, out_names)
    inner, wrapped = _unwrap(backbone, last)
    prefix = ".".join(["backbone", *wrapped])
    out_names = [out.removeprefix(".".join([*wrapped, ""])) for out in out_names]
    modules = [[f"{prefix}.{path}" for path in paths] for paths in _group_into_stages(inner, out_names, last)]
    modules = [*modules, *([[f"backbone.{last}"]] if last else [])] or [["backbone"]]
    parameters: list[list[str]] = [[] for _ in modules]
    for name, _ in model.named_parameters():
        if name.startswith("backbone."):
            holders = [number for number, paths in enumerate(modules) if any(name.startswith(f"{p}.") for p in paths)]
            parameters[holders[0] if holders else 0].append(name)
    return [Stage(tuple(paths), tuple(names)) for paths, names in zip(modules, parameters, strict=True)]


def _last_stage_name(backbone: nn.Module, out_names: Collection[str]) -> str | None:
    """The child that makes all output feature maps, e.g. the pyramid on a vision transformer; None: there is none."""
    if not out_names or len(_trainable_children(backbone)) == 1:
        return None
    for name, child in backbone.named_children():
        is_list = isinstance(child, nn.ModuleList | nn.Sequential)
        if not is_list and all(out.startswith(f"{name}.") for out in out_names):
            return name
    return None


def _unwrap(module: nn.Module, last: str | None) -> tuple[nn.Module, list[str]]:
    """The innermost module after modules with one child besides the last stage, and the names on the path to it."""
    path: list[str] = []
    while len(children := [pair for pair in _trainable_children(module) if path or pair[0] != last]) == 1:
        name, child = children[0]
        if next(child.children(), None) is None:
            break
        path.append(name)
        module = child
    return module, path


def _group_into_stages(backbone: nn.Module, out_names: Collection[str], last: str | None) -> list[list[str]]:
    """The names of the modules of each stage."""
    flat = [out.replace(".", "_") for out in out_names]  # timm writes features_3 for the layer features.3
    names_no_layer = not any(
        out == name or out.startswith(f"{name}_") for out in flat for name, _ in backbone.named_children()
    )
    stages: list[list[str]] = []
    is_open = False  # the stage consists of single layers, and none of them is an output
    for path, child in _items(backbone, "", out_names, nn.Sequential if names_no_layer else nn.ModuleList):
        if path != last and _has_parameters(child):
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
    module: nn.Module, prefix: str, out_names: Collection[str], split: type[nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = prefix + name
        numbered = any(out.startswith(f"{path}.") and out[len(path) + 1].isdigit() for out in out_names)
        if numbered or isinstance(child, nn.ModuleList) or (isinstance(child, split) and not prefix):
            yield from _items(child, f"{path}.", out_names, split)
        else:
            yield path, child


def _trainable_children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module.named_children() if _has_parameters(child)]


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
