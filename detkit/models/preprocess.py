"""What a network's weights expect of an image, when that is not RGB in [0, 1]."""

from typing import Literal

import torch
from torch import Tensor, nn


class Preprocess(nn.Module):
    """RGB images in [0, 1] to what the weights were trained on. It travels with the detector.

    Args:
        channel_order: "rgb" or "bgr".
        scale: factor on the pixel values; 255 for weights trained on 0..255.
        mean: subtracted after scaling, one value per channel in the output's order.
        std: divided by after that.

    Raises:
        ValueError: if the order is unknown or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channel_order: Literal["rgb", "bgr"] = "rgb",
        scale: float = 1.0,
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
        std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order must be rgb or bgr; got {channel_order!r}")
        if min(std) <= 0:
            raise ValueError(f"std must be positive; got {tuple(std)}")
        self.channel_order = channel_order
        self.scale = scale
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to the same shape."""
        if self.channel_order == "bgr":
            images = images.flip(1)
        return (images * self.scale - self.mean) / self.std
