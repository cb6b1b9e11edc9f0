"""What the program of kills.py prints."""

import collections

from tests.reliability.kills import Killed, table_of


def test_what_the_table_says() -> None:
    good = Killed(4, collections.Counter(save=2, step=1), [], [], 2.0)
    lost = Killed(9, collections.Counter(save=1), ["start 9: exit code 1: error"], [], 3.0)
    other = Killed(3, collections.Counter(), [], ["weights.model.x: tensors"], 1.0)
    assert table_of([good, lost, other]).splitlines()[1:] == [
        "step              1",
        "save              3",
        "all               4",
        "runs 3, starts 16",
        "lost 1, not the same 1, 6 s",
        "  start 9: exit code 1: error",
        "  weights.model.x: tensors",
    ]
