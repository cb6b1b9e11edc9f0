"""What the process of a benchmark row does: open a runtime, time batches, measure AP, convert files."""

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import torch

from detkit.benchmark.engines import EXPORTED, RUNTIMES, file_mb, open_predictor
from detkit.benchmark.machine import peak_mb
from detkit.benchmark.measure import stopwatch
from detkit.exporting.options import SplitName
from detkit.inference.runtimes import is_exported

if TYPE_CHECKING:  # their import would count as memory of the detector
    from detkit.benchmark.measure.accuracy import Accuracy
    from detkit.exporting.verify.check_images import DataOverrides


class Round(NamedTuple):
    """The timed batches of one round, and the peak of memory so far; None if it is unknown."""

    timings: list[stopwatch.BatchTiming]
    memory_mb: float | None


class Worker:
    """Measures one detector in one runtime.

    Args:
        threads: number of threads of torch and cv2.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.imports_mb = peak_mb()

    def open(
        self,
        *,
        runtime: str,
        path: Path,
        device: str,
        trusted: list[str],
        image_hw: tuple[int, int],
        batch_size: int,
        files: list[Path],
        warmup: int,
        score_threshold: float,
    ) -> dict[str, float]:
        """Open a file in a runtime and run ``warmup`` batches; each batch takes the next files, in a cycle.

        Returns:
            ``first_s`` until the first result, ``file_mb`` and ``imports_mb``.
        """
        start_s = time.perf_counter()
        self.path, self.device = path, torch.device(device)
        self.predictor = open_predictor(RUNTIMES.get(runtime, EXPORTED), path, device, trusted)
        self.predictor.image_hw = image_hw
        self.detector = stopwatch.with_timer(self.predictor)
        self.files, self.batch_size = itertools.cycle(files), batch_size
        self.score_threshold = score_threshold
        self._time_batch()
        first_s = time.perf_counter() - start_s
        for _ in range(warmup - 1):
            self._time_batch()
        return {"first_s": first_s, "file_mb": file_mb(path), "imports_mb": self.imports_mb}

    def repeat(self, *, number: int, least_s: float, most_s: float) -> Round:
        """Time one round of batches, see ``stopwatch.repeat``."""
        timings = stopwatch.repeat(self._time_batch, number, least_s, most_s, time.perf_counter)
        return Round(timings, self._memory_mb())

    def accuracy(
        self,
        *,
        data_overrides: "DataOverrides",
        split: SplitName,
        limit: int | None,
        batch_size: int,
        trusted: list[str],
    ) -> "Accuracy":
        """The COCO numbers of the opened file, with its own classes and resize; see ``measure_accuracy``."""
        from detkit.benchmark.measure.accuracy import measure_accuracy  # imports Lightning; memory is measured before

        return measure_accuracy(
            self.predictor,
            self.path,
            data_overrides=data_overrides,
            split=split,
            limit=limit,
            batch_size=batch_size,
            trusted=trusted,
        )

    def convert(
        self,
        *,
        checkpoint: Path,
        folder: Path,
        image_hw: tuple[int, int],
        trusted: list[str],
        suffix: str,
        batch_sizes: tuple[int, ...],
    ) -> None:
        """Make the files of ONNX Runtime or OpenVINO, see ``converted.convert``."""
        from detkit.benchmark.measure.converted import convert

        convert(checkpoint, folder, image_hw, trusted, suffix, batch_sizes)

    def _memory_mb(self) -> float | None:
        """Of the process, or of torch on the GPU; None for other libraries on the GPU."""
        if self.device.type != "cuda":
            return peak_mb()
        return None if is_exported(self.path) else torch.cuda.max_memory_allocated(self.device) / 1e6

    def _time_batch(self) -> stopwatch.BatchTiming:
        files = list(itertools.islice(self.files, self.batch_size))
        return stopwatch.time_batch(self.predictor, self.detector, files, self.score_threshold)
