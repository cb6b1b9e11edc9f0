"""The common way of all terms, against numbers by hand."""

import pytest
import torch

from detkit.losses.reduction import reduce

VALUES = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64)
ROWS = torch.tensor([[1.0], [0.5]], dtype=torch.float64)  # weights that broadcast over the columns


def test_by_hand() -> None:
    assert reduce(VALUES) == 3
    assert reduce(VALUES, "sum") == 12
    assert reduce(VALUES, weight=2) == 6
    assert reduce(VALUES, "sum", element_weights=ROWS) == 3 + 4.5
    assert reduce(VALUES, element_weights=ROWS) == 7.5 / 3  # of the four weights 1, 1, 0.5, 0.5
    assert reduce(VALUES, weight=2, element_weights=ROWS, normaliser=torch.tensor(5.0)) == 3
    assert reduce(VALUES, "none", weight=2, element_weights=ROWS).tolist() == [[2, 4], [3, 6]]


def test_bool_weights_choose() -> None:
    assert reduce(VALUES, element_weights=VALUES > 2.5) == 4.5


def test_mean_over_nothing_is_zero() -> None:
    """No element, or none that weighs: a batch without objects must not break a step."""
    for values, weights in (
        (torch.zeros(0, 3, requires_grad=True), None),
        (torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3)),
    ):
        loss = reduce(values, element_weights=weights)
        loss.backward()
        assert loss == 0 and values.grad is not None and not values.grad.any()


def test_refuses_other_words() -> None:
    with pytest.raises(ValueError, match="mean, sum or none; got 'average'"):
        reduce(VALUES, "average")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a normaliser goes with reduction mean; got sum"):
        reduce(VALUES, "sum", normaliser=torch.tensor(2.0))
