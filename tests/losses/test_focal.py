"""Class losses against closed forms and torchvision."""

import math

import pytest
import torch
import torchvision

from detkit.losses.focal import ClassLossKind, class_loss


def test_golden_at_even_odds() -> None:
    """Logit 0: cross-entropy is ln 2; focal weighs it by (0.5 - target)^2; varifocal by the target, or 0.75 * 0.25."""
    logits, targets = torch.zeros(3), torch.tensor([0.0, 0.5, 1.0])
    ln2 = math.log(2)
    torch.testing.assert_close(class_loss(logits, targets), torch.full((3,), ln2))
    torch.testing.assert_close(class_loss(logits, targets, "focal"), torch.tensor([0.25, 0.0, 0.25]) * ln2)
    torch.testing.assert_close(class_loss(logits, targets, "varifocal"), torch.tensor([0.1875, 0.5, 1.0]) * ln2)


def test_focal_of_hard_targets_agrees_with_torchvision() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=rng) * 3
    targets = (torch.rand(50, generator=rng) < 0.3).float()
    reference = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2)
    torch.testing.assert_close(class_loss(logits, targets, "focal"), reference)


@pytest.mark.parametrize("kind", ["bce", "focal", "varifocal"])
def test_lowest_where_the_score_is_the_target(kind: ClassLossKind) -> None:
    logits = torch.linspace(-6, 6, 241)
    losses = class_loss(logits, torch.full_like(logits, 0.7), kind)
    assert abs(logits[losses.argmin()].sigmoid().item() - 0.7) < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["bce", "focal", "varifocal"])
def test_extreme_logits_stay_finite(kind: ClassLossKind, dtype: torch.dtype) -> None:
    logits = torch.tensor([-6e4, -30.0, 0.0, 30.0, 6e4], dtype=dtype, requires_grad=True)
    loss = class_loss(logits, torch.tensor([0.0, 1.0, 0.3, 0.0, 1.0]), kind)
    loss.sum().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="bce, focal or varifocal; got 'hinge'"):
        class_loss(torch.zeros(1), torch.zeros(1), "hinge")  # type: ignore[arg-type]
