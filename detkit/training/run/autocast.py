"""bfloat16 where the hardware has it."""

from collections.abc import Mapping
from typing import Any

import torch

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")


def precision_here(given: Mapping[str, Any], capabilities: Mapping[str, bool] | None = None) -> str | int | None:
    """The precision to train and evaluate with on this machine.

    A CPU without instructions for bfloat16 computes it all the same, several times slower than float32.

    Args:
        given: the arguments of the recipe's trainer.
        capabilities: of the CPU; None: of this one.

    Returns:
        The recipe's precision; "32-true" where it is "bf16-mixed" and this CPU would compute it.
    """
    precision = given.get("precision")
    accelerator = given.get("accelerator", "auto")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    if precision != "bf16-mixed" or not on_cpu:
        return precision
    capabilities = torch.cpu.get_capabilities() if capabilities is None else capabilities
    return precision if any(capabilities.get(name) for name in BF16_INSTRUCTIONS) else "32-true"
