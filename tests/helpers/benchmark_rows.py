"""Measured rows of a benchmark, with durations that are stated."""

from pathlib import Path

from detkit.benchmark.measure.stopwatch import BatchTiming
from detkit.benchmark.output.rows import Row
from detkit.benchmark.selection import Setting

SETTING = Setting(2, (384, 640), 1)


def row(name: str, network_ms: float, setting: Setting = SETTING) -> Row:
    """Measured twice in each of two rounds: read 2 ms, resized in 1, boxes in 3."""
    made = Row(name, f"torch {name}", Path("detector.safetensors"), setting)
    timing = BatchTiming(0.002, 0.001, network_ms / 1000, 0.003, 1.9 * network_ms / 1000)
    made.rounds = [[timing, timing], [timing, timing]]
    made.costs = {"memory_mb": 700.4, "file_mb": 9.11, "first_s": 1.5, "imports_mb": 500}
    return made
