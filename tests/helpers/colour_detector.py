"""A detector that finds the red, green and blue rectangles of an image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from detkit.inference import Predictor
from detkit.types import Detections

BOX = (60, 16, 160, 80)

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)

COLOURS = ("red", "green", "blue")


class Colours(nn.Module):
    """Its predictions are the image; ``decode`` finds what is red, green and blue in it, in this order."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32 and images.max() <= 1
        assert torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu") and not self.training
        return images

    @staticmethod
    def decode(images: Tensor) -> list[Detections]:
        return [_rectangles(image > 0.75) for image in images]


def _rectangles(bright_3HW: Tensor) -> Detections:
    boxes, labels = [], []
    for label, bright in enumerate(bright_3HW.cpu()):
        if bright.any():
            ys, xs = bright.nonzero().T
            boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            labels.append(label)
    return Detections(
        torch.tensor(boxes).reshape(-1, 4).float(), torch.linspace(0.9, 0.5, len(labels)), torch.tensor(labels)
    )


def predictor(resize: Any = "letterbox") -> Predictor:
    return Predictor(Colours(), Colours.decode, COLOURS, (64, 96), resize)


def picture(*colours: tuple[int, int, int], box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    """(120, 200, 3) with rectangles of these colours in the box, one below the other."""
    image = np.zeros((120, 200, 3), np.uint8)
    x1, y1, x2, y2 = box
    parts = np.array_split(np.arange(y1, y2), len(colours)) if colours else []
    for colour, rows in zip(colours, parts, strict=True):
        image[rows[0] : rows[-1] + 1, x1:x2] = colour
    return image


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)
