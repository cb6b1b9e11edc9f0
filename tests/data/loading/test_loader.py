"""Batches while files disappear and workers are killed."""

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from detkit.data import CocoDataModule, DetectionDataset, SampleKey
from detkit.data.augment import Augmentation
from detkit.data.loading.loader import Loader
from detkit.data.loading.sampler import InOrderSampler
from detkit.data.loading.unreadable_images import UnreadableCounter, UnreadableImage
from detkit.data.loading.workers import Workers
from detkit.errors import DataError
from tests.helpers.coco_batches import data_of, digest
from tests.helpers.small_set import read_split, write_split

HW = (64, 64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_split(tmp_path, "train", 14)
    write_split(tmp_path, "val", 5)
    return tmp_path


def prepared(root: Path, **settings: Any) -> CocoDataModule:
    data = data_of(root, **settings)
    data.prepare()
    return data


class Deadly(DetectionDataset):
    """One image kills the process that makes its sample."""

    deadly_row, signal = 5, signal.SIGKILL

    @override
    def make(self, key: SampleKey, unreadable: Any) -> Any:
        sample = super().make(key, unreadable)
        if key.row == self.deadly_row:
            os.kill(os.getpid(), self.signal)
        return sample


class Faulty(DetectionDataset):
    """A bug in it."""

    @override
    def make(self, key: SampleKey, unreadable: Any) -> Any:
        raise RuntimeError("no such thing")


def test_replacement_images_are_the_same_for_any_number_of_workers_and_after_a_resume(root: Path) -> None:
    """Files are damaged between two epochs: no worker returns an image from its cache."""
    expected: list[Any] = []
    for num_workers in (0, 2):
        loader = prepared(root, num_workers=num_workers, cache_mb=64).train_dataloader()
        first = [digest(batch) for batch in loader]
        kept = {row: (root / "train" / f"{row}.png").read_bytes() for row in (3, 4, 9)}
        (root / "train" / "3.png").unlink()
        (root / "train" / "4.png").write_bytes(kept[4][:-30])
        (root / "train" / "9.png").write_bytes(b"")
        found = first + [digest(batch) for _ in range(2) for batch in loader]
        expected = expected or found
        assert found == expected
        assert {Path(image.file).name for image in loader.unreadable.images.values()} == {"3.png", "4.png", "9.png"}
        for done in (1, 2):
            resumed = prepared_then_damaged(root, kept, num_workers)
            resumed.load_state_dict({"epoch": 1, "batches_done": done})
            assert [digest(batch) for batch in resumed] == expected[3 + done : 6]
            resumed.close()
        loader.close()
        for row, content in kept.items():
            (root / "train" / f"{row}.png").write_bytes(content)


def prepared_then_damaged(root: Path, kept: dict[int, bytes], num_workers: int) -> Any:
    """A loader whose files are damaged after the data check."""
    now = {row: path.read_bytes() if (path := root / "train" / f"{row}.png").exists() else None for row in kept}
    for row, content in kept.items():
        (root / "train" / f"{row}.png").write_bytes(content)
    data = prepared(root, num_workers=num_workers)
    for row, content in now.items():
        path = root / "train" / f"{row}.png"
        path.unlink() if content is None else path.write_bytes(content)
    return data.train_dataloader()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_more_than_the_limit_ends_the_run_in_the_same_batch(root: Path, num_workers: int) -> None:
    loader = prepared(
        root, num_workers=num_workers, augmentation=Augmentation(mosaic_probability=0), max_unreadable=2
    ).train_dataloader()
    keys = list(loader.key_sampler)
    rows = [keys[0][1].row, keys[1][0].row, keys[2][2].row]
    for row in rows:
        (root / "train" / f"{row}.png").unlink()
    batches = iter(loader)
    assert [next(batches).targets.num_images for _ in range(2)] == [4, 4]
    named = r"[^\n]*\n    ".join(f"image {10 + row}: [^\n]*{row}" for row in rows)
    with pytest.raises(DataError, match=rf"^3 images cannot be read .* data\.max_unreadable=2; [^\n]*\n    {named}"):
        next(batches)
    loader.close()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_validation_stops(root: Path, num_workers: int) -> None:
    """Another image in its place would make the AP that of other images."""
    data = prepared(root, num_workers=num_workers)
    (root / "val" / "3.png").unlink()
    loader = data.val_dataloader()
    with pytest.raises(
        DataError, match=r"^image 13: .*3\.png: cannot be read: .* a validation image is never replaced"
    ):
        list(loader)
    assert loader.unreadable.images == {}
    loader.close()


def test_each_image_is_counted_once_and_the_first_few_are_told(caplog: pytest.LogCaptureFixture) -> None:
    images = [UnreadableImage(row, f"/data/{row}.jpg", "cannot be read: Input/output error") for row in range(12)]
    unreadable = UnreadableCounter(11)
    with caplog.at_level(logging.WARNING):
        unreadable.add(images[:4])
        unreadable.add(images[:11])
    assert len(unreadable.images) == 11
    assert [message.partition(": ")[0] for message in caplog.messages] == [
        f"an image cannot be read and is replaced ({number} of at most 11, see data.max_unreadable)"
        for number in range(1, 6)
    ]
    assert caplog.messages[2].endswith("image 2: /data/2.jpg: cannot be read: Input/output error")
    with pytest.raises(DataError, match=r"^12 images .*data\.max_unreadable=11; (.*\n)+    and 2 more$"):
        unreadable.add(images)


@pytest.mark.parametrize(
    ("deadly", "message"),
    [
        (signal.SIGKILL, r"killed by SIGKILL at image 15: .*5\.png \(epoch 1, sample 5\)\. .*data\.num_workers"),
        (signal.SIGSEGV, r"killed by SIGSEGV at image 15: .*5\.png .*\. The decoder or a transform crashed: look at"),
        (signal.SIGBUS, r"killed by SIGBUS at image 15: .*5\.png .*\. Usually /dev/shm, .*--shm-size"),
    ],
    ids=["SIGKILL", "SIGSEGV", "SIGBUS"],
)
def test_a_killed_worker_is_named_with_its_image(root: Path, deadly: signal.Signals, message: str) -> None:
    dataset = Deadly(read_split(root, "train"))
    dataset.signal = deadly
    loader = Loader(dataset, InOrderSampler(14, 4, HW), num_workers=2)
    with pytest.raises(DataError, match=rf"^data worker 2 of 2 \(process \d+\) was {message}.*resume=true$") as end:
        list(loader)
    loader.close()
    error: Any = end.value.__cause__
    assert not isinstance(error.__cause__, queue.Empty), "torch had to look for itself, after five seconds"


def test_a_worker_that_is_killed_while_nobody_waits(root: Path) -> None:
    """Nothing is raised in the middle of a step; the next wait says it, also where the worker had nothing to do."""
    loader: Any = Loader(DetectionDataset(read_split(root, "train")), InOrderSampler(14, 4, HW), num_workers=1)
    batches = iter(loader)
    next(batches)
    handler = signal.getsignal(signal.SIGCHLD)
    while loader._loader._iterator._worker_result_queue.qsize() < 2:  # all that it was asked for
        time.sleep(0.01)
    [worker] = loader._workers._processes
    worker.kill()
    worker.join(30)
    assert signal.getsignal(signal.SIGCHLD) is handler is signal.SIG_DFL
    with pytest.raises(DataError, match=r"^data worker 1 of 1 .* was killed by SIGKILL between two batches\. "):
        next(batches)
    loader.close()


def test_a_worker_that_is_killed_between_two_epochs(root: Path) -> None:
    loader = prepared(root, num_workers=2).train_dataloader()
    assert len(list(loader)) == 3
    loader._workers._processes[1].kill()
    with pytest.raises(DataError, match=r"^data worker \d of 2 .* was killed by SIGKILL between two batches\. "):
        list(loader)
    loader.close()


@pytest.mark.parametrize(
    ("error", "seconds"), [(ConnectionResetError, 1.3), (FileNotFoundError, 0.0), (EOFError, 0.0)], ids=str
)
def test_a_worker_that_is_killed_while_its_batch_is_fetched(root: Path, error: type[Exception], seconds: float) -> None:
    """A batch is in the worker's shared memory until the main process has asked for it.

    On a busy machine, it takes seconds from the end of a worker's connections to its own.
    """
    loader = prepared(root, num_workers=2).train_dataloader()
    next(iter(loader))

    def fetch() -> None:
        threading.Timer(seconds, loader._workers._processes[1].kill).start()
        raise error(104, "the other end is gone")

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # or that handler would say it first
    try:
        with pytest.raises(DataError, match=r"^(a data worker|data worker \d of 2) .*was killed by SIGKILL "):
            loader._watch_workers(fetch)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    loader.close()


def test_workers_of_a_start_that_was_interrupted_are_ended() -> None:
    workers = Workers(1)
    worker = multiprocessing.Process(target=time.sleep, args=(60,), daemon=True)
    with contextlib.suppress(KeyboardInterrupt), workers.starting():
        worker.start()
        raise KeyboardInterrupt
    workers.kill_all()
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


def test_other_errors_of_workers_stay_what_they_are(root: Path) -> None:
    """A bug keeps its traceback, which torch brings as the text of a RuntimeError."""
    loader = Loader(Faulty(read_split(root, "train")), InOrderSampler(14, 4, HW), num_workers=1)
    with pytest.raises(RuntimeError, match=r"Caught RuntimeError in DataLoader worker process 0(.*\n)+.*no such thing"):
        list(loader)
    loader.close()


def test_closing_ends_the_workers_at_once(root: Path) -> None:
    """Even if an exception's traceback still holds the iteration."""
    loader = prepared(root, num_workers=2).train_dataloader()
    batches = iter(loader)
    next(batches)
    workers = loader._workers._processes
    loader.close()
    for worker in workers:
        worker.join(30)
    del batches
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2  # torch would let them end by themselves
