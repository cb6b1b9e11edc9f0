"""Batches of samples, made by worker processes or by this one; the stream is the same."""

import functools
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, cast

import cv2
import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from detkit.data.loading.keyed_dataset import KeyedDataset, Samples
from detkit.data.loading.sampler import InOrderSampler, KeySampler
from detkit.data.loading.unreadable_images import UnreadableCounter, UnreadableImage
from detkit.data.loading.workers import IDLE, WORKER_ERRORS, WorkerEnd, Workers
from detkit.errors import DataError
from detkit.ops.targets import pack_labels, pack_targets
from detkit.types import Batch, ClassBatch, ImageLabel, Target

Position = Callable[[], tuple[int, int] | None]  # epoch and batches done; None: the position of the sampler
SampleDataset = KeyedDataset[Target] | KeyedDataset[ImageLabel]
DatasetT = TypeVar("DatasetT", bound=SampleDataset)
BatchT = TypeVar("BatchT", Batch, ClassBatch)
Collated = tuple[BatchT, list[UnreadableImage]] | DataError
_Value = TypeVar("_Value")


class Loader(Generic[DatasetT, BatchT]):
    """Batches of a split; images (B, 3, H, W) uint8 in channels_last order.

    It is not a subclass of DataLoader, because on several devices Lightning would replace the sampler of one.

    Args:
        dataset: makes the samples.
        sampler: decides which samples form a batch.
        num_workers: processes, which live until ``close``; 0: samples are made in this process.
        unreadable: counts the replaced images; None: no image may be replaced.
    """

    def __init__(
        self,
        dataset: DatasetT,
        sampler: KeySampler | InOrderSampler,
        num_workers: int = 0,
        unreadable: UnreadableCounter | None = None,
    ) -> None:
        self.dataset = dataset
        self.num_workers = num_workers
        self.unreadable = UnreadableCounter(0) if unreadable is None else unreadable
        self._sampler = sampler
        self._loader: DataLoader[Collated[BatchT]] | None = None
        self._workers = Workers(0)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[BatchT]:
        """The batches.

        Raises:
            DataError: if an image cannot be read and may not be replaced, or if a worker was killed.
        """
        batches = self._watch_workers(self._begin)
        while (collated := self._watch_workers(lambda: next(batches, None))) is not None:
            if isinstance(collated, DataError):
                raise collated
            batch, unreadable = collated
            self.unreadable.add(unreadable)
            yield batch

    def close(self) -> None:
        """Kill the workers. If the garbage collector ended them, torch would wait five seconds for each.

        Without this, the workers of an iterator that an exception refers to would outlive the loader.
        """
        self._loader = None
        self._workers.kill_all()

    def _begin(self) -> Iterator[Collated[BatchT]]:
        if self._loader is not None:
            return iter(self._loader)
        self._workers = Workers(self.num_workers)
        self._loader = self._make_loader()
        with self._workers.starting():
            return iter(self._loader)

    def _watch_workers(self, call: Callable[[], _Value]) -> _Value:
        """The result of a call that may wait for workers; a DataError if one of them has ended."""
        try:
            with self._workers.waiting():
                return call()
        except WORKER_ERRORS as error:
            end = self._workers.ended_after(error)
            if end is None:
                raise
            self._workers.kill_all()
            raise self._error_of(end) from error

    def _error_of(self, end: WorkerEnd) -> DataError:
        epoch, sample, row = end.current_work
        images = self.dataset.images.index
        place = "between two batches"
        if row != IDLE:
            place = f"at image {images.image_ids[row]}: {images.path(row)} (epoch {epoch + 1}, sample {sample})"
        return DataError(
            f"{end.describe()} {place}. {end.remedy()} The last checkpoint is complete: continue with resume=true"
        )

    def _make_loader(self) -> DataLoader[Collated[BatchT]]:
        return DataLoader(
            cast("Dataset[Collated[BatchT]]", self.dataset),  # torch's types do not know __getitems__
            batch_sampler=self._sampler,
            num_workers=self.num_workers,
            collate_fn=collate,  # pyright: ignore[reportArgumentType]
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=functools.partial(_start_worker, self._workers),
        )


class TrainLoader(Loader[DatasetT, BatchT]):
    """One epoch of batches per iteration, from the position of the training.

    # Note [lazy position]
    The position is read when the first batch is requested, not when the iterator is made. Lightning makes iterators
    before it restores its progress from a checkpoint. Workers that fetch batches ahead would otherwise make the first
    resumed epoch in the order of epoch 0.

    Args:
        dataset: makes the samples.
        sampler: decides which samples form a batch, and counts the batches that were used.
        num_workers: processes, which live until ``close``; 0: samples are made in this process.
        position: gives the position of the training; None: the sampler's own is used.
        unreadable: counts the replaced images; None: no image may be replaced.
    """

    def __init__(
        self,
        dataset: DatasetT,
        sampler: KeySampler,
        num_workers: int = 0,
        position: Position | None = None,
        unreadable: UnreadableCounter | None = None,
    ) -> None:
        super().__init__(dataset, sampler, num_workers, unreadable)
        self.key_sampler = sampler
        self._position = position

    def __iter__(self) -> Iterator[BatchT]:
        """The batches of the epoch that are not done yet."""
        position = self._position() if self._position is not None else None
        if position is not None:
            self.key_sampler.move_to(*position)
        for batch in super().__iter__():
            self.key_sampler.batch_done()  # before the yield: the batch after the last one may never be requested
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The sampler's position. Lightning resumes loaders that have this method."""
        return self.key_sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the position."""
        self.key_sampler.load_state_dict(state)


def lightning_position(trainer: L.Trainer) -> tuple[int, int] | None:
    """Epoch and batches done by Lightning's own counters, which its checkpoints contain."""
    if not trainer.training:
        return None
    return trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready


def collate(
    made: tuple[Samples[Target] | Samples[ImageLabel], list[UnreadableImage]] | DataError,
) -> tuple[Batch | ClassBatch, list[UnreadableImage]] | DataError:
    """A batch and the replaced images; an error is returned as it is.

    The batch consists of few tensors, because each tensor from a worker costs a file descriptor and system calls, and
    each is copied to the device separately.

    Args:
        made: by ``__getitems__`` of a data set.
    """
    if isinstance(made, DataError):
        return made
    samples, unreadable = made
    images = default_collate([torch.from_numpy(image) for image, _ in samples])  # in a worker: in shared memory
    images = images.permute(0, 3, 1, 2)
    if isinstance(samples[0][1], Target):
        return Batch(images, pack_targets([target for _, target in samples if isinstance(target, Target)])), unreadable
    labels = [target for _, target in samples if isinstance(target, ImageLabel)]
    return ClassBatch(images, pack_labels(labels)), unreadable


def _start_worker(workers: Workers, worker: int) -> None:
    cv2.setNumThreads(0)  # else every worker would use all cores
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and a cluster send them to all processes,
        signal.signal(number, signal.SIG_IGN)  # but the main process ends its workers after it has saved
    info = get_worker_info()
    assert info is not None, "torch calls this in a worker"
    info.dataset.images.current_work = workers.register(worker)  # type: ignore[attr-defined]
