"""Export a detector to ONNX, OpenVINO or a torch program, and check that the file gives the same detections.

detkit export checkpoint=runs/NAME/TIME data.root=/data/coco
detkit export checkpoint=detector.safetensors format=openvino precision=int8 out=model.xml data.root=my_data
detkit export checkpoint=detector.safetensors outputs=raw input=uint8 dynamic=size image_hw=320,320
The check compares AP, boxes, scores and latency of the written file in its own runtime with those of torch, on the data
of the recipe or of data.root=...; without data it uses drawn images, which is a weaker check. The result is stored in
the file and in OUT.certificate.json. A file that differs by more than the tolerance is kept and marked as failed; the
command lists the layers that differ most and ends with code 69.
"""

from detkit import recipe
from detkit.commands.help import asks_for_help, print_help
from detkit.exporting.options import ExportOptions, check_options
from detkit.recipe.options import read_options


def main(argv: list[str]) -> None:
    """Export, check, and print the result."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, ExportOptions)
    options, pairs = read_options(ExportOptions, argv, prefixes=["data."])
    check_options(options, pairs)
    from detkit.exporting.run import prepare  # imports torch, so only after the checks

    prepare(options, pairs).run(recipe.console())
    return None
