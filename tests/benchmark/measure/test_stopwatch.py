"""Seconds fall to the phase that took them: each part of the way moves a clock by its own step."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detkit.benchmark.measure import stopwatch
from detkit.benchmark.measure.stopwatch import BatchTiming, TimedDetector, repeat
from detkit.inference import Predictor
from detkit.types import Detections


class FakeClock:
    """Time passes only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def take(self, seconds: float) -> None:
        self.now_s += seconds


def test_each_phase_has_its_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of 1 s, a network of 8 s on a device that is done 16 s later, a decoder of 32 s; 3 cores busy."""
    clock, cpu_clock = FakeClock(), FakeClock()
    seen: list[tuple[int, ...]] = []

    class Network(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(tuple(images.shape))
            clock.take(8)
            cpu_clock.take(72)
            return images

    def decode(predictions: Tensor) -> list[Detections]:
        clock.take(32)
        boxes, scores = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0.9])
        return [Detections(boxes, scores, torch.tensor([0])) for _ in predictions]

    def read(_: Path) -> np.ndarray:
        clock.take(1)
        return np.zeros((20, 40, 3), np.uint8)

    monkeypatch.setattr(stopwatch, "decode_image", read)
    waits: list[float] = []

    def wait() -> None:
        waits.append(clock.now_s)
        clock.take(4 if len(waits) == 1 else 16)

    detector = TimedDetector(Network(), wait, clock, cpu_clock)
    predictor = Predictor(detector, decode, ["cell"], (32, 64), "letterbox")
    found = stopwatch.time_batch(predictor, detector, [tmp_path / "a", tmp_path / "b"], 0.25)
    assert found == BatchTiming(read=2, resize=4, network=24, boxes=32, network_cpu=72)
    assert seen == [(2, 3, 32, 64)]  # all files in one batch


def test_a_predictor_is_timed_without_another_result(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 40, 3), 255, np.uint8))
    given: list[Tensor] = []

    class Network(nn.Module):
        takes_uint8 = True

        def forward(self, images: Tensor) -> Tensor:
            given.append(images)
            return images

    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    predictor = Predictor(Network(), lambda _: [empty], ["cell"], (32, 32), "squash")
    detector = stopwatch.with_timer(predictor)
    timing = stopwatch.time_batch(predictor, detector, [tmp_path / "a.png"], 0.25)
    assert given[0].dtype == torch.uint8 and bool((given[0] == 255).all())  # as the program wants them
    assert min(timing[:4]) > 0


def test_every_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    predictor = Predictor(nn.Identity(), lambda _: [], ["cell"], (32, 32), "squash")
    for name in ("cpu", "mps", "xpu", "cuda:1"):
        predictor.device = torch.device(name)
        stopwatch.with_timer(predictor).wait()
    assert waited == [torch.device(name) for name in ("mps", "xpu", "cuda:1")]


@pytest.mark.parametrize(
    ("number", "least_s", "most_s", "batches"),
    [
        (3, 0, 100, 3),  # so often
        (3, 10, 100, 5),  # and so long
        (30, 0, 7, 4),  # but no longer
        (30, 0, 0, 1),  # once in any case
    ],
)
def test_batches_are_repeated_so_often_and_so_long(number: int, least_s: float, most_s: float, batches: int) -> None:
    """Each takes 2 s; the first one, 50 s with cold caches, is not counted."""
    clock = FakeClock()
    durations = iter([50.0, *[2.0] * 100])

    def once() -> BatchTiming:
        seconds = next(durations)
        clock.take(seconds)
        return BatchTiming(0, 0, seconds, 0, seconds)

    assert repeat(once, number, least_s, most_s, clock) == [BatchTiming(0, 0, 2.0, 0, 2.0)] * batches
