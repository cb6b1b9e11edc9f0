"""Every image file of a split decoded once, by all cores, before a training meets a broken one.

A decoder is C code, which a hostile file can crash. So each worker says what came of each file
before it takes the next: one that dies is named with the file it was on, and another goes on.
"""

import os
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe, Process, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from detkit.data.decode_image import decode_image
from detkit.data.findings import Findings, Place
from detkit.errors import DataError

_ROWS_AT_ONCE = 32  # that a worker is given


class _Result(NamedTuple):
    """What came of one file: the size of its picture, or why there is none."""

    row: int
    size_hw: tuple[int, int] | None
    fault: str = ""
    died: bool = False  # the worker, on this file


class _Worker(NamedTuple):
    """A process that decodes, and the rows it was given and has not answered yet."""

    process: BaseProcess
    pipe: Connection
    rows: deque[int]


def decode_all(
    folder: Path,
    names: list[str],
    image_ids: np.ndarray,
    sizes_hw: np.ndarray,
    findings: Findings,
    num_workers: int | None = None,
    console: Console | None = None,
) -> int:
    """Note every file that cannot be decoded, or whose picture has another size than stated.

    Args:
        folder: that the names are relative to.
        names: of the images.
        image_ids: (images,) named in findings.
        sizes_hw: (images, 2) upright, as the annotations say.
        findings: takes the errors.
        num_workers: processes; None: one for each core that this process may use.
        console: a bar is drawn there, if it is a terminal; None: stderr.

    Returns:
        How many files gave a picture of the right size.

    Raises:
        ValueError: if ``num_workers`` is less than 1.
    """
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1; got {num_workers}")
    console = console or Console(stderr=True)
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[bad]} bad")),
    )
    undecodable: dict[int, Place] = {}
    resized: dict[int, Place] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"decoding {folder}", total=len(names), bad=0)
        for row, size_hw, fault, _ in _results(folder, names, num_workers):
            image_id, stated = int(image_ids[row]), (int(sizes_hw[row, 0]), int(sizes_hw[row, 1]))
            if size_hw is None:
                undecodable[row] = Place(f"image {image_id}: {fault}", names[row], image_id)
            elif size_hw != stated:
                sizes = f"{names[row]} is {size_hw[1]} x {size_hw[0]}, not {stated[1]} x {stated[0]}"
                resized[row] = Place(f"image {image_id}: {sizes}", names[row], image_id)
            progress.update(task, advance=1, bad=len(undecodable) + len(resized))
    findings.error(
        "image-undecodable",
        "image files that cannot be decoded",
        len(undecodable),
        (undecodable[row] for row in sorted(undecodable)),
        "copy them again from where they come, or remove their images from the annotation file",
    )
    findings.error(
        "image-decoded-size",
        "pictures of another size than the annotations say, decoded",
        len(resized),
        (resized[row] for row in sorted(resized)),
        "their boxes would not fit: correct width and height, or the files",
    )
    return len(names) - len(undecodable) - len(resized)


def _results(folder: Path, names: list[str], num_workers: int) -> Iterator[_Result]:
    """One for each file, in the order in which they come."""
    waiting = deque(range(len(names)))
    workers: dict[Any, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < num_workers:
                worker = _start()
                workers[worker.pipe] = worker
                _give(worker, waiting, folder, names)
            for pipe in wait(list(workers)):
                worker = workers[pipe]
                result = _receive(worker, folder, names)
                if result.died:
                    del workers[pipe]
                    waiting.extendleft(reversed(worker.rows))
                elif not worker.rows and not _give(worker, waiting, folder, names):
                    del workers[pipe]
                    worker.process.join()
                yield result
    finally:
        for worker in workers.values():
            worker.process.terminate()
            worker.process.join()


def _start() -> _Worker:
    ours, theirs = Pipe()
    process = Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen when the process ends
    return _Worker(process, ours, deque())


def _give(worker: _Worker, waiting: deque[int], folder: Path, names: list[str]) -> bool:
    """Whether there was work left; if not, the worker is told to end."""
    worker.rows.extend(waiting.popleft() for _ in range(min(_ROWS_AT_ONCE, len(waiting))))
    with suppress(BrokenPipeError):  # that it died is read from the pipe next
        worker.pipe.send([(row, str(folder / names[row])) for row in worker.rows])
    return bool(worker.rows)


def _receive(worker: _Worker, folder: Path, names: list[str]) -> _Result:
    try:
        result = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        row, code = worker.rows.popleft(), worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _Result(row, None, f"{folder / names[row]}: the process that decoded it died ({how})", died=True)
    worker.rows.popleft()
    return result


def _work(pipe: Connection) -> None:
    """What a worker does until it is given nothing, or the process that started it is gone."""
    cv2.setNumThreads(0)  # the workers are as many as the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then ends its workers
    parent = parent_process()
    assert parent is not None, "a worker is started by another process"
    while pipe in wait([pipe, parent.sentinel]) and (files := pipe.recv()):
        for row, path in files:
            pipe.send(_decode(row, path))


def _decode(row: int, path: str) -> _Result:
    try:
        height, width = decode_image(path).shape[:2]
    except DataError as error:
        return _Result(row, None, str(error))
    return _Result(row, (height, width))
