"""Latency of several detectors on the same images, measured in turns, so that other load slows all of them."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detkit.inference.predictor import Predictor

WARM_UP = 2  # rounds that are not counted
LEAST_ROUNDS, MOST_ROUNDS, BUDGET_S = 5, 30, 6.0


class Latency(NamedTuple):
    """Milliseconds for a batch of decoded and resized images."""

    network_median_ms: float
    decode_median_ms: float
    median_ms: float  # of network and decoder together
    network_p95_ms: float
    decode_p95_ms: float
    p95_ms: float
    image_median_ms: float
    rounds: int


def measure_latency(predictors: Mapping[str, Predictor], images: Tensor) -> dict[str, Latency]:
    """The latency of each predictor on images (B, 3, H, W) in [0, 1]."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in predictors}
    rounds, start_s = 0, time.perf_counter()
    while rounds < LEAST_ROUNDS + WARM_UP or (
        rounds < MOST_ROUNDS + WARM_UP and time.perf_counter() - start_s < BUDGET_S
    ):
        for name, predictor in predictors.items():
            seconds[name].append(_once(predictor, images))
        rounds += 1
    return {name: latency_of(of[WARM_UP:], len(images)) for name, of in seconds.items()}


def latency_of(seconds: list[tuple[float, float]], batch_size: int) -> Latency:
    """Summarise the (network, decoder) seconds of each round."""
    network_ms, decode_ms = 1000 * np.array(seconds).T
    total_ms = network_ms + decode_ms
    medians = np.median((network_ms, decode_ms, total_ms), axis=1).tolist()
    p95s = np.percentile((network_ms, decode_ms, total_ms), 95, axis=1).tolist()
    return Latency(*medians, *p95s, image_median_ms=medians[-1] / batch_size, rounds=len(seconds))


def _once(predictor: Predictor, images: Tensor) -> tuple[float, float]:
    with torch.inference_mode():
        start_s = time.perf_counter()
        predictions = predictor.detector(images)
        network_end_s = time.perf_counter()
        predictor.decode(predictions)
        return network_end_s - start_s, time.perf_counter() - network_end_s
