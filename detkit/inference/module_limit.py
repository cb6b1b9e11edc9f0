"""A limit on the number of modules that the recipe of a file builds."""

import contextlib
from collections.abc import Iterator

from torch.nn.modules import module

from detkit.errors import CheckpointError


@contextlib.contextmanager
def limit_module_count(number: int) -> Iterator[None]:
    """Raise an error as soon as more than this number of modules and parameters are registered in this context.

    Raises:
        CheckpointError: if the limit is exceeded.
    """
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made > number:
            raise CheckpointError(
                f"the recipe makes more than {number} layers and parameters, which the weights do not"
            )

    hooks = (module.register_module_module_registration_hook, module.register_module_parameter_registration_hook)
    handles = [register(count) for register in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
