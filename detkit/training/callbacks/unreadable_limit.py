"""Log the unreadable images of all ranks, and limit their number in a run."""

import contextlib
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import lightning as L
from typing_extensions import override

from detkit.errors import DataError
from detkit.training.distributed.ranks_watch import RanksWatch


class UnreadableImages(Protocol):
    """The unreadable images of a data module, each counted once."""

    @property
    def images(self) -> Mapping[str, NamedTuple]: ...  # by file, in the order of detection

    def add(self, images: Iterable[Sequence[object]], /) -> None:
        """Add unreadable images of other ranks.

        Raises:
            DataError: if there are more images than the limit.
        """


@runtime_checkable
class ReplacesUnreadable(Protocol):
    """Data that replaces unreadable images."""

    @property
    def unreadable(self) -> UnreadableImages: ...


class UnreadableReport(L.Callback):
    """Send each unreadable image of the data module to rank 0, which logs it.

    Args:
        data: nothing is reported if it has no ``unreadable``.
        ranks: sends values from other ranks to rank 0.
        event: logs an event: its name, the step, details.

    Raises:
        DataError: on rank 0, at the end of a step or an epoch, if all ranks have more images than the limit.
    """

    def __init__(
        self, data: object, ranks: RanksWatch, event: Callable[[str, int, Mapping[str, object]], None]
    ) -> None:
        self.unreadable = data.unreadable if isinstance(data, ReplacesUnreadable) else None
        self.ranks = ranks
        self.event = event
        self._reported = 0

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._receive()
        self._report(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Receive images that other ranks report after this rank has ended its last batch."""
        self._receive()
        self._report(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._receive()
        self._report(trainer)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(DataError):  # the first exception ends the run
            self._receive()
        self._report(trainer)

    def _receive(self) -> None:
        received = []
        with contextlib.suppress(queue.Empty):
            while True:
                received.append(self.ranks.received_values.get_nowait())
        if received and self.unreadable is not None:
            self.unreadable.add(received)

    def _report(self, trainer: L.Trainer) -> None:
        if self.unreadable is None or len(self.unreadable.images) == self._reported:
            return
        new = list(self.unreadable.images.values())[self._reported :]
        self._reported += len(new)
        for image in new:
            self.ranks.send_to_rank_0(image)
            if trainer.is_global_zero:
                self.event("image_replaced", trainer.global_step, image._asdict())
