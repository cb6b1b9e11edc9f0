"""Images in the forms in which programs hold them, each turned into what the file decoder would give.

Torch is not imported: where an image is a tensor, the caller has imported it.
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
    "a picture of Pillow, or a list of them"
)
LOG = logging.getLogger(__name__)


class GivenImage(NamedTuple):
    """An image as it was given; it is read when it is needed."""

    source: "Path | OneImage | DataError"  # an error: a path that names no image
    name: str  # for errors and results
    is_bgr: bool = False  # the channels of an array or a tensor
    is_passing: bool = False  # nobody but the reader holds it: of a generator, a data loader

    @property
    def path(self) -> Path | None:
        """Of the file, if it is one."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def again(self) -> Callable[[], np.ndarray] | None:
        """Reads it later; None: that would keep pixels in memory, of all that pass by."""
        return None if self.is_passing else self.read

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright.

        Raises:
            DataError: if a file or a picture of Pillow cannot be read, or there is none.
            ValueError: if the type, shape or values of an array or a tensor are none of an image.
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


def given_images(images: object, is_bgr: bool = False) -> GivenImage | Iterator[GivenImage]:
    """One image for one; many for a folder, a pattern, or whatever can be iterated over, as it is.

    Raises:
        DataError: if a folder or a pattern gives no file; of one in a list, when it is read.
        TypeError: if it is nothing that images come in; in a list, when it is its turn.
    """
    if _is_one_image(images):
        return GivenImage(images, "image", is_bgr)
    if isinstance(images, str | Path):
        path = _path(images)
        files = image_files(path)
        return GivenImage(path, str(path)) if files is None else _of_files(files)
    if isinstance(images, Iterable) and not isinstance(images, bytes | bytearray):
        return _each(images, is_bgr)
    raise TypeError(f"images cannot be {type(images).__name__}: {FORMS}")


def readable_images(images: Iterable[GivenImage], *, skip: bool) -> Iterator[tuple[GivenImage, np.ndarray]]:
    """Each image with its pixels; those that cannot be read raise, or are left out and counted."""
    read = left_out = 0
    for image in images:
        try:
            pixels = image.read()
        except (DataError, ValueError) as error:
            if not skip:
                raise
            left_out += 1
            LOG.warning("left out: %s", error)
            continue
        read += 1
        yield image, pixels
    if left_out:
        LOG.warning("%d of %d images were left out: they cannot be read", left_out, left_out + read)


def _each(images: Iterable[object], is_bgr: bool) -> Iterator[GivenImage]:
    for number, image in enumerate(images):
        if _is_one_image(image):
            yield GivenImage(image, f"images[{number}]", is_bgr, not isinstance(images, Collection))
        elif isinstance(image, str | Path):
            yield from _of_path(image)
        else:
            raise TypeError(f"images[{number}] cannot be {type(image).__name__}: {FORMS}")


def _is_one_image(image: object) -> TypeGuard[OneImage]:
    torch = sys.modules.get("torch")
    return isinstance(image, np.ndarray | Image.Image) or (torch is not None and isinstance(image, torch.Tensor))


def _of_path(text: str | Path) -> Iterator[GivenImage]:
    try:
        path = _path(text)
        return _of_files(image_files(path) or [path])
    except DataError as error:
        return iter([GivenImage(error, str(text))])


def _of_files(files: Iterable[Path]) -> Iterator[GivenImage]:
    return (GivenImage(file, str(file)) for file in files)


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
    """(3, H, W) to (H, W, 3); of values in [0, 1] the nearest of the 256 that files have."""
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
