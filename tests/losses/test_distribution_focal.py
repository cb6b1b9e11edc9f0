"""Distribution focal loss against values by hand, a slow reference, and its own promises."""

import math

import pytest
import torch
from torch import Tensor

from detkit.losses.distribution_focal import distribution_focal_loss


def slow_reference(logits: Tensor, distances: Tensor) -> Tensor:
    """Equation 6 of the paper, one side at a time."""
    num_bins = logits.shape[-1]
    per_point = []
    for point_logits, point_distances in zip(logits, distances, strict=True):
        sides = []
        for side_logits, distance in zip(point_logits, point_distances.tolist(), strict=True):
            probs = torch.softmax(side_logits, dim=0).tolist()
            y = min(max(distance, 0.0), num_bins - 1)
            left = min(math.floor(y), num_bins - 2)
            sides.append(-((left + 1 - y) * math.log(probs[left]) + (y - left) * math.log(probs[left + 1])))
        per_point.append(sum(sides) / 4)
    return torch.tensor(per_point)


def test_golden_uniform_logits() -> None:
    """With equal logits every bin has probability 1/R, so the loss is ln R whatever the distance."""
    loss = distribution_focal_loss(torch.zeros(2, 4, 16), torch.rand(2, 4) * 15)
    torch.testing.assert_close(loss, torch.full((2,), math.log(16)))


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_slow_reference(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, 4, 16, generator=rng)
    distances = torch.rand(7, 4, generator=rng) * 20 - 2  # some outside of [0, 15]
    torch.testing.assert_close(distribution_focal_loss(logits, distances), slow_reference(logits, distances))


def test_lowest_at_the_true_distance() -> None:
    """Property: the best logits for a distance are those of its own two-bin mixture."""
    distances = torch.full((1, 4), 3.25)
    best = torch.full((1, 4, 8), -30.0)
    best[..., 3], best[..., 4] = math.log(0.75), math.log(0.25)
    for bin_index in range(8):
        other = best.clone()
        other[..., bin_index] += 0.5
        assert distribution_focal_loss(best, distances) <= distribution_focal_loss(other, distances)


def test_no_positive_points() -> None:
    loss = distribution_focal_loss(torch.zeros(0, 4, 16, requires_grad=True), torch.zeros(0, 4))
    assert loss.shape == (0,)
    loss.sum().backward()  # an image without objects must not break a step


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"logits \(3, 4, 16\) and distances \(2, 4\)"):
        distribution_focal_loss(torch.zeros(3, 4, 16), torch.zeros(2, 4))
