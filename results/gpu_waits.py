"""What the host waits for and copies in one training step on a GPU, by line of detkit; no GPU is needed.

    python -m results.gpu_waits yolo_csp_n yolox_nano rtdetr_shufflenet classify_csp

Trains each recipe for a few steps on small images of the demo set, with a logger. The tensors say that they are on a
CUDA device and keep their numbers on the CPU. In the counted step nothing is logged, drawn or saved. An "event" is a
wait for an earlier copy; the device works on with what was queued after that copy.
"""

import io
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from typing_extensions import override

from detkit import recipe
from detkit.api import run_parts
from detkit.training import train
from tests.helpers.pretended_cuda import EVENTS, Event, PretendedCuda, pretend

STEPS, COUNTED = 5, 4  # pictures show the first three batches; the epoch ends in the last
SMALL = f"""
wandb=disabled weights=null data.image_hw=[64,64] data.batch_size=2 data.num_workers=0
trainer.accelerator=gpu trainer.devices=1 trainer.max_epochs=1 trainer.accumulate_grad_batches=1
trainer.limit_train_batches={STEPS} trainer.limit_val_batches=1 trainer.num_sanity_val_steps=0
"""
OF_RECIPE = {  # makes it small, or adds what a run adds late
    "yolo_csp_n": "model.backbone.width_multiple=0.125",
    "yolox_nano": "model.backbone.width_multiple=0.125 data.multi_scale=null loss.l1_weight=1",
    "rtdetr_shufflenet": "model.backbone.width=x0_5 model.neck.channels=32 model.head.channels=32 "
    "model.head.num_layers=2 model.head.num_queries=30 data.multi_scale=null",
    "classify_csp": "model.backbone.width_multiple=0.125",
}


class Steps(L.Callback):
    """Notes how long EVENTS is at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    @override
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(len(EVENTS))


def events_of_a_step(name: str) -> list[Event]:
    """Train a recipe for an epoch of a few steps, with its validation."""
    EVENTS.clear()
    with tempfile.TemporaryDirectory() as folder, PretendedCuda():
        given = [f"recipe={name}", f"runs_dir={folder}", *SMALL.split(), *OF_RECIPE.get(name, "").split()]
        parts = run_parts(recipe.load(given))
        steps, keywords = Steps(), parts.trainer.keywords
        keywords |= {"logger": CSVLogger(folder), "callbacks": [*keywords.get("callbacks", []), steps]}
        train(parts, console=Console(file=io.StringIO()))
        return EVENTS[steps.ends[COUNTED - 2] : steps.ends[COUNTED - 1]]


def main(names: Sequence[str]) -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    pretend()
    counted = [Counter(events_of_a_step(name)) for name in names]
    events = sorted(set[Event]().union(*counted), key=_order)
    waits = [sum(of_recipe[event] for event in events if _order(event)[0] == 0) for of_recipe in counted]
    print("|", " | ".join(("line", "what", *names)), "|\n|", " | ".join(("---", "---", *["---:"] * len(names))), "|")
    print("| all | **waits** |", " | ".join(f"**{count}**" for count in waits), "|")
    for event in events:
        what = f"wait: {event.what}" if _order(event)[0] == 0 else event.what
        counts = (str(of_recipe[event] or "") for of_recipe in counted)
        print(f"| {event.place.removeprefix('detkit/')} | {what} |", " | ".join(counts), "|")


def _order(event: Event) -> tuple[int, str, int]:
    """Waits for the device come first, then waits for earlier copies, then copies; each by file and line."""
    file, _, line = event.place.partition(":")
    return (2 if event.kind == "copy" else int(event.what == "event")), file, int(line or 0)


if __name__ == "__main__":
    main(sys.argv[1:])
