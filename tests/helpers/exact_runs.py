"""Parts of a run whose numbers do not depend on the device."""

from pathlib import Path
from typing import Any

import lightning as L

from detkit.training import Parts
from tests.helpers.toy import ToyData, toy_parts


def exact_parts(runs: Path, accelerator: str, *callbacks: L.Callback, devices: int = 1, **given: Any) -> Parts:
    """In double precision and without dropout, whose random numbers are of the device."""
    trainer = {"accelerator": accelerator, "devices": devices, "precision": "64-true", "sync_batchnorm": devices > 1}
    data = ToyData(length=32, batch_size=8 // devices)
    parts = toy_parts(runs, data=data, epochs=2, trainer=trainer, **given)
    parts.trainer.keywords["callbacks"] += callbacks
    dropout: Any = parts.model.get_submodule("body.4")
    dropout.p = 0.0
    return parts


def press(_: L.Trainer) -> None:
    raise KeyboardInterrupt
