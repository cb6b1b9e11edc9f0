"""CPU time that a training step spends on logging and on listing parameters, while a GPU may have no work.

    python -m results.host_time yolo_csp_n rtdetr_shufflenet

Trains each recipe for some steps on small images of the demo set on the CPU, with a logger, and prints milliseconds of
CPU time for each step, as Python's profiler counts them. They include the cost of the profiler, so they can be
compared but not added up.
"""

import cProfile
import io
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence

from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from detkit import recipe
from detkit.api import run_parts
from detkit.training import train

STEPS = 20
SMALL = (
    *("wandb=disabled", "weights=null", "data.image_hw=[64,64]", "data.batch_size=2", "data.num_workers=0"),
    *("trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=1", "trainer.precision=32-true"),
    *(f"trainer.limit_train_batches={STEPS}", "trainer.limit_val_batches=0"),
)
COUNTED = {"logging": ("log",), "listing tensors": ("named_parameters", "named_buffers")}


def milliseconds(name: str) -> dict[str, float]:
    """CPU milliseconds of a step for each kind of work."""
    one_size = ["data.multi_scale=null"] if name.startswith("rtdetr") else []
    with tempfile.TemporaryDirectory() as folder:
        parts = run_parts(recipe.load([f"recipe={name}", f"runs_dir={folder}", *SMALL, *one_size]))
        parts.trainer.keywords["logger"] = CSVLogger(folder)
        profile = cProfile.Profile(time.process_time)
        profile.runcall(train, parts, console=Console(file=io.StringIO()))
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    return {
        what: 1000 / STEPS * sum(of[3] for (_, _, function), of in stats.items() if function in functions)
        for what, functions in COUNTED.items()
    }


def main(names: Sequence[str]) -> None:
    """Measure each recipe and print a table."""
    for name in names:
        spent = ", ".join(f"{what} {value:.2f}" for what, value in milliseconds(name).items())
        print(f"{name}: ms a step: {spent}")


if __name__ == "__main__":
    main(sys.argv[1:])
