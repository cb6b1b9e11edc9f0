"""Export a trained detector, and prove that the file is the same detector: ONNX, OpenVINO or a program of torch.

detkit export checkpoint=runs/NAME/TIME data.root=/data/coco
detkit export checkpoint=detector.safetensors format=openvino precision=int8 out=model.xml data.root=my_data
detkit export checkpoint=detector.safetensors outputs=raw input=uint8 dynamic=size image_hw=320,320
format=onnx of onnx, openvino, torch_export and torchscript. out: the file; without it model.onnx beside the detector.
outputs=raw of the network, decoded (boxes and scores of all places) or detections (final; the default where the format
can suppress). input=float32: (B, 3, H, W) RGB in [0, 1], or uint8: (B, H, W, 3). dynamic=batch of none, batch and size.
precision=fp32, fp16 or int8 (by calibration=128 images of the training split). score_threshold, iou_threshold and
max_detections are put into the file; without them those of the recipe.
The check: AP of the written file in its own runtime beside torch, on split=val of the recipe's data or data.root=...
(limit=N images, batch_size=4), boxes, scores and latency. It lies in the file and in OUT.certificate.json beside it.
More than tolerance=0.1 AP points apart (int8: 1.0 lost) ends with code 69 and the layers to blame; the file stays,
marked as failed; allow_difference=true ends with 0. Without data it looks at drawn images: a weaker check.
trusted=my_package lets the checkpoint name your classes.
"""

from detkit import recipe


def main(argv: list[str]) -> None:
    """Export, check, and say what came out."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    from detkit.export.options import read_options

    options, pairs = read_options(argv)
    from detkit.export.run import prepare  # torch and onnx, after the arguments were found right

    prepare(options, pairs).run(recipe.console())
