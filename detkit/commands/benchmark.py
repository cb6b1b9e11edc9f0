"""Measure a detector in every installed runtime: latency, images per second, memory, size and AP, side by side.

detkit benchmark checkpoint=runs/NAME/TIME
detkit benchmark checkpoint=detector.safetensors data.root=/data/coco limit=500 image_hw=320,640 threads=1,2
detkit benchmark checkpoint=detector.safetensors also=model_int8.onnx,model.xml runtimes=eager,onnx
Each row of a table is measured in its own process, in turns. AP is measured if data.* is given. After Ctrl-C the
finished measurements are written.
"""

import tempfile
from pathlib import Path

from detkit import recipe
from detkit.benchmark.options import BenchmarkOptions, check_options
from detkit.commands.help import asks_for_help, print_help
from detkit.recipe.options import read_options


def main(argv: list[str]) -> None:
    """Check the options, measure, and write the results."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, BenchmarkOptions)
    options, data_overrides = read_options(BenchmarkOptions, argv, prefixes=["data."])
    check_options(options, data_overrides)
    from detkit.benchmark.run import Benchmark
    from detkit.benchmark.selection import make_plan  # imports torch, so only after the checks

    with tempfile.TemporaryDirectory(prefix="detkit_") as scratch:
        return Benchmark(make_plan(options, data_overrides, Path(scratch)), Path(scratch)).run(recipe.console())
