"""Files of small detectors that are not trained."""

from pathlib import Path

import onnx.parser
import torch

from detkit import recipe
from detkit.checkpoint import write_detector
from detkit.exporting.formats import writers as formats
from detkit.inference import read_stored
from detkit.inference.runtimes.forms import Outputs
from detkit.inference.runtimes.signature import Signature

MODEL = {
    "_target_": "detkit.models.Detector",
    "backbone": {
        "_target_": "detkit.models.backbones.CSPDarknet",
        "depth_multiple": 0.33,
        "width_multiple": 0.125,
    },
    "neck": {"_target_": "detkit.models.necks.FPN", "_partial_": True},
    "head": {"_target_": "detkit.models.heads.YOLOHead", "_partial_": True, "num_classes": 2},
}


def write_tiny_detector(folder: Path) -> Path:
    plan = recipe.load(["recipe=yolo_csp_n", "data.root=somewhere", "data.image_hw=[64,64]", "data.num_workers=0"])
    config = {**plan.config, "model": {**MODEL, "head": {**plan.config["model"]["head"], "num_classes": 2}}}
    torch.manual_seed(0)
    metadata = {"recipe": config, "class_names": ["dog", "cat"], "image_hw": [64, 64]}
    path = folder / "detector.safetensors"
    write_detector(path, recipe.instantiate(config["model"]).state_dict(), metadata)
    return path


def write_middle(
    checkpoint: Path, folder: Path, resize: str, scores: dict[str, float], outputs: Outputs = "decoded"
) -> Path:
    """A detector that finds an object of each class in the middle of every input: of 64 x 40 pixels."""
    texts = ", ".join(map(str, scores.values()))
    net = f"""<ir_version: 10, opset_import: ["" : 20]>
    net (float[B,3,64,64] images) => (float[B,1,4] boxes, float[B,1,{len(scores)}] scores)
    <float[1,1,4] box = {{0, 12, 64, 52}}, float[1,1,{len(scores)}] score = {{{texts}}},
     int64[3] axes = {{1, 2, 3}}, int64[3] shape = {{-1, 1, 1}}, float[1] zero = {{0}}>
    {{ mean = ReduceMean <keepdims = 0> (images, axes)  rows = Reshape (mean, shape)  nothing = Mul (rows, zero)
       boxes = Add (nothing, box)  scores = Add (nothing, score) }}"""
    noted = read_stored(checkpoint).noted
    recipe = {**noted["recipe"], "data": {**noted["recipe"]["data"], "resize": resize}}
    signature = Signature(outputs, ("boxes", "scores"), False, "batch", (64, 64), 32, "distances")._asdict()
    said = {"recipe": recipe, "class_names": list(scores), "detkit_version": "0", "signature": signature}
    folder.mkdir()
    formats.write_onnx(folder / "model.onnx", onnx.parser.parse_model(net), {**noted, **said})
    return folder / "model.onnx"


def write_untrained(folder: Path) -> Path:
    """A detector which finds something everywhere, with low scores."""
    plan = recipe.load(["recipe=yolo_csp_n", "data.root=somewhere", "data.image_hw=[64,64]"])
    model = {**plan.config["model"], "head": {**plan.config["model"]["head"], "num_classes": 2}}
    torch.manual_seed(0)
    detector = recipe.instantiate(model)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name.endswith("weight") and parameter.ndim == 4:
                parameter.mul_(1.5)  # so that images differ in what is found
    metadata = {"recipe": {**plan.config, "model": model}, "class_names": ["dog", "cat"], "image_hw": [64, 64]}
    metadata["category_ids"] = [18, 17]  # as COCO's
    path = folder / "detector.safetensors"
    write_detector(path, detector.state_dict(), metadata)
    return path
