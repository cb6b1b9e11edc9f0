"""Names of formats and outputs of exported programs, without heavy imports."""

from typing import Literal

Format = Literal["onnx", "openvino", "torch_export", "torchscript"]
Outputs = Literal["raw", "decoded", "detections"]
Dynamic = Literal["none", "batch", "size"]
SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torch_export": ".pt2",
    "torchscript": ".torchscript",
}
INSTALL = 'in the clone, pip install -e ".[export]"'
