"""Compare int8 files on a CPU with VNNI and on one without, with weights of 8 bits and of 7 bits.

    mkdir -p build
    cc -O2 -shared -fPIC -o build/avx2_cpu.so tests/helpers/avx2_cpu.c
    python -m results.int8_cpus runs/NAME/TIME data/bccd out/int8

Exports files in which no layer is in float. Two processes then run each file on the validation split; one of them sees
a CPU with AVX2 alone. The files stay in the folder, for ``detkit benchmark also=...``.
"""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

import detkit
from detkit.exporting.int8 import quantize
from detkit.exporting.options import ExportOptions
from detkit.exporting.run import prepare
from detkit.exporting.steps import TimedSteps
from detkit.exporting.verify.certificate import ExportCheck, compare_detections
from detkit.exporting.verify.check_images import images_for
from detkit.inference import read_stored
from detkit.inference.runtimes.forms import SUFFIXES
from detkit.types import Detections

AVX2 = Path(__file__).parents[1] / "build/avx2_cpu.so"
NUMBERS = ("AP in torch", "here", "with AVX2", "boxes apart, px: most", "mean", "scores: most", "mean", "unmatched")


def export(options: ExportOptions, data: str, bits: int) -> float:
    """Write an int8 file; the AP of its detector in torch."""
    real, changed = quantize.quantize_static, {"reduce_range": bits == 7}
    with patch.object(quantize, "quantize_static", lambda *given, **named: real(*given, **{**named, **changed})):
        return prepare(options, [("data.root", data)]).run(Console(stderr=True)).noted["ap"]["torch"]["AP"]


def look(file: str, data: str, out: str) -> None:
    """Write the AP and the detections of a file on the CPU that this process sees."""
    with TimedSteps() as steps, images_for(read_stored(file), ExportOptions(file), [("data.root", data)]) as images:
        check = ExportCheck(detkit.load(file), images, steps)
        torch.save((check.ap, [tuple(found) for found in check.reference_run.found]), out)


def looked(file: Path, data: str, library: str) -> tuple[float, list[Detections]]:
    """AP and detections of a file in a process of its own, with a library in LD_PRELOAD."""
    out, environment = file.with_suffix(".pt"), {**os.environ, "LD_PRELOAD": library}
    subprocess.run([sys.executable, __file__, "look", file, data, out], env=environment, check=True)
    numbers, found = torch.load(out, weights_only=True)
    return numbers["AP"], [Detections(*of) for of in found]


def main(checkpoint: str, data: str, folder: str) -> None:
    """Export the files, run them on both kinds of CPU, and print the differences."""
    table = Table("", *NUMBERS, box=None)
    for file_format in ("onnx", "openvino"):
        for bits in (8, 7):
            file = Path(folder) / f"{bits}_bits{SUFFIXES[file_format]}"
            ap = export(ExportOptions(checkpoint, file_format, file, precision="int8", tolerance=100.0), data, bits)
            (here, ours), (there, theirs) = (looked(file, data, library) for library in ("", str(AVX2)))
            apart = compare_detections(ours, theirs)
            parts = apart.largest_box_px, apart.mean_box_px, apart.largest_score, apart.mean_score
            aps, spelt = (f"{value:.4f}" for value in (ap, here, there)), (f"{part:.2g}" for part in parts)
            unmatched = f"{apart.unmatched} of {apart.matched + apart.unmatched}"
            table.add_row(f"{file_format}, {bits} bits", *aps, *spelt, unmatched)
    Console(width=160).print(table)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    look(*sys.argv[2:]) if sys.argv[1] == "look" else main(*sys.argv[1:])
