"""Detectors that are small enough to export in a test, and as decisive as trained ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import detkit
from detkit import recipe
from detkit.checkpoint import write_detector
from detkit.layers.conv import ConvNormAct
from detkit.types import FeatureSpec

CLASS_NAMES = ("thing", "other")
IMAGE_HW = (64, 96)
BACKBONE = {
    "_target_": "detkit.models.backbones.CSPDarknet",
    "depth_multiple": 0.33,
    "width_multiple": 0.125,
    "out_levels": ["P3", "P4"],
}
YOLO = {
    "_target_": "detkit.models.Detector",
    "backbone": BACKBONE,
    "neck": {"_target_": "detkit.models.necks.FPN", "_partial_": True},
    "head": {"_target_": "detkit.models.heads.YOLOHead", "_partial_": True, "num_classes": 2, "num_bins": 8},
}
RTDETR = {
    "_target_": "detkit.models.Detector",
    "backbone": BACKBONE,
    "neck": {
        "_target_": "detkit.models.necks.HybridEncoder",
        "_partial_": True,
        "channels": 32,
        "feedforward": 64,
        "depth": 1,
    },
    "head": {
        "_target_": "detkit.models.heads.RTDETRHead",
        "_partial_": True,
        "num_classes": 2,
        "channels": 32,
        "num_queries": 20,
        "num_layers": 1,
        "feedforward": 64,
    },
}

PLAIN = {
    **YOLO,
    "backbone": {"_target_": "tests.exporting.tiny.Plain"},
    "head": {**YOLO["head"], "depth": 1},
}


class Plain(nn.Module):
    """Three convolutions: quick to convert."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNormAct(3, 16, 3, stride=2), ConvNormAct(16, 24, 3, stride=2), ConvNormAct(24, 32, 3, stride=2)
        )
        self.out_specs = [FeatureSpec(32, 8, "layers")]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layers(images)]


def config_of(model: dict[str, Any], root: Path | str = "nowhere", **decode: Any) -> dict[str, Any]:
    """A whole recipe around the model."""
    name = "rtdetr_r18" if model is RTDETR else "yolo_csp_n"
    size = f"data.image_hw=[{IMAGE_HW[0]},{IMAGE_HW[1]}]"
    config = recipe.load(
        [f"recipe={name}", f"data.root={root}", size, "data.resize=squash", "data.num_workers=0"]
    ).config
    return {**config, "model": model, "decode": {**config["decode"], **decode}}


def decisive(model: dict[str, Any], seed: int = 0) -> nn.Module:
    """Statistics in its norms that are not those of a new one, and scores from 0 to 1 without near-ties."""
    torch.manual_seed(seed)
    detector = recipe.instantiate(model, trusted=(*recipe.TRUSTED, "tests")).eval()
    for name, module in detector.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5)):
                assert values is not None
                nn.init.uniform_(values, low, high)
            nn.init.uniform_(module.weight, 1.5, 3.0)  # so that places differ in what is found
            nn.init.uniform_(module.bias, -0.2, 0.2)
        if "class_logits" in name and isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=1.0)
            assert module.bias is not None
            nn.init.constant_(module.bias, -2.0)
    return detector


def write(path: Path, config: dict[str, Any], detector: nn.Module, **metadata: Any) -> Path:
    noted = {"class_names": list(CLASS_NAMES), "image_hw": list(IMAGE_HW), "data_fingerprint": "abc", "ap": 0.5}
    write_detector(path, detector.state_dict(), {"recipe": config, **noted, **metadata})
    return path


def write_truth(root: Path, detector_file: Path, numbers: Sequence[tuple[str, int]]) -> None:
    """Noise whose truth is what the detector finds in them: its AP is high, and that of a worse one lower."""
    predictor = detkit.load(detector_file, ["tests"])
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, number in numbers:
        (root / split).mkdir()
        images, annotations = [], []
        for row in range(number):
            image = rng.integers(0, 255, (80 + row, 120, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / f"{row}.png"), image[..., ::-1])
            images.append({"id": row + 1, "file_name": f"{row}.png", "height": image.shape[0], "width": image.shape[1]})
            found = predictor.predict(image, score_threshold=0.3, max_detections=6)
            for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
                xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                new = {"id": len(annotations) + 1, "image_id": row + 1, "category_id": label + 1, "bbox": xywh}
                annotations.append({**new, "area": xywh[2] * xywh[3], "iscrowd": 0})
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASS_NAMES)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
