"""An exported detector of a few lines of ONNX."""

from pathlib import Path
from typing import Any

from onnx import parser

from detkit.exporting.formats.writers import write_onnx
from detkit.inference.runtimes.signature import Signature

NET = """<ir_version: 10, opset_import: ["" : 20]>
net (float[B,3,32,32] images) => (float[B,1,4] boxes, float[B,1,1] scores)
<float[1,1,4] box = {0, 0, 16, 8}, int64[3] axes = {1, 2, 3}, int64[3] shape = {-1, 1, 1}, float[1] zero = {0}>
{ mean = ReduceMean <keepdims = 0> (images, axes)  scores = Reshape (mean, shape)
  nothing = Mul (scores, zero)  boxes = Add (nothing, box) }"""

SIGNATURE = Signature("decoded", ("boxes", "scores"), False, "batch", (32, 32), 32, "distances")._asdict()

RECIPE = {"model": {"_target_": "detkit.models.Detector"}, "decode": {"_target_": "detkit.decode.YOLODecode"}}

METADATA: dict[str, Any] = {
    "detkit_version": "0.1.0",
    "recipe": RECIPE,
    "class_names": ["cat"],
    "image_hw": [32, 32],
    "signature": SIGNATURE,
}


def write(path: Path, **changed: Any) -> Path:
    write_onnx(path, parser.parse_model(NET), {**METADATA, **changed})
    return path
