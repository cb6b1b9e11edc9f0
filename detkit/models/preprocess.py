"""What a network's weights expect of an image, when that is not RGB in [0, 1]."""

from typing import Literal

import torch
from torch import Tensor, nn

ChannelOrder = Literal["rgb", "bgr"]
ORDERS: dict[ChannelOrder, list[int]] = {"rgb": [0, 1, 2], "bgr": [2, 1, 0]}


class Preprocess(nn.Module):
    """RGB images in [0, 1] to what the weights were trained on.

    Its values are saved with the weights, so weights that are loaded into any recipe bring them.

    Args:
        channel_order: "rgb" or "bgr".
        scale: factor on the pixel values; 255 for weights trained on 0..255.
        mean: subtracted after scaling, one value per channel in the output's order.
        std: divided by after that.

    Raises:
        ValueError: if the order is unknown or a std is not positive.
    """

    channels: Tensor
    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channel_order: ChannelOrder = "rgb",
        scale: float = 1.0,
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
        std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if channel_order not in ORDERS:
            raise ValueError(f"channel_order must be rgb or bgr; got {channel_order!r}")
        if min(std) <= 0:
            raise ValueError(f"std must be positive; got {tuple(std)}")
        self.register_buffer("channels", torch.tensor(ORDERS[channel_order]))
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.is_bgr = channel_order == "bgr"
        self.is_plain = scale == 1 and set(mean) == {0} and set(std) == {1}
        self.register_load_state_dict_post_hook(_update_flags)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to the same shape."""
        if self.is_bgr:
            images = images.flip(1)
        return images if self.is_plain else (images * self.scale - self.mean) / self.std

    def extra_repr(self) -> str:
        """In words: order, range and, where there are any, mean and standard deviation."""
        order = "BGR" if self.is_bgr else "RGB"
        text = f"{order}, 0..{self.scale.item():g}"
        if bool((self.mean == 0).all() and (self.std == 1).all()):
            return text
        mean, std = ([round(value, 4) for value in values.flatten().tolist()] for values in (self.mean, self.std))
        return f"{text}, mean {mean}, std {std}"


def _update_flags(module: nn.Module, _: object) -> None:
    """Keep in Python what loaded tensors say, so that ``forward`` need not wait for the device to know it."""
    assert isinstance(module, Preprocess), "the hook belongs to a Preprocess"
    module.is_bgr = module.channels.tolist() == ORDERS["bgr"]
    module.is_plain = bool(module.scale == 1 and (module.mean == 0).all() and (module.std == 1).all())
