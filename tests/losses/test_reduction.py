"""The common way of all terms, against numbers by hand."""

import torch

from detkit.losses.reduction import reduce

VALUES = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64)
ROWS = torch.tensor([[1.0], [0.5]], dtype=torch.float64)  # weights that broadcast over the columns
FIVE = torch.tensor(5.0, dtype=torch.float64)


def test_by_hand() -> None:
    assert reduce(VALUES, FIVE) == 12 / 5
    assert reduce(VALUES, FIVE, weight=2) == 24 / 5
    assert reduce(VALUES, FIVE, element_weights=ROWS) == 7.5 / 5
    assert reduce(VALUES, FIVE, weight=2, element_weights=ROWS) == 3


def test_bool_weights_choose() -> None:
    assert reduce(VALUES, FIVE, element_weights=VALUES > 2.5) == 9 / 5


def test_nothing_is_zero() -> None:
    """No element, or none that weighs: a batch without objects must not break a step."""
    for values, weights in (
        (torch.zeros(0, 3, requires_grad=True), None),
        (torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3)),
    ):
        loss = reduce(values, FIVE, element_weights=weights)
        loss.backward()
        assert loss == 0 and values.grad is not None and not values.grad.any()
