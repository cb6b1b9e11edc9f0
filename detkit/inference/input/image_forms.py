"""Images as paths, arrays, tensors or Pillow images, each converted to the result of the file decoder.

Torch is not imported here; if an image is a tensor, the caller has imported torch.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeGuard

import numpy as np
from PIL import Image

from detkit.data.images.decode import decode_image, upright_rgb
from detkit.errors import DataError
from detkit.inference.input.file_lists import image_files

if TYPE_CHECKING:
    from torch import Tensor

OneImage: TypeAlias = "np.ndarray | Image.Image | Tensor"
FORMS = (
    "give the path of a file, a folder or a pattern, an array (H, W, 3) or (H, W) of uint8, a tensor (3, H, W), "
    "a Pillow image, or a list of them"
)
LOG = logging.getLogger(__name__)


class InputImage(NamedTuple):
    """An image as the user gave it; it is read when it is needed."""

    source: "Path | OneImage | DataError"  # an error for a path without an image
    name: str  # for errors and results
    is_bgr: bool = False  # order of the channels of an array or a tensor
    is_streamed: bool = False  # from a generator or a data loader, so that the caller does not keep it

    @property
    def path(self) -> Path | None:
        """The path of a file, else None."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def reader(self) -> Callable[[], np.ndarray] | None:
        """A function to read the image later; None for a streamed image, whose pixels it would keep in memory."""
        return None if self.is_streamed else self.read

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright.

        Raises:
            DataError: if a file or a Pillow image cannot be read, or the path has no image.
            ValueError: if an array or a tensor does not have the type, shape or values of an image.
        """
        if isinstance(self.source, DataError):
            raise self.source
        if isinstance(self.source, Path):
            return decode_image(self.source)
        if isinstance(self.source, Image.Image):
            return _with_pixels(upright_rgb(self.source, self.name), self.name)
        if isinstance(self.source, np.ndarray):
            pixels = _of_array(self.source, self.name)
        else:
            pixels = _of_tensor(self.source, self.name)
        return pixels[..., ::-1] if self.is_bgr else pixels


def input_images(images: object, is_bgr: bool = False) -> InputImage | Iterator[InputImage]:
    """One image for a single image; an iterator for a folder, a pattern or an iterable.

    Raises:
        DataError: if a folder or a pattern has no file; for one in a list, when it is read.
        TypeError: for another type; in a list, when the iterator reaches it.
    """
    if _is_one_image(images):
        return InputImage(images, "image", is_bgr)
    if isinstance(images, str | Path):
        path = _path(images)
        files = image_files(path)
        return InputImage(path, str(path)) if files is None else _of_files(files)
    if isinstance(images, Iterable) and not isinstance(images, bytes | bytearray):
        return _each(images, is_bgr)
    raise TypeError(f"images cannot be {type(images).__name__}: {FORMS}")


def readable_images(images: Iterable[InputImage], *, skip: bool) -> Iterator[tuple[InputImage, np.ndarray]]:
    """Each image with its pixels; unreadable images raise an error, or are skipped, logged and counted."""
    read = skipped = 0
    for image in images:
        try:
            pixels = image.read()
        except (DataError, ValueError) as error:
            if not skip:
                raise
            skipped += 1
            LOG.warning("skipped: %s", error)
            continue
        read += 1
        yield image, pixels
    if skipped:
        LOG.warning("%d of %d images were skipped: they cannot be read", skipped, skipped + read)


def _each(images: Iterable[object], is_bgr: bool) -> Iterator[InputImage]:
    for number, image in enumerate(images):
        if _is_one_image(image):
            yield InputImage(image, f"images[{number}]", is_bgr, not isinstance(images, Collection))
        elif isinstance(image, str | Path):
            yield from _of_path(image)
        else:
            raise TypeError(f"images[{number}] cannot be {type(image).__name__}: {FORMS}")


def _is_one_image(image: object) -> TypeGuard[OneImage]:
    torch = sys.modules.get("torch")
    return isinstance(image, np.ndarray | Image.Image) or (torch is not None and isinstance(image, torch.Tensor))


def _of_path(text: str | Path) -> Iterator[InputImage]:
    try:
        path = _path(text)
        return _of_files(image_files(path) or [path])
    except DataError as error:
        return iter([InputImage(error, str(text))])


def _of_files(files: Iterable[Path]) -> Iterator[InputImage]:
    return (InputImage(file, str(file)) for file in files)


def _path(path: str | Path) -> Path:
    if not str(path) or "\0" in str(path):
        raise DataError(f"{str(path)!r} is no path of an image")
    return Path(path).expanduser()


def _of_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(
            f"{name}: an array must be uint8, 0 to 255; got {array.dtype}. Values in [0, 1] may come as a tensor"
        )
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f"{name}: an array must be (H, W, 3) or (H, W); got {array.shape}. Give several images as a list"
        )
    return _with_pixels(array, name)


def _of_tensor(tensor: "Tensor", name: str) -> np.ndarray:
    """(3, H, W) to (H, W, 3) uint8; values in [0, 1] are rounded to the nearest of the 256 levels."""
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ValueError(
            f"{name}: a tensor must be (3, H, W); got {tuple(tensor.shape)}. Give several images as a list"
        )
    is_float = tensor.is_floating_point()
    values = (tensor.detach().float() if is_float else tensor).cpu().numpy()  # numpy has no bfloat16
    if is_float:
        outside = values[~((values >= 0) & (values <= 1))]  # NaN too
        if len(outside):
            raise ValueError(
                f"{name}: a tensor of {tensor.dtype} must lie in [0, 1]; got {outside[0]:g}. "
                "Values from 0 to 255 must be uint8"
            )
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ValueError(f"{name}: a tensor must be uint8, or of floats in [0, 1]; got {tensor.dtype}")
    return _with_pixels(values.transpose(1, 2, 0), name)


def _with_pixels(pixels: np.ndarray, name: str) -> np.ndarray:
    if not pixels.size:
        raise ValueError(f"{name}: has no pixels; its size is {pixels.shape[1]} x {pixels.shape[0]}")
    return pixels
