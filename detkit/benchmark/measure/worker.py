"""One row's own process: it opens a runtime, looks at images when it is told to, and answers in lines of JSON.

A process of its own has its own number of threads, its own peak of memory, and its own crash.

    python -m detkit.benchmark.measure.worker THREADS
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import cv2
import torch

from detkit.benchmark.engines import EXPORTED, RUNTIMES, file_mb, open_predictor
from detkit.benchmark.machine import peak_mb
from detkit.benchmark.measure import stopwatch
from detkit.errors import DetkitError
from detkit.inference.runtimes import is_exported

REASON_CHARACTERS = 300


class Worker:
    """What it can be asked for; each answer is plain JSON values.

    Args:
        threads: of everything that it does.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.imports_mb = peak_mb()

    def open(
        self,
        *,
        runtime: str,
        path: str,
        device: str,
        trusted: list[str],
        image_hw: tuple[int, int],
        batch_size: int,
        files: list[str],
        warmup: int,
        score_threshold: float,
    ) -> dict[str, Any]:
        """Open a runtime and look at ``warmup`` batches; each look takes the next files, round and round."""
        start_s = time.perf_counter()
        self.path, self.device = path, torch.device(device)
        self.predictor = open_predictor(RUNTIMES.get(runtime, EXPORTED), Path(path), device, trusted)
        self.predictor.image_hw = (image_hw[0], image_hw[1])
        self.detector = stopwatch.timed(self.predictor)
        self.files, self.batch_size = itertools.cycle(map(Path, files)), batch_size
        self.score_threshold = score_threshold
        self._look()
        first_s = time.perf_counter() - start_s
        for _ in range(warmup - 1):
            self._look()
        return {"first_s": first_s, "file_mb": file_mb(Path(path)), "imports_mb": self.imports_mb}

    def repeat(self, *, number: int, least_s: float, most_s: float) -> dict[str, Any]:
        """One round of looks."""
        looks = stopwatch.repeat(self._look, number, least_s, most_s, time.perf_counter)
        return {"looks": looks, "memory_mb": self._memory_mb()}

    def accuracy(self, **arguments: Any) -> dict[str, Any]:
        """The COCO numbers of the opened file, which knows its own classes and how images come to its size."""
        from detkit.benchmark.measure.accuracy import measure  # Lightning, after the memory was looked at

        return measure(self.predictor, self.path, **arguments)

    def convert(
        self,
        *,
        checkpoint: str,
        folder: str,
        image_hw: tuple[int, int],
        trusted: list[str],
        suffix: str,
        batch_sizes: list[int],
    ) -> dict[str, Any]:
        """The files that ONNX Runtime or OpenVINO opens."""
        from detkit.benchmark.measure.converted import convert

        convert(Path(checkpoint), Path(folder), (image_hw[0], image_hw[1]), trusted, suffix, batch_sizes)
        return {}

    def _memory_mb(self) -> float | None:
        """Of the GPU, where torch runs the detector there: what other libraries take there it does not know."""
        if self.device.type != "cuda":
            return peak_mb()
        return None if is_exported(Path(self.path)) else torch.cuda.max_memory_allocated(self.device) / 1e6

    def _look(self) -> stopwatch.Look:
        files = list(itertools.islice(self.files, self.batch_size))
        return stopwatch.look(self.predictor, self.detector, files, self.score_threshold)


def main(threads: int, lines: TextIO, answers: TextIO) -> None:
    """Answer until there are no more questions; an error is the last answer."""

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    def fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)  # first: with its last answer it may be ended
        answer({"failed": reason(error)})

    sys.excepthook = fail
    worker = Worker(threads)
    asked: dict[str, Callable[..., dict[str, Any]]] = {
        name: getattr(worker, name) for name in ("open", "repeat", "accuracy", "convert")
    }
    for line in lines:
        name, arguments = json.loads(line)
        answer(asked[name](**arguments))


def reason(error: BaseException) -> str:
    """Why something failed, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2])[:REASON_CHARACTERS]
    is_plain = isinstance(error, DetkitError | ValueError) or type(error) is RuntimeError
    return text if text and is_plain else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not answer
    main(int(sys.argv[1]), sys.stdin, own)
