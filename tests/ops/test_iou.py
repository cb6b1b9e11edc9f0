"""Overlaps against torchvision, closed forms and bounds."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor

from detkit.ops.iou import IouKind, aligned_iou, pairwise_coverage, pairwise_iou


def random_boxes(count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=rng) * 50
    return torch.cat((corners, corners + torch.rand(count, 2, generator=rng) * 40 + 0.5), dim=1)


@pytest.mark.parametrize("seed", range(3))
def test_pairwise_iou_agrees_with_torchvision(seed: int) -> None:
    a, b = random_boxes(20, seed), random_boxes(30, seed + 100)
    torch.testing.assert_close(pairwise_iou(a, b), torchvision.ops.box_iou(a, b))


@pytest.mark.parametrize(
    ("kind", "reference"),
    [("giou", torchvision.ops.generalized_box_iou_loss), ("ciou", torchvision.ops.complete_box_iou_loss)],
)
def test_aligned_kinds_and_their_gradients_agree_with_torchvision(
    kind: IouKind, reference: Callable[[Tensor, Tensor], Tensor]
) -> None:
    a, b = random_boxes(40, 1).requires_grad_(), random_boxes(40, 2)
    ours = 1 - aligned_iou(a, b, kind)
    theirs = reference(a, b)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    (ours_grad,) = torch.autograd.grad(ours.sum(), a)
    (theirs_grad,) = torch.autograd.grad(theirs.sum(), a)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-3, atol=1e-5)


def test_aligned_iou_is_the_diagonal_of_pairwise() -> None:
    a, b = random_boxes(20, 3), random_boxes(20, 4)
    torch.testing.assert_close(aligned_iou(a, b), pairwise_iou(a, b).diagonal())


def test_coverage_by_hand() -> None:
    """A box of 4 x 4 of which the right half lies in a region of 100 x 100."""
    covered = pairwise_coverage(torch.tensor([[8.0, 0.0, 12.0, 4.0]]), torch.tensor([[10.0, 0.0, 110.0, 100.0]]))
    assert covered.tolist() == [[0.5]]


@pytest.mark.parametrize("kind", ["iou", "giou", "ciou"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_degenerate_boxes_stay_finite(kind: IouKind, dtype: torch.dtype) -> None:
    points = torch.tensor([[5.0, 5.0, 5.0, 5.0], [600.0, 0.0, 600.0, 3.0]], dtype=dtype, requires_grad=True)
    values = aligned_iou(points, points.detach().flip(0), kind)
    values.sum().backward()
    assert values.isfinite().all() and points.grad is not None and points.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["iou", "giou", "ciou"])
def test_one_at_the_truth(kind: IouKind) -> None:
    boxes = random_boxes(10, 5)
    torch.testing.assert_close(aligned_iou(boxes, boxes, kind), torch.ones(10))


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="iou, giou or ciou; got 'diou'"):
        aligned_iou(torch.zeros(1, 4), torch.zeros(1, 4), "diou")  # type: ignore[arg-type]
