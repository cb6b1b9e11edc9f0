"""Measure a detector in every installed runtime: latency, images per second, memory, size and AP, side by side.

detkit benchmark checkpoint=runs/NAME/TIME
detkit benchmark checkpoint=detector.safetensors data.root=/data/coco limit=500 image_hw=320,640 threads=1,2
detkit benchmark checkpoint=detector.safetensors also=model_int8.onnx,model.xml runtimes=eager,onnx
Each row of a table has a process of its own; the rows are measured in turns. AP is measured where data.* is given.
Ctrl-C keeps what was measured.
"""

import tempfile
from pathlib import Path

from detkit import recipe
from detkit.benchmark.options import BenchmarkOptions, check_options
from detkit.commands.help import asks_for_help, print_help
from detkit.recipe.options import read_options


def main(argv: list[str]) -> None:
    """Look at what is asked for, measure it, and show and keep the figures."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, BenchmarkOptions)
    options, data_overrides = read_options(BenchmarkOptions, argv, prefixes=["data."])
    check_options(options, data_overrides)
    from detkit.benchmark.run import Benchmark
    from detkit.benchmark.selection import make_plan  # torch, after the arguments were found right

    with tempfile.TemporaryDirectory(prefix="detkit_") as scratch:
        return Benchmark(make_plan(options, data_overrides, Path(scratch)), Path(scratch)).run(recipe.console())
