"""Images that others stood in for, on all ranks: into the log, and up to one limit for the whole run."""

import contextlib
import queue
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from typing_extensions import override

from detkit.errors import DataError
from detkit.training.distributed.ranks_watch import RanksWatch


class UnreadableReport(L.Callback):
    """Tell rank 0 of each image that the data module counts in ``unreadable``, and write it down there.

    A data module without it has no such images.

    Args:
        ranks: the way from other ranks to rank 0.
        event: writes down what happened: its name, the step, details.

    Raises:
        DataError: on rank 0, at the border of a step or an epoch, if those of all ranks are more than the limit.
    """

    def __init__(self, ranks: RanksWatch, event: Callable[[str, int, Mapping[str, Any]], None]) -> None:
        self.ranks = ranks
        self.event = event
        self._reported = 0

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._hear(trainer)
        self._report(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What others said of the last batch, perhaps after this rank had ended it."""
        self._hear(trainer)
        self._report(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._hear(trainer)
        self._report(trainer)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(DataError):  # the run ends by what came first
            self._hear(trainer)
        self._report(trainer)

    def _hear(self, trainer: L.Trainer) -> None:
        said = []
        with contextlib.suppress(queue.Empty):
            while True:
                said.append(self.ranks.from_others.get_nowait())
        if said:
            trainer.datamodule.unreadable.note(said)  # type: ignore[attr-defined]

    def _report(self, trainer: L.Trainer) -> None:
        images = getattr(getattr(trainer, "datamodule", None), "unreadable", None)
        if images is None or len(images.images) == self._reported:
            return
        new = list(images.images.values())[self._reported :]
        self._reported += len(new)
        for image in new:
            self.ranks.tell(image)
            if trainer.is_global_zero:
                self.event("image_replaced", trainer.global_step, image._asdict())
