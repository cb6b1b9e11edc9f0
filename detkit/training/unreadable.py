"""Images that others stood in for, on all ranks: into the log, and up to one limit for the whole run."""

import queue
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from typing_extensions import override

from detkit.training.ranks_watch import RanksWatch


class UnreadableReport(L.Callback):
    """Tell rank 0 of each image that the data module counts in ``unreadable``, and write it down there.

    A data module without it has no such images.

    Args:
        ranks: the way from other ranks to rank 0.
        event: writes down what happened: its name, the step, details.

    Raises:
        DataError: on rank 0, at the border of a step, if those of all ranks are more than the limit.
    """

    def __init__(self, ranks: RanksWatch, event: Callable[[str, int, Mapping[str, Any]], None]) -> None:
        self.ranks = ranks
        self.event = event
        self._reported = 0

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        try:
            while True:
                image = self.ranks.from_others.get_nowait()
                trainer.datamodule.unreadable.note([image])  # type: ignore[attr-defined]
        except queue.Empty:
            self._report(trainer)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._report(trainer)

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
