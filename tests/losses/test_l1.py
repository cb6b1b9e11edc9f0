"""L1 and smooth L1 against torch and by hand."""

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F

from detkit.losses.l1 import l1_loss, smooth_l1_loss

Reduction = Literal["mean", "sum", "none"]


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 5, 4, generator=rng, dtype=torch.float64) * 2
    return first, second


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torch(seed: int, reduction: Reduction) -> None:
    predictions, targets = pair(seed)
    torch.testing.assert_close(
        l1_loss(predictions, targets, reduction=reduction), F.l1_loss(predictions, targets, reduction=reduction)
    )
    for beta in (0.0, 0.5, 1.0):
        ours = smooth_l1_loss(predictions, targets, beta, reduction=reduction)
        torch.testing.assert_close(ours, F.smooth_l1_loss(predictions, targets, reduction=reduction, beta=beta))


def test_smooth_by_hand() -> None:
    """d^2 / (2 beta) below beta, d - beta / 2 above, both the same at beta."""
    differences = torch.tensor([0.0, 0.1, 0.5, 2.0], dtype=torch.float64)
    loss = smooth_l1_loss(differences, torch.zeros_like(differences), beta=0.5, reduction="none")
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.01, 0.25, 1.75], dtype=torch.float64))


def test_weights_by_hand() -> None:
    predictions, targets = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    weights = torch.tensor([[1.0], [3.0]])
    assert l1_loss(predictions, targets, weight=2.0, element_weights=weights) == 2 * 24 / 8
    assert l1_loss(predictions, targets, element_weights=weights, normaliser=torch.tensor(6.0)) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", [l1_loss, smooth_l1_loss])
def test_half_precision_is_summed_in_float32(loss: Any, dtype: torch.dtype) -> None:
    predictions = torch.full((1000,), 60.0, dtype=dtype, requires_grad=True)
    total = loss(predictions, torch.zeros(1000), reduction="sum")
    total.backward()
    assert total.dtype == torch.float32 and total > 59_000
    assert predictions.grad is not None and predictions.grad.isfinite().all()


@pytest.mark.parametrize("loss", [l1_loss, smooth_l1_loss])
def test_nothing_to_compare(loss: Any) -> None:
    predictions = torch.zeros(0, 4, requires_grad=True)
    total = loss(predictions, torch.zeros(0, 4))
    total.backward()
    assert total == 0


@pytest.mark.parametrize("loss", [l1_loss, smooth_l1_loss])
def test_shapes_must_agree(loss: Any) -> None:
    with pytest.raises(ValueError, match=r"must have one shape; got \(3, 4\) and \(4,\)"):
        loss(torch.zeros(3, 4), torch.zeros(4))


def test_beta_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match=r"beta must not be negative; got -0\.5"):
        smooth_l1_loss(torch.zeros(1), torch.zeros(1), beta=-0.5)
