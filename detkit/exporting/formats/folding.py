"""Folding of batch norms and rep blocks into convolutions: fewer layers that compute the same."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.utils import fuse_conv_bn_eval

from detkit.layers import rep


def folded(detector: nn.Module) -> nn.Module:
    """A copy in evaluation mode, with each rep block replaced by one convolution."""
    detector = copy.deepcopy(detector).eval()
    rep.fold(detector)
    return detector


def fold_norms(model: nn.Module, program: ExportedProgram) -> None:
    """Fold every batch norm whose input is a convolution that nothing else reads, in place.

    Args:
        model: in evaluation mode.
        program: captured from the model; it shows which layer reads which.
    """
    for conv_path, norm_path in list(_foldable(program)):
        conv, norm = model.get_submodule(conv_path), model.get_submodule(norm_path)
        if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
            model.set_submodule(conv_path, fuse_conv_bn_eval(conv, norm))
            model.set_submodule(norm_path, nn.Identity())


def _foldable(program: ExportedProgram) -> Iterator[tuple[str, str]]:
    """Paths of each convolution and of the batch norm that alone reads its output; both are called once."""
    for node in program.graph.nodes:
        if node.target != torch.ops.aten.batch_norm.default:
            continue
        before = node.args[0]
        follows = before.target == torch.ops.aten.conv2d.default and len(before.users) == 1
        if follows and _is_called_once(before) and _is_called_once(node):
            yield module_path(before), module_path(node)


def _is_called_once(layer: Node) -> bool:
    """Whether no other node reads its weights and statistics."""
    return all(len(source.users) == 1 for source in layer.args[1:] if isinstance(source, Node))


def module_path(node: Node) -> str:
    """The path, for ``get_submodule``, of the module that a node of a captured program comes from; "" for the root."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0] if stack else ""
