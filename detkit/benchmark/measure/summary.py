"""Many looks as few numbers."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detkit.benchmark.measure.stopwatch import Look

MS = 1000.0


class Summary(NamedTuple):
    """Of one row. Milliseconds are those of a whole batch; medians, if nothing else is said."""

    looks: int
    latency_ms: float  # network and boxes: from images in memory, at the network's size, to boxes
    p95_ms: float  # of the latency
    images_per_s: float  # by the median latency
    read_ms: float
    resize_ms: float
    network_ms: float
    boxes_ms: float
    whole_ms: float  # from the image files to the boxes
    whole_p95_ms: float
    outside_frac: float  # of the whole: all but the network
    cores: float  # that were busy while the network ran, on average
    spread: float  # the slowest round's median latency over that of the fastest


def summarise(rounds: Sequence[Sequence[Look]], batch_size: int) -> Summary:
    """The numbers of some rounds of looks, each with at least one.

    Percentiles lie between the two nearest looks, as numpy's do.
    """
    looks = [look for of_round in rounds for look in of_round]
    latencies = [_latency(look) for look in looks]
    wholes = [sum(look[:4]) for look in looks]
    read, resize, network, boxes, network_cpu = (list(column) for column in zip(*looks, strict=True))
    latency, whole = statistics.median(latencies), statistics.median(wholes)
    of_rounds = [statistics.median(map(_latency, of_round)) for of_round in rounds]
    return Summary(
        looks=len(looks),
        latency_ms=MS * latency,
        p95_ms=MS * float(np.percentile(latencies, 95)),
        images_per_s=batch_size / latency,
        read_ms=MS * statistics.median(read),
        resize_ms=MS * statistics.median(resize),
        network_ms=MS * statistics.median(network),
        boxes_ms=MS * statistics.median(boxes),
        whole_ms=MS * whole,
        whole_p95_ms=MS * float(np.percentile(wholes, 95)),
        outside_frac=statistics.median(1 - look.network / sum(look[:4]) for look in looks),
        cores=sum(network_cpu) / sum(network),
        spread=max(of_rounds) / min(of_rounds),
    )


def _latency(look: Look) -> float:
    return look.network + look.boxes
