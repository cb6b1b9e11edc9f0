"""Statistics of many batches, against closed forms."""

import pytest

from detkit.benchmark.measure.stopwatch import BatchTiming
from detkit.benchmark.measure.summary import summarise


def timing(network_ms: float) -> BatchTiming:
    """Of a batch: 2 ms to read, 1 to resize, 3 for the boxes; one and a half cores while the network runs."""
    return BatchTiming(0.002, 0.001, network_ms / 1000, 0.003, 1.5 * network_ms / 1000)


def test_numbers_of_an_even_ramp() -> None:
    """Networks of 1, 2, .. 101 ms in any order: median 51, 95th percentile 96, mean 51."""
    ramp = [timing(number * 37 % 101 + 1) for number in range(101)]
    found = summarise([ramp[:50], ramp[50:]], batch_size=4)
    assert found.looks == 101
    assert found.latency_ms == pytest.approx(54)  # network and boxes
    assert found.p95_ms == pytest.approx(99)
    assert found.images_per_s == pytest.approx(4 / 0.054)
    assert (found.read_ms, found.resize_ms, found.boxes_ms) == pytest.approx((2, 1, 3))
    assert found.network_ms == pytest.approx(51)
    assert found.whole_ms == pytest.approx(57)
    assert found.whole_p95_ms == pytest.approx(102)
    assert found.outside_frac == pytest.approx(6 / 57)
    assert found.cores == pytest.approx(1.5)


def test_a_slow_round_does_not_move_the_median_and_is_told() -> None:
    rounds = [[timing(7)] * 5, [timing(7)] * 5, [timing(17)] * 4]
    found = summarise(rounds, batch_size=1)
    assert found.latency_ms == pytest.approx(10)
    assert found.spread == pytest.approx(2)  # 20 ms over 10 ms


def test_one_batch_is_enough() -> None:
    found = summarise([[timing(7)]], batch_size=1)
    assert (found.latency_ms, found.p95_ms, found.spread) == pytest.approx((10, 10, 1))
