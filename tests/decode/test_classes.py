"""Ranked classes against numbers by hand and torch's own top-k."""

import pytest
import torch

from detkit.decode import ClassDecode


def test_by_hand() -> None:
    (ranked,) = ClassDecode(top_k=2)(torch.tensor([[1.0, 6.0, 3.0]]).log())
    assert ranked.labels.tolist() == [1, 2]
    torch.testing.assert_close(ranked.scores, torch.tensor([0.6, 0.3]))


def test_agrees_with_top_k() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores, labels = logits.softmax(1).topk(5)
    ranked = ClassDecode()(logits)
    assert torch.equal(torch.stack([image.labels for image in ranked]), labels)
    torch.testing.assert_close(torch.stack([image.scores for image in ranked]), scores)


def test_fewer_classes_than_wanted() -> None:
    (ranked,) = ClassDecode(top_k=5)(torch.zeros(1, 3))
    assert ranked.labels.tolist() == [0, 1, 2]  # equal scores go by class index
    torch.testing.assert_close(ranked.scores, torch.full((3,), 1 / 3))


def test_half_precision_and_large_logits() -> None:
    """Scores in float32: the first of a hundred equal classes has 0.01, not bfloat16's 0.00999."""
    (ranked, sure) = ClassDecode(1)(torch.stack([torch.zeros(100), torch.arange(100) * 600.0]).bfloat16())
    assert ranked.scores.dtype == torch.float32
    assert ranked.scores.item() == pytest.approx(0.01, abs=1e-8)
    assert (sure.labels.item(), sure.scores.item()) == (99, 1.0)


def test_no_image() -> None:
    assert ClassDecode()(torch.zeros(0, 3)) == []


def test_refuses_no_classes() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1; got 0"):
        ClassDecode(0)
