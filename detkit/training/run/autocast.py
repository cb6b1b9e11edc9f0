"""The precision of a run: bfloat16 only where the hardware supports it."""

from collections.abc import Mapping
from typing import Any

import torch

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")


def supported_precision(
    trainer_arguments: Mapping[str, Any], capabilities: Mapping[str, bool] | None = None
) -> str | int | None:
    """The precision to train and evaluate with on this machine.

    A CPU without bfloat16 instructions emulates them, several times slower than float32.

    Args:
        trainer_arguments: arguments of the recipe's trainer.
        capabilities: instruction sets of the CPU; None: those of this machine.

    Returns:
        The recipe's precision; "32-true" in place of "bf16-mixed" if the model runs on a CPU without bfloat16.
    """
    precision = trainer_arguments.get("precision")
    accelerator = trainer_arguments.get("accelerator", "auto")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    if precision != "bf16-mixed" or not on_cpu:
        return precision
    capabilities = torch.cpu.get_capabilities() if capabilities is None else capabilities
    return precision if any(capabilities.get(name) for name in BF16_INSTRUCTIONS) else "32-true"
