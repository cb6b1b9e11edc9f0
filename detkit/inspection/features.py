"""A picture of the feature maps of a model for one image."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from detkit.data import Resize, decode_image, to_input
from detkit.errors import RecipeError
from detkit.inspection.measure import HasOutSpecs, check_size, evaluation_mode
from detkit.ops.drawing import FONT, GAP, INK, PAPER, grid
from detkit.types import FeatureSpec

COLUMNS, TILE_PX, IMAGE_PX = 4, 132, 480  # tiles in a row; longer sides of a tile and of the image
SUFFIXES = (".jpg", ".jpeg", ".png")


class FeatureMap(NamedTuple):
    """One level of a backbone or neck for one image."""

    part: str  # "backbone" or "neck"
    spec: FeatureSpec
    values: Tensor  # (channels, h, w); h = w = 1 for a vector


def write_features(
    model: nn.Module, image: Path, image_hw: tuple[int, int], channels: int, out: Path, resize: Resize = "letterbox"
) -> None:
    """Write the strongest channels of every level of backbone and neck as heat maps beside the image.

    Args:
        model: with a ``backbone`` or a ``neck`` that has ``out_specs``.
        image: file of the image.
        image_hw: size of the network's input.
        channels: largest number of channels of a level.
        out: file to write, .jpg or .png.
        resize: how the image is resized, as in the model's training.

    Raises:
        DataError: if the image cannot be read.
        RecipeError: if the model has neither, the size does not fit, or the file cannot be written.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise RecipeError(f"out: must end with {', '.join(SUFFIXES)}; got {str(out)!r}")
    if not out.parent.is_dir():
        raise RecipeError(f"out: there is no folder {str(out.parent)!r}")
    check_size(model, image_hw)
    pixels, _ = to_input(decode_image(image), image_hw, resize)
    picture = draw_features(pixels, feature_maps(model, pixels), channels)
    cv2.imwrite(str(out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def feature_maps(model: nn.Module, image: np.ndarray) -> list[FeatureMap]:
    """Backbone and neck of a model run on one image, finest level first.

    Args:
        model: it is not changed.
        image: (H, W, 3) uint8 RGB, of the network's size.

    Raises:
        RecipeError: if there is neither a backbone nor a neck with ``out_specs``.
    """
    children = dict(model.named_children())
    parts = {name: part for name in ("backbone", "neck") if isinstance(part := children.get(name), HasOutSpecs)}
    parts = {name: part for name, part in parts.items() if part.out_specs}
    if not parts:
        raise RecipeError(f"features: {type(model).__name__} has no backbone or neck with out_specs")
    outputs: dict[str, Sequence[Tensor]] = {}
    handles = [
        children[name].register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name in parts
    ]
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    try:
        with evaluation_mode(model), torch.no_grad():
            model(images.to(next(model.parameters(), images).device))
    finally:
        for handle in handles:
            handle.remove()
    return [
        FeatureMap(name, spec, output[0].float().cpu().reshape(output.shape[1], *(output.shape[2:] or (1, 1))))
        for name, part in parts.items()
        for spec, output in zip(part.out_specs, outputs[name], strict=True)
    ]


def strongest_channels(values: Tensor, number: int) -> list[tuple[int, float]]:
    """(channel, mean absolute activation) of the strongest channels of (channels, h, w), strongest first."""
    strengths = values.abs().flatten(1).mean(dim=1)
    order = strengths.argsort(descending=True, stable=True)[:number]
    return [(int(channel), float(strengths[channel])) for channel in order]


def draw_features(image: np.ndarray, maps: Sequence[FeatureMap], channels: int) -> np.ndarray:
    """The image, and beside it a column for each part with a panel for each level.

    Args:
        image: (H, W, 3) uint8 RGB, the network's input.
        maps: of one model.
        channels: largest number of channels of a level.
    """
    shown = _resized(image, IMAGE_PX)
    legend = (
        "bright is a large absolute activation,",
        "the brightest its channel's maximum",
        "below: channel, mean absolute activation",
    )
    left = _stacked([_text("input", 11), shown, *(_text(line, 9) for line in legend)], axis=0)
    columns = [
        _stacked([_panel(each, channels, image.shape[:2]) for each in maps if each.part == part], axis=0)
        for part in dict.fromkeys(each.part for each in maps)
    ]
    return _framed(_stacked([left, *columns], axis=1))


def _panel(level: FeatureMap, channels: int, image_hw: tuple[int, ...]) -> np.ndarray:
    """Title and heat maps of one level."""
    count, height, width = level.values.shape
    stride = f"stride {level.spec.stride}" if level.spec.stride else "vector"
    name = level.spec.level if level.spec.stride else ""
    layer = level.spec.name if level.spec.name != name else ""
    title = " ".join(filter(None, (level.part, name, layer)))
    chosen = strongest_channels(level.values, channels)
    shared_peak = None if level.spec.stride else level.values.abs().max().item()  # one scale for all tiles of a vector
    tiles = [
        _stacked(
            [_heat(level.values[channel], image_hw, shared_peak), _text(f"#{channel}  {strength:.2g}", 9)],
            axis=0,
            gap=0,
        )
        for channel, strength in chosen
    ]
    return _stacked([_text(f"{title}: {count} x {height} x {width}, {stride}", 11), grid(tiles, COLUMNS)], axis=0)


def _heat(channel: Tensor, image_hw: tuple[int, ...], peak: float | None) -> np.ndarray:
    """Draw (h, w) absolute activations as colours, in the shape of the image.

    Black is 0 and the brightest colour is the peak; None means the maximum of the channel.
    """
    strength = torch.nan_to_num(channel.abs(), posinf=0.0).numpy()
    brightest = float(strength.max()) if peak is None else peak
    levels = np.rint(strength * (255 / brightest if brightest > 0 else 0)).clip(0, 255).astype(np.uint8)
    height, width = _fitted(image_hw, TILE_PX)
    shrinks = levels.shape[0] > height
    levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def _fitted(size_hw: tuple[int, ...], longest_px: int) -> tuple[int, int]:
    """A size of the same shape with this longer side."""
    height, width = (max(1, round(side * longest_px / max(size_hw))) for side in size_hw)
    return height, width


def _resized(image: np.ndarray, longest_px: int) -> np.ndarray:
    height, width = _fitted(image.shape[:2], longest_px)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _text(text: str, letter_px: int) -> np.ndarray:
    """A line of text on paper."""
    scale = cv2.getFontScaleFromHeight(FONT, letter_px)
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    strip = np.full((height + below + 4, width + 4, 3), PAPER, dtype=np.uint8)
    return cv2.putText(strip, text, (2, height + 2), FONT, scale, INK, 1, cv2.LINE_AA)


def _stacked(images: Sequence[np.ndarray], axis: int, gap: int = GAP) -> np.ndarray:
    """Images below (axis 0) or beside (axis 1) each other, aligned at the top left."""
    other = max(image.shape[1 - axis] for image in images)
    pieces = []
    for number, image in enumerate(images):
        room = [(0, gap * (number < len(images) - 1) * (1 + 2 * axis)), (0, 0)]
        room = room if axis == 0 else room[::-1]
        room[1 - axis] = (0, other - image.shape[1 - axis])
        pieces.append(np.pad(image, [*room, (0, 0)], constant_values=PAPER[0]))
    return np.concatenate(pieces, axis=axis)


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, [(2 * GAP, 2 * GAP), (2 * GAP, 2 * GAP), (0, 0)], constant_values=PAPER[0])
