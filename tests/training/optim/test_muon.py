"""Muon against what its definition promises, and against torch's AdamW and Muon."""

import pytest
import torch

from detkit.training.optim.muon import Muon, orthogonalise


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(8, 8), (16, 144), (64, 16)], ids=str)
def test_singular_values_become_nearly_equal(shape: tuple[int, int]) -> None:
    """... and the singular vectors stay: the result lies along U V^T."""
    matrix = torch.randn(shape)
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(result.flatten(), (u @ vh).flatten(), dim=0) > 0.97


def test_matrices_move_as_with_torch_muon() -> None:
    start, grads = torch.randn(6, 10), [torch.randn(6, 10) for _ in range(4)]
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizers = [
        Muon([ours], lr=0.05, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.05, weight_decay=0.1, momentum=0.95, nesterov=True),
    ]
    for grad in grads:
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-3)  # bfloat16 inside: a tenth of lr


def test_vectors_move_as_with_torch_adamw() -> None:
    start, grads = torch.randn(9), [torch.randn(9) for _ in range(5)]
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizers = [
        Muon([ours], lr=0.02, weight_decay=0.1, adam_lr_factor=0.5),
        torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1),
    ]
    for grad in grads:
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_memory_layout_does_not_matter() -> None:
    """A convolution's weights in channels last move as contiguous ones do."""
    start, grad = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    moved = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        parameter = start.clone(memory_format=memory_format).requires_grad_()
        parameter.grad = grad.clone(memory_format=memory_format)
        Muon([parameter], lr=0.1).step()
        moved.append(parameter.detach().contiguous())
    torch.testing.assert_close(moved[0], moved[1])


def test_parameters_without_a_gradient_stay() -> None:
    parameter = torch.ones(3, 3, requires_grad=True)
    optimizer = Muon([parameter], weight_decay=0.5)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(3, 3)) and not optimizer.state


@pytest.mark.parametrize(
    ("arguments", "message"), [({"lr": 0.0}, "got lr=0.0"), ({"momentum": 1.0}, r"\[0, 1\); got 1.0")]
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon([torch.zeros(1, requires_grad=True)], **arguments)
