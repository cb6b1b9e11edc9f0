"""Values of all processes of a distributed run."""

from typing import TypeVar

from torch import distributed

Value = TypeVar("Value")


def of_all_ranks(value: Value) -> list[Value]:
    """The value of each rank, in order of the ranks; a list of one value without distributed ranks.

    Gathered as objects, because torch moves objects to the device of the backend; tensors would have to be there.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Value] = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
