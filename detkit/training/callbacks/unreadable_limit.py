"""Images that could not be read and were replaced, on all ranks: logged, and limited for the whole run."""

import contextlib
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import lightning as L
from typing_extensions import override

from detkit.errors import DataError
from detkit.training.distributed.ranks_watch import RanksWatch


class UnreadableImages(Protocol):
    """The images that the data module could not read, each counted once."""

    @property
    def images(self) -> Mapping[str, NamedTuple]: ...  # by file, in the order in which they were found

    def add(self, images: Iterable[Sequence[object]], /) -> None:
        """Count images that other ranks could not read.

        Raises:
            DataError: if there are more than the limit.
        """


@runtime_checkable
class ReplacesUnreadable(Protocol):
    """Data that replace images that cannot be read."""

    @property
    def unreadable(self) -> UnreadableImages: ...


class UnreadableReport(L.Callback):
    """Send each image that the data module counts in ``unreadable`` to rank 0, which logs it.

    Args:
        data: without ``unreadable`` there is nothing to report.
        ranks: sends values from other ranks to rank 0.
        event: logs what happened: its name, the step, details.

    Raises:
        DataError: on rank 0, at the border of a step or an epoch, if those of all ranks are more than the limit.
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
        """Other ranks may report images of the last batch after this rank has ended it."""
        self._receive()
        self._report(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._receive()
        self._report(trainer)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(DataError):  # the run ends by what came first
            self._receive()
        self._report(trainer)

    def _receive(self) -> None:
        received = []
        with contextlib.suppress(queue.Empty):
            while True:
                received.append(self.ranks.from_others.get_nowait())
        if received and self.unreadable is not None:
            self.unreadable.add(received)

    def _report(self, trainer: L.Trainer) -> None:
        if self.unreadable is None or len(self.unreadable.images) == self._reported:
            return
        new = list(self.unreadable.images.values())[self._reported :]
        self._reported += len(new)
        for image in new:
            self.ranks.tell(image)
            if trainer.is_global_zero:
                self.event("image_replaced", trainer.global_step, image._asdict())
