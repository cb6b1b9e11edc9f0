"""Images per second of training: the network alone, the step, the step with its data, and a whole run.

    python -m results.train_step recipe=yolo_csp_n data.root=data/bccd data.image_hw=[320,320]

Four loops run with the same model. The first three take turns, so that a change in the load of the machine meets all:
    network   forward, backward and optimizer on one batch that stays in memory; the loss is a plain mean
    step      the same with the real loss, gradient clipping and EMA
    with data the same on batches from the loader with its workers
    fit       Lightning's loop with all callbacks: the number that a run reports; measured once
"""

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_leaves

from detkit import recipe
from detkit.api import run_parts
from detkit.training import Parts, parameter_groups, train
from detkit.training.run.autocast import supported_precision
from detkit.types import Batch

ROUNDS, STEPS, WARM_UP = 3, 10, 3


class Step:
    """One training step, with or without loss, clipping and EMA."""

    def __init__(self, parts: Parts) -> None:
        self.model = parts.model.to(memory_format=torch.channels_last).train()
        self.loss = parts.loss
        self.optimizer = parts.optimizer(parameter_groups(self.model))
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
        self.clip = parts.trainer.keywords.get("gradient_clip_val")
        self.is_bf16 = supported_precision(parts.trainer.keywords) == "bf16-mixed"

    def network(self, batch: Batch) -> None:
        """Forward, backward, optimizer."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            outputs = tree_leaves(self._predictions(batch))
        learnt = [output for output in outputs if isinstance(output, Tensor) and output.requires_grad]
        self._update(sum(output.float().square().mean() for output in learnt))

    def whole(self, batch: Batch) -> None:
        """The step with the loss of training, clipping and EMA."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16):
            terms = self.loss(self._predictions(batch), batch.targets)
        self._update(torch.stack(tuple(terms.values())).sum(), self.clip)
        self.average.update_parameters(self.model)

    def _predictions(self, batch: Batch) -> Any:
        return self.model(batch.images, batch.targets if self.model.takes_targets else None)

    def _update(self, total: Tensor | int, clip: float | None = None) -> None:
        assert isinstance(total, Tensor), "a head gives predictions"
        self.optimizer.zero_grad()
        total.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()


def images_per_s(step: object, batches: Iterable[Batch]) -> float:
    """Images per second over STEPS steps after the warm-up."""
    images, start = 0, 0.0
    for number, batch in enumerate(batches):
        if number == WARM_UP:
            start = time.perf_counter()
        if number >= WARM_UP + STEPS:
            break
        step(batch)  # type: ignore[operator]
        images += len(batch.images) if number >= WARM_UP else 0
    return images / (time.perf_counter() - start)


def endless(parts: Parts) -> Iterable[Batch]:
    """Batches of all epochs, as the model gets them."""
    loader = parts.datamodule.train_dataloader()
    try:
        while True:
            for batch in loader:
                yield parts.datamodule.on_after_batch_transfer(batch, 0)
    finally:
        loader.close()


def fit_speed(argv: list[str]) -> float:
    """Images per second that a short run reports for its last epoch."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        short = ["trainer.max_epochs=3", "data.augmentation.close_mosaic_epochs=0", "trainer.limit_val_batches=1"]
        plan = recipe.load([*argv, *short, "wandb=disabled", f"runs_dir={folder}"])
        done = train(run_parts(plan), console=Console(quiet=False, file=io.StringIO()))
        rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
        return [row["images_per_s"] for row in rows if row["kind"] == "epoch"][-1]


def main(argv: list[str]) -> None:
    """Measure the loops and print a line for each."""
    plan = recipe.load(argv)
    recipe.check(plan)
    parts = run_parts(plan)
    step = Step(parts)
    stay = next(iter(endless(parts)))
    found: dict[str, list[float]] = {"network": [], "step": [], "with data": [], "fit": []}
    for _ in range(ROUNDS):
        found["network"].append(images_per_s(step.network, [stay] * (WARM_UP + STEPS)))
        found["step"].append(images_per_s(step.whole, [stay] * (WARM_UP + STEPS)))
        found["with data"].append(images_per_s(step.whole, endless(parts)))
    found["fit"].append(fit_speed(argv))
    parameters = sum(p.numel() for p in parts.model.parameters())
    print(f"{plan.name}: {parameters / 1e6:.2f} million parameters, {torch.get_num_threads()} threads")
    base = statistics.median(found["network"])
    for name, speeds in found.items():
        middle = statistics.median(speeds)
        spread = f"({min(speeds):.1f} to {max(speeds):.1f})"
        print(f"{name:10} {middle:6.1f} images/s {spread}, {middle / base:.2f} of network")


if __name__ == "__main__":
    main(sys.argv[1:])
