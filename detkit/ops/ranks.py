"""What the other processes of a distributed run have."""

from typing import TypeVar

from torch import distributed

Value = TypeVar("Value")


def of_all_ranks(value: Value) -> list[Value]:
    """The value of each rank, in their order; a list of one where there are no others.

    Gathered as objects, which the library brings to wherever its backend wants them: a tensor would have to lie there.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Value] = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
