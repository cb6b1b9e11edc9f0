"""How long a detector takes from image files to boxes, and which part of it where."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detkit.data import decode_image
from detkit.inference import Predictor

Clock = Callable[[], float]


class Look(NamedTuple):
    """Seconds of one look at a batch of images, phase by phase."""

    read: float  # files to pixels
    resize: float  # to the network's input, on its device
    network: float
    boxes: float  # of predictions, in pixels of the files
    network_cpu: float  # of all threads together, during ``network``


class Timed(nn.Module):
    """A detector that notes when it begins and ends.

    Args:
        detector: any.
        wait: until the device has done what it was told.
        clock: seconds.
        cpu_clock: seconds of all threads of this process.
    """

    def __init__(
        self,
        detector: nn.Module,
        wait: Callable[[], Any] = lambda: None,
        clock: Clock = time.perf_counter,
        cpu_clock: Clock = time.process_time,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.takes_uint8: bool = getattr(detector, "takes_uint8", False)
        self.wait = wait
        self.clock, self.cpu_clock = clock, cpu_clock
        self.began_s = self.ended_s = self.cpu_s = 0.0

    def forward(self, images: Tensor) -> Any:
        """As the detector."""
        self.wait()
        self.began_s, cpu_s = self.clock(), self.cpu_clock()
        predictions = self.detector(images)
        self.wait()
        self.ended_s, self.cpu_s = self.clock(), self.cpu_clock() - cpu_s
        return predictions


def timed(predictor: Predictor) -> Timed:
    """Wrap its detector, in place."""
    device = predictor.device
    wait = (lambda: None) if device.type == "cpu" else lambda: torch.accelerator.synchronize(device)
    predictor.detector = Timed(predictor.detector, wait)
    return predictor.detector


def look(predictor: Predictor, detector: Timed, files: Sequence[Path], score_threshold: float) -> Look:
    """One batch, from its files to its boxes.

    Args:
        predictor: whose detector is ``detector``.
        detector: of it, timed.
        files: images; they go through the network together.
        score_threshold: of the boxes.
    """
    start_s = detector.clock()
    images = [decode_image(file) for file in files]
    read_s = detector.clock()
    predictor.predict(images, score_threshold=score_threshold, batch_size=len(files))
    end_s = detector.clock()
    began_s, ended_s = detector.began_s, detector.ended_s
    return Look(read_s - start_s, began_s - read_s, ended_s - began_s, end_s - ended_s, detector.cpu_s)


def repeat(once: Callable[[], Look], number: int, least_s: float, most_s: float, clock: Clock) -> list[Look]:
    """Look again and again: so often and so long at least, but no longer than ``most_s``; once in any case.

    A first look is not counted: after a pause the caches are cold.
    """
    once()
    looks: list[Look] = []
    start_s = clock()
    while True:
        looks.append(once())
        passed_s = clock() - start_s
        if passed_s >= most_s or (len(looks) >= number and passed_s >= least_s):
            return looks
