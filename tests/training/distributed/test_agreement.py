"""What ranks ask for at the end of a step, and what all ranks agree on."""

from types import SimpleNamespace
from typing import Any

import torch

from detkit.training.distributed.agreement import StepRequests, max_over_ranks

CPU = torch.device("cpu")
ONE: Any = SimpleNamespace(world_size=1)
TWO: Any = SimpleNamespace(world_size=2)


def test_the_highest_of_all_ranks_counts() -> None:
    """The signals 2 and 15 on two ranks, a save that one of them wants, and a failure that none has."""
    ours, theirs = StepRequests(lambda: 2, lambda: False, lambda: True), StepRequests(lambda: 15, bool, bool)
    least = torch.minimum(ours.encoded(CPU), theirs.encoded(CPU)).tolist()
    for requests in (ours, theirs):
        assert requests.agreed(TWO) == [0, 0, 0]  # nothing was heard yet
        requests.receive(least)
        assert requests.agreed(TWO) == [15, 0, 1]
    assert ours.agreed(ONE) == [2, 0, 1] == max_over_ranks(ONE, 2, False, True)


def test_nothing_is_copied_to_the_device_while_nothing_changes() -> None:
    number = 0
    requests = StepRequests(lambda: number)
    first = requests.encoded(CPU)
    assert requests.encoded(CPU) is first
    number = 15
    changed = requests.encoded(CPU)
    assert changed.tolist() == [255 - 15] and requests.encoded(CPU) is changed
