"""Cross-entropy against torch and closed forms, and the classifiers' loss on two ranks against one process."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from detkit.losses import ClassificationLoss
from detkit.losses.cross_entropy import cross_entropy
from detkit.types import ImageLabels

WEIGHTS = [0.2, 1.0, 3.0, 0.5]


def example(seed: int = 0, images: int = 6) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 4, generator=rng, dtype=torch.float64) * 3
    return logits, torch.randint(4, (images,), generator=rng)


def targets_of(labels: Tensor) -> ImageLabels:
    return ImageLabels(labels, np.arange(len(labels)))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torch(seed: int, weights: list[float] | None, label_smoothing: float) -> None:
    logits, labels = example(seed)
    class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(logits, labels, class_weights, label_smoothing=label_smoothing)
    loss = ClassificationLoss(label_smoothing, weights, cls_weight=2.0)(logits, targets_of(labels))
    torch.testing.assert_close(loss, {"cls": 2 * expected}, rtol=1e-12, atol=1e-12)


def test_equal_logits_give_the_logarithm_of_the_number_of_classes() -> None:
    for label_smoothing in (0.0, 0.3):
        loss = ClassificationLoss(label_smoothing)(torch.zeros(3, 7), targets_of(torch.tensor([0, 6, 3])))
        assert loss["cls"].item() == pytest.approx(math.log(7))


def test_two_classes_by_hand() -> None:
    """Scores 3/4 and 1/4; smoothing 0.2 asks for 0.9 and 0.1."""
    logits = torch.tensor([[math.log(3.0), 0.0]])
    plain = cross_entropy(logits, torch.tensor([0]))
    smooth = cross_entropy(logits, torch.tensor([0]), label_smoothing=0.2)
    assert plain.item() == pytest.approx(-math.log(0.75))
    assert smooth.item() == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25))


def test_smoothing_is_lowest_at_the_smoothed_target() -> None:
    smoothed = torch.tensor([0.925, 0.025, 0.025, 0.025], dtype=torch.float64)
    logits = smoothed.log()[None].requires_grad_()
    cross_entropy(logits, torch.tensor([0]), label_smoothing=0.1).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_half_precision_stays_finite(dtype: torch.dtype, weights: list[float] | None) -> None:
    logits = torch.tensor([[-6e4, 0.0, 6e4, 1.0], [3.0, -3.0, 0.5, 9.0]], dtype=dtype, requires_grad=True)
    loss = ClassificationLoss(0.1, weights)(logits, targets_of(torch.tensor([0, 3])))["cls"]
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_no_image_in_the_batch(weights: list[float] | None) -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = ClassificationLoss(class_weights=weights)(logits, targets_of(torch.zeros(0, dtype=torch.int64)))["cls"]
    loss.backward()
    assert loss == 0 and logits.grad is not None


def test_classes_without_weight_teach_nothing() -> None:
    logits, labels = example()
    loss = ClassificationLoss(class_weights=[0.0] * 4)(logits, targets_of(labels))["cls"]
    assert loss == 0


def _rank_gradients(rank: int, folder: str) -> None:
    """One of two ranks: rank 0 sees four images, rank 1 two; class weights differ."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, labels = example(seed=1)
    rows = slice(0, 4) if rank == 0 else slice(4, 6)
    logits.requires_grad_()
    total = ClassificationLoss(0.1, WEIGHTS)(logits[rows], targets_of(labels[rows]))["cls"]
    total.backward()
    torch.save((total.detach(), logits.grad), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_loss_of_one_process(tmp_path: Path) -> None:
    """The mean over ranks of losses and gradients is that of the joined batch."""
    spawn(_rank_gradients, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    logits, labels = example(seed=1)
    expected = F.cross_entropy(
        logits.requires_grad_(), labels, torch.tensor(WEIGHTS, dtype=torch.float64), label_smoothing=0.1
    )
    expected.backward()
    torch.testing.assert_close((ranks[0][0] + ranks[1][0]) / 2, expected.detach())
    torch.testing.assert_close((ranks[0][1] + ranks[1][1]) / 2, logits.grad)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0])
def test_refuses_odd_smoothing(label_smoothing: float) -> None:
    with pytest.raises(ValueError, match=rf"must lie in \[0, 1\); got {label_smoothing}"):
        ClassificationLoss(label_smoothing)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [float("nan"), 1.0], [float("inf"), 1.0]], ids=str)
def test_refuses_odd_weights(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"finite and not negative; got \[{weights[0]}, {weights[1]}\]"):
        ClassificationLoss(class_weights=weights)


def test_refuses_another_number_of_weights_or_labels() -> None:
    with pytest.raises(ValueError, match="one for each of the 3 classes; got 2"):
        ClassificationLoss(class_weights=[1.0, 2.0])(torch.zeros(1, 3), targets_of(torch.tensor([0])))
    with pytest.raises(ValueError, match=r"got logits \(2, 3\), labels \(1,\)"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0]))
