"""Norms and rep blocks folded into the convolutions before them: the same numbers from fewer layers."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.utils import fuse_conv_bn_eval

from detkit.layers import rep


def folded(detector: nn.Module) -> nn.Module:
    """A copy of a detector in evaluation mode whose rep blocks are single convolutions."""
    detector = copy.deepcopy(detector).eval()
    rep.fold(detector)
    return detector


def fold_norms(model: nn.Module, program: ExportedProgram) -> None:
    """Fold every batch norm that follows one convolution and nothing else follows it, in place.

    Args:
        model: in evaluation mode.
        program: captured of it; which layer follows which is read from there, whoever wrote the model.
    """
    for conv_path, norm_path in list(_pairs(program)):
        conv, norm = model.get_submodule(conv_path), model.get_submodule(norm_path)
        if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
            model.set_submodule(conv_path, fuse_conv_bn_eval(conv, norm))
            model.set_submodule(norm_path, nn.Identity())


def _pairs(program: ExportedProgram) -> Iterator[tuple[str, str]]:
    """Paths of convolutions and of the norms that alone read what they give; neither is called twice."""
    for node in program.graph.nodes:
        if node.target != torch.ops.aten.batch_norm.default:
            continue
        before = node.args[0]
        follows = before.target == torch.ops.aten.conv2d.default and len(before.users) == 1
        if follows and _is_called_once(before) and _is_called_once(node):
            yield module_path(before), module_path(node)


def _is_called_once(layer: Node) -> bool:
    """Whether nothing else reads its weights and statistics."""
    return all(len(given.users) == 1 for given in layer.args[1:] if isinstance(given, Node))


def module_path(node: Node) -> str:
    """The module that a node of a captured program comes from, as ``get_submodule`` knows it; "" for the whole."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0] if stack else ""
