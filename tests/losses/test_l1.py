"""L1 against torch."""

import pytest
import torch
import torch.nn.functional as F

from detkit.losses.l1 import l1_loss


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torch(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    predictions, targets = torch.randn(2, 5, 4, generator=rng, dtype=torch.float64) * 2
    torch.testing.assert_close(l1_loss(predictions, targets).sum(), F.l1_loss(predictions, targets, reduction="sum"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    predictions = torch.full((1000,), 60.0, dtype=dtype, requires_grad=True)
    total = l1_loss(predictions, torch.zeros(1000)).sum()
    total.backward()
    assert total.dtype == torch.float32 and total == 60_000
    assert predictions.grad is not None and (predictions.grad == 1).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"must have one shape; got \(3, 4\) and \(4,\)"):
        l1_loss(torch.zeros(3, 4), torch.zeros(4))
