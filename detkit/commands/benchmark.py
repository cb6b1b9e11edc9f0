"""Measure a detector in every runtime that is here: latency, images per second, memory, size, AP, side by side.

detkit benchmark checkpoint=runs/NAME/TIME
detkit benchmark checkpoint=detector.safetensors data.root=/data/coco limit=500 image_hw=320,640 threads=1,2
detkit benchmark checkpoint=detector.safetensors also=model_int8.onnx,model.xml runtimes=eager,onnx
runtimes=eager,compile,channels_last,bf16,onnx,openvino,openvino_bf16: all that are installed; an exported detector is
measured as it is, with its own resize and classes. image_hw= as trained (640 or 384x640), batch_size=1,8, threads= of
this machine, device=auto. Each row has a process of its own; the rows of a table are measured in turns: warmup=5 looks,
then repeat=30 and least_s=2 seconds at least, most_s=30 at most. score_threshold=0.25 of the boxes. With data.* AP is
measured on split=val, limit=IMAGES, at the size as trained if that is among the sizes, else at all (ap_sizes=all: too).
Tables, benchmark.md, .json and .png in out=runs/benchmark/TIME. Ctrl-C keeps what was measured. trusted=my_package lets
the checkpoint name your classes.
"""

import tempfile
from pathlib import Path

from detkit import recipe


def main(argv: list[str]) -> None:
    """Look at what is asked for, measure it, and show and keep the figures."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    from detkit.benchmark.options import read_options

    options, data = read_options(argv)
    from detkit.benchmark.run import Benchmark
    from detkit.benchmark.selection import make_plan  # torch, after the arguments were found right

    with tempfile.TemporaryDirectory(prefix="detkit_") as scratch:
        Benchmark(make_plan(options, data, Path(scratch)), Path(scratch)).run(recipe.console())
