"""Batches of samples, made by worker processes or by this one; the stream is the same."""

import functools
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from detkit.data.loading.sampler import InOrderSampler, KeySampler
from detkit.data.loading.unreadable_images import LostImage, UnreadableImages
from detkit.data.loading.workers import IDLE, WORKER_LOST, WorkerEnd, Workers
from detkit.errors import DataError
from detkit.ops.targets import pack_labels, pack_targets
from detkit.types import Batch, ClassBatch, Target

Position = Callable[[], tuple[int, int] | None]  # epoch and batches done; None: where the sampler stands


class Loader:
    """Batches of a split; images (B, 3, H, W) uint8 in channels_last order.

    No subclass of DataLoader: Lightning would put its own sampler into one on several devices.

    Args:
        dataset: makes the samples.
        sampler: decides which.
        num_workers: processes, which stay alive between epochs until ``close``; 0: this one.
        unreadable: counts the images that others stood in for; None: none may be.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: KeySampler | InOrderSampler,
        num_workers: int = 0,
        unreadable: UnreadableImages | None = None,
    ) -> None:
        self.dataset: Any = dataset  # beyond torch's Dataset it makes a batch's samples at once, and reads images
        self.num_workers = num_workers
        self.unreadable = UnreadableImages(0) if unreadable is None else unreadable
        self._sampler = sampler
        self._loader: DataLoader[Any] | None = None
        self._workers = Workers(0)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        """The batches.

        Raises:
            DataError: if an image cannot be read and no other may stand in for it, or if a worker was killed.
        """
        batches = self._naming_the_dead(self._begin)
        while (made := self._naming_the_dead(next, batches, None)) is not None:
            if isinstance(made, DataError):
                raise made
            batch, lost = made
            self.unreadable.note(lost)
            yield batch

    def close(self) -> None:
        """End the workers. Left to the garbage collector, torch waits five seconds for each of them.

        Those of an iteration that an exception holds on to do not end with the loader.
        """
        self._loader = None
        self._workers.end_all()

    def _begin(self) -> Iterator[Any]:
        if self._loader is not None:
            return iter(self._loader)
        self._workers = Workers(self.num_workers)
        self._loader = self._make_loader()
        with self._workers.starting():
            return iter(self._loader)

    def _naming_the_dead(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call gives that may wait for workers."""
        try:
            with self._workers.waiting():
                return call(*arguments)
        except WORKER_LOST as error:
            end = self._workers.ended_by_now(error)
            if end is None:
                raise
            self._workers.end_all()
            raise self._fault(end) from error

    def _fault(self, end: WorkerEnd) -> DataError:
        epoch, sample, row = end.at_work
        images = self.dataset.images.index
        doing = "between two batches"
        if row != IDLE:
            doing = f"at image {images.image_ids[row]}: {images.path(row)} (epoch {epoch + 1}, sample {sample})"
        return DataError(f"{end.how()} {doing}. {end.remedy()} The last checkpoint is whole: go on with resume=true")

    def _make_loader(self) -> DataLoader[Any]:
        return DataLoader(
            self.dataset,
            batch_sampler=self._sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=functools.partial(_start_worker, self._workers),
        )


class TrainLoader(Loader):
    """One epoch of batches per iteration, from where training stands.

    # Note [lazy position]
    The position is read when the first batch is asked for, not when the iterator is made: Lightning
    makes iterators before it has restored its progress from a checkpoint, and workers that fetch
    ahead from then on would show the first resumed epoch in the order of epoch 0.

    Args:
        dataset: makes the samples.
        sampler: decides which, and counts the batches that were used.
        num_workers: processes, which stay alive between epochs; 0: this one.
        position: where training stands; without it or where it gives None, the sampler knows.
        unreadable: counts the images that others stood in for; None: none may be.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: KeySampler,
        num_workers: int = 0,
        position: Position | None = None,
        unreadable: UnreadableImages | None = None,
    ) -> None:
        super().__init__(dataset, sampler, num_workers, unreadable)
        self.key_sampler = sampler
        self._position = position

    def __iter__(self) -> Iterator[Any]:
        """The batches of the epoch that are not done yet."""
        position = self._position() if self._position is not None else None
        if position is not None:
            self.key_sampler.move_to(*position)
        for batch in super().__iter__():
            self.key_sampler.batch_done()  # before it is handed out: nobody may ask for the one after the last
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the sampler stands; with this Lightning knows that the loader can resume."""
        return self.key_sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Stand there again."""
        self.key_sampler.load_state_dict(state)


def lightning_position(trainer: L.Trainer) -> tuple[int, int] | None:
    """Where Lightning's own counters stand; they are in its checkpoints, so nothing else has to be."""
    if not trainer.training:
        return None
    return trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready


def collate(made: Any) -> tuple[Batch | ClassBatch, list[LostImage]] | DataError:
    """A batch and the images that others stood in for; a fault is handed on.

    The batch is few tensors, because every tensor that leaves a worker costs a file descriptor and some
    system calls, and every tensor is a copy to the device of its own.

    Args:
        made: what a data set's ``__getitems__`` gives.
    """
    if isinstance(made, DataError):
        return made
    samples, lost = made
    images = default_collate([torch.from_numpy(image) for image, _ in samples])  # in shared memory in a worker
    images, targets = images.permute(0, 3, 1, 2), [target for _, target in samples]
    if isinstance(targets[0], Target):
        return Batch(images, pack_targets(targets)), lost
    return ClassBatch(images, pack_labels(targets)), lost


def _start_worker(workers: Workers, worker: int) -> None:
    cv2.setNumThreads(0)  # else every worker would use all cores
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and a cluster send them to all processes,
        signal.signal(number, signal.SIG_IGN)  # but the main one ends its workers, once it has saved
    info = get_worker_info()
    assert info is not None, "torch calls this in a worker"
    info.dataset.images.at_work = workers.begin(worker)  # type: ignore[attr-defined]
