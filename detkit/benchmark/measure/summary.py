"""Summary of the timed batches of a row."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detkit.benchmark.measure.stopwatch import BatchTiming

MS = 1000.0


class Summary(NamedTuple):
    """Statistics of one row. Times are medians over whole batches unless the name says otherwise."""

    looks: int  # number of timed batches
    latency_ms: float  # network and boxes: from resized images in memory to boxes
    p95_ms: float  # of the latency
    images_per_s: float  # by the median latency
    read_ms: float
    resize_ms: float
    network_ms: float
    boxes_ms: float
    whole_ms: float  # from the image files to the boxes
    whole_p95_ms: float
    outside_frac: float  # share of the whole that is not the network
    cores: float  # average number of busy cores while the network runs
    spread: float  # median latency of the slowest round over that of the fastest


def summarise(rounds: Sequence[Sequence[BatchTiming]], batch_size: int) -> Summary:
    """Summarise rounds with at least one timed batch each.

    Percentiles are interpolated between the two nearest batches, as in numpy.
    """
    timings = [timing for of_round in rounds for timing in of_round]
    latencies = [_latency(timing) for timing in timings]
    wholes = [sum(timing[:4]) for timing in timings]
    read, resize, network, boxes, network_cpu = (list(column) for column in zip(*timings, strict=True))
    latency, whole = statistics.median(latencies), statistics.median(wholes)
    of_rounds = [statistics.median(map(_latency, of_round)) for of_round in rounds]
    return Summary(
        looks=len(timings),
        latency_ms=MS * latency,
        p95_ms=MS * float(np.percentile(latencies, 95)),
        images_per_s=batch_size / latency,
        read_ms=MS * statistics.median(read),
        resize_ms=MS * statistics.median(resize),
        network_ms=MS * statistics.median(network),
        boxes_ms=MS * statistics.median(boxes),
        whole_ms=MS * whole,
        whole_p95_ms=MS * float(np.percentile(wholes, 95)),
        outside_frac=statistics.median(1 - timing.network / sum(timing[:4]) for timing in timings),
        cores=sum(network_cpu) / sum(network),
        spread=max(of_rounds) / min(of_rounds),
    )


def _latency(timing: BatchTiming) -> float:
    return timing.network + timing.boxes
