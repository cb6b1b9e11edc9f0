"""A toy run on two ranks, each on a pretended GPU, to which something happens.

python -m tests.training.distributed.gpu_ranks SCENARIO FOLDER
leaves the run in FOLDER/runs, what each rank said in FOLDER/RANK.txt
and prints their exit codes.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from typing_extensions import override

from detkit.training import Parts, train
from tests.helpers.pretended_cuda import EVENTS
from tests.helpers.pretended_ranks import USED, PretendedDDP, on_two_ranks
from tests.helpers.toy import ToyData, ToyDetector, toy_parts


class SignalInValidation(L.Callback):
    """To one rank, after the second batch of the first validation."""

    @override
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.global_rank == 1 and batch_idx == 1 and trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


class SignalInStep(L.Callback):
    """To one rank, in the second step, after what all ranks agree on was sent."""

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


class CountOfAStep(L.Callback):
    """Prints what the fourth step sent to the other rank, and where it waited; the first three are drawn."""

    @override
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.begin = len(USED), len(EVENTS)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 3:
            used, events = self.begin
            print(json.dumps({"sent": USED[used:], "waits": [e for e in EVENTS[events:] if e.kind == "wait"]}))  # noqa: T201


def parts_of(
    runs: Path, *callbacks: L.Callback, epochs: int = 2, steps: int = 4, poison: int | None = None, **given: Any
) -> Parts:
    """Batches of four images on each rank, and so many steps an epoch."""
    trainer = {"accelerator": "gpu", "devices": 2, "strategy": PretendedDDP()}
    data = ToyData(length=8 * steps, batch_size=4, poison=poison)
    parts = toy_parts(runs, data=data, epochs=epochs, trainer=trainer, **given)
    parts.trainer.keywords["callbacks"] += callbacks
    return comparable(parts)


def comparable(parts: Parts) -> Parts:
    """Without what is of each rank alone: statistics of a batch, and dropout."""
    assert isinstance(parts.model, ToyDetector)
    parts.model.body = nn.Sequential(*(parts.model.body[layer] for layer in (0, 2, 3)))
    return parts


SCENARIOS: dict[str, Callable[[Path], Parts]] = {
    "whole": parts_of,
    "resume": lambda runs: parts_of(runs, resume=True),
    "signal in validation": lambda runs: parts_of(runs, SignalInValidation()),
    "signal in step": lambda runs: parts_of(runs, SignalInStep()),
    "early stop": lambda runs: parts_of(runs, EarlyStopping("val/AP", min_delta=2.0, patience=1, mode="max"), epochs=9),
    "skip": lambda runs: parts_of(runs, epochs=1, poison=5, non_finite="skip"),
    "stop": lambda runs: parts_of(runs, epochs=1, poison=5, non_finite="stop"),
    "count": lambda runs: parts_of(runs, CountOfAStep(), epochs=1, steps=6),
}


def main(scenario: str, folder: Path) -> None:
    """Run a scenario to its end."""
    ended = on_two_ranks(lambda: train(SCENARIOS[scenario](folder / "runs")), folder)
    print(json.dumps([rank.code for rank in ended]))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
