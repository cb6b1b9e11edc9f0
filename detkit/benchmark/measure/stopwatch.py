"""Seconds from image files to boxes, phase by phase."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detkit.data import decode_image
from detkit.inference import Predictor

Clock = Callable[[], float]


class BatchTiming(NamedTuple):
    """Seconds of the phases of one batch."""

    read: float  # from files to pixels
    resize: float  # to the network's input, on its device
    network: float
    boxes: float  # from predictions to boxes in pixels of the files
    network_cpu: float  # CPU seconds of all threads during ``network``


class TimedDetector(nn.Module):
    """A detector that records when it starts and ends.

    Args:
        detector: any.
        wait: waits until the device has finished all work.
        clock: seconds.
        cpu_clock: CPU seconds of all threads of this process.
    """

    def __init__(
        self,
        detector: nn.Module,
        wait: Callable[[], object] = lambda: None,
        clock: Clock = time.perf_counter,
        cpu_clock: Clock = time.process_time,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.takes_uint8: bool = getattr(detector, "takes_uint8", False)  # an attribute of exported detectors alone
        self.wait = wait
        self.clock, self.cpu_clock = clock, cpu_clock
        self.start_s = self.end_s = self.cpu_s = 0.0

    def forward(self, images: Tensor) -> Any:  # predictions of any detector
        """The predictions of the detector."""
        self.wait()
        self.start_s, start_cpu_s = self.clock(), self.cpu_clock()
        predictions = self.detector(images)
        self.wait()
        self.end_s, self.cpu_s = self.clock(), self.cpu_clock() - start_cpu_s
        return predictions


def with_timer(predictor: Predictor) -> TimedDetector:
    """Wrap the detector of a predictor, in place."""
    device = predictor.device
    wait = (lambda: None) if device.type == "cpu" else lambda: torch.accelerator.synchronize(device)
    predictor.detector = TimedDetector(predictor.detector, wait)
    return predictor.detector


def time_batch(
    predictor: Predictor, detector: TimedDetector, files: Sequence[Path], score_threshold: float
) -> BatchTiming:
    """Time one batch, from its files to its boxes.

    Args:
        predictor: with ``detector``.
        detector: of the predictor.
        files: images of the batch.
        score_threshold: of the boxes.
    """
    start_s = detector.clock()
    images = [decode_image(file) for file in files]
    read_s = detector.clock()
    predictor.predict(images, score_threshold=score_threshold, batch_size=len(files))
    end_s = detector.clock()
    network_s = detector.end_s - detector.start_s
    return BatchTiming(read_s - start_s, detector.start_s - read_s, network_s, end_s - detector.end_s, detector.cpu_s)


def repeat(
    once: Callable[[], BatchTiming], number: int, least_s: float, most_s: float, clock: Clock
) -> list[BatchTiming]:
    """Time batches until there are ``number`` and ``least_s`` has passed, or ``most_s`` has passed.

    The first batch is not counted, because caches are cold after a pause. At least one batch is counted.
    """
    once()
    timings: list[BatchTiming] = []
    start_s = clock()
    while True:
        timings.append(once())
        passed_s = clock() - start_s
        if passed_s >= most_s or (len(timings) >= number and passed_s >= least_s):
            return timings
