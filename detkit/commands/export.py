"""Export a detector to ONNX, OpenVINO or a program of torch, and check that the file gives the same detections.

detkit export checkpoint=runs/NAME/TIME data.root=/data/coco
detkit export checkpoint=detector.safetensors format=openvino precision=int8 out=model.xml data.root=my_data
detkit export checkpoint=detector.safetensors outputs=raw input=uint8 dynamic=size image_hw=320,320
The check compares AP, boxes, scores and latency of the written file in its own runtime with those of torch, on the data
of the recipe or of data.root=...; without data it takes drawn images, which is a weaker check. The result lies in the
file and in OUT.certificate.json beside it. A file that differs by more than the tolerance stays, marked as failed; the
command names the layers to blame and ends with code 69.
"""

from detkit import recipe
from detkit.commands.help import asks_for_help, print_help
from detkit.exporting.options import ExportOptions, check_options
from detkit.recipe.options import read_options


def main(argv: list[str]) -> None:
    """Export, check, and say what came out."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, ExportOptions)
    options, pairs = read_options(ExportOptions, argv, prefixes=["data."])
    check_options(options, pairs)
    from detkit.exporting.run import prepare  # torch and onnx, after the arguments were found right

    prepare(options, pairs).run(recipe.console())
    return None
