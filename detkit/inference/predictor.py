"""detkit.load: a trained detector from its file alone, and its use on images."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, overload

import numpy as np
import torch
from torch import Tensor, nn

from detkit import recipe
from detkit.data import Resize, to_input
from detkit.data.resize import to_unit
from detkit.errors import CheckpointError, DataError
from detkit.inference.images import GivenImage, OneImage, given_images
from detkit.inference.results import ImageDetections
from detkit.inference.stored import read_stored
from detkit.ops.boxes import boxes_to_original
from detkit.types import Detections

Unreadable = Literal["raise", "skip"]
ManyImages = Iterable[str | Path | OneImage]
LOG = logging.getLogger(__name__)


class Predictor:
    """A trained detector and what its results mean.

    Args:
        detector: (B, 3, H, W) RGB in [0, 1] to raw predictions.
        decode: raw predictions to the detections of each image, in pixels of the network input.
        class_names: of each class index.
        image_hw: the network input that it was trained for.
        resize: how images come to that size, see ``detkit.data.to_input``.
        device: where the detector runs; it is moved there.
    """

    def __init__(
        self,
        detector: nn.Module,
        decode: Callable[[Any], list[Detections]],
        class_names: Sequence[str],
        image_hw: tuple[int, int],
        resize: Resize,
        device: str | torch.device = "cpu",
    ) -> None:
        self.detector = detector.eval()
        self.decode = decode
        self.class_names = tuple(class_names)
        self.image_hw = image_hw
        self.resize: Resize = resize
        self.to(device)

    def to(self, device: str | torch.device) -> Self:
        """Run there from now on, e.g. "cuda"."""
        self.device = torch.device(device)
        self.detector.to(self.device)
        return self

    def __repr__(self) -> str:
        height, width = self.image_hw
        return f"<Predictor of {len(self.class_names)} classes, {self.resize} to {width} x {height}, on {self.device}>"

    # fmt: off
    @overload
    def predict(
        self, images: OneImage, *, score_threshold: float = ..., max_detections: int = ..., batch_size: int = ...,
        bgr: bool = ..., unreadable: Unreadable = ...,
    ) -> ImageDetections: ...
    @overload
    def predict(
        self, images: str | Path, *, score_threshold: float = ..., max_detections: int = ..., batch_size: int = ...,
        bgr: bool = ..., unreadable: Unreadable = ...,
    ) -> Any: ...
    @overload
    def predict(
        self, images: ManyImages, *, score_threshold: float = ..., max_detections: int = ..., batch_size: int = ...,
        bgr: bool = ..., unreadable: Unreadable = ...,
    ) -> list[ImageDetections]: ...
    # fmt: on
    def predict(
        self,
        images: str | Path | OneImage | ManyImages,
        *,
        score_threshold: float = 0.25,
        max_detections: int = 100,
        batch_size: int = 8,
        bgr: bool = False,
        unreadable: Unreadable = "raise",
    ) -> Any:
        """What is in one image or in many.

        Args:
            images: the path of a file; an array, (H, W, 3) or grey (H, W), uint8 RGB; a picture of Pillow; a tensor,
                (3, H, W) RGB, uint8 or in [0, 1]. Many: a folder with those inside it, a pattern such as
                ``photos/*.jpg``, or a list of any of these.
            score_threshold: lowest score of a detection, in [0, 1]; not below that of ``decode``.
            max_detections: most detections of an image, the best ones; ``decode`` may keep fewer.
            batch_size: images that go through the network together: the time and memory, not the results.
            bgr: whether arrays and tensors hold BGR, as cv2 reads them.
            unreadable: of many images, "skip" leaves out those that cannot be read, with a warning for each.

        Returns:
            The detections of one image; of many a list, in their order; files of a folder in natural order.

        Raises:
            DataError: if an image cannot be read, or a folder or a pattern gives none.
            ValueError: if an array or a tensor is no image, or an option is out of its range.
            TypeError: if images are in none of these forms.
            CheckpointError: if the checkpoint is of a classifier.
        """
        self._check_options(score_threshold, max_detections, batch_size, unreadable)
        given = given_images(images, bgr)
        if isinstance(given, GivenImage):
            return self._predict([(given, given.read())], score_threshold, max_detections)[0]
        readable = _readable(given, skip=unreadable == "skip")
        found: list[ImageDetections] = []
        while batch := list(itertools.islice(readable, batch_size)):
            found += self._predict(batch, score_threshold, max_detections)
        return found

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """All that ``decode`` keeps, of images that are decoded already, in one batch.

        Args:
            images: each (H, W, 3) uint8 RGB, of any size.

        Returns:
            The detections of each, on the CPU, in its own pixels and clipped to it.

        Raises:
            CheckpointError: if the checkpoint is of a classifier.
        """
        if not images:
            return []
        inputs, scales = zip(*(to_input(image, self.image_hw, self.resize) for image in images), strict=True)
        batch = torch.from_numpy(np.stack(inputs)).to(self.device).permute(0, 3, 1, 2)
        if self.detector.training:
            self.detector.eval()
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            decoded = self.decode(self.detector(to_unit(batch)))
        if not isinstance(decoded[0], Detections):
            raise CheckpointError(
                f"predict needs a detector; the checkpoint's decode gives {type(decoded[0]).__name__}"
            )
        return [
            Detections(
                boxes_to_original(found.boxes.float().cpu(), (image.shape[0], image.shape[1]), scale_xy),
                found.scores.float().cpu().clone(),  # tensors of inference mode take no part in later training
                found.labels.cpu().clone(),
            )
            for found, image, scale_xy in zip(decoded, images, scales, strict=True)
        ]

    def _predict(
        self, batch: Sequence[tuple[GivenImage, np.ndarray]], score_threshold: float, max_detections: int
    ) -> list[ImageDetections]:
        return [
            ImageDetections(*found, self.class_names, (image.shape[0], image.shape[1]), given.path, given.read).filter(
                score_threshold
            )[:max_detections]
            for (given, image), found in zip(batch, self.detect([image for _, image in batch]), strict=True)
        ]

    def _check_options(self, score_threshold: float, max_detections: int, batch_size: int, unreadable: str) -> None:
        lowest = getattr(self.decode, "score_threshold", 0.0)
        if not lowest <= score_threshold <= 1:
            raise ValueError(
                f"score_threshold must lie in [{lowest}, 1]; got {score_threshold}. The detector's decode keeps no "
                "lower scores; predictor.decode.score_threshold may be set lower"
            )
        if max_detections < 1 or batch_size < 1:
            raise ValueError(f"limits must be at least 1; got max_detections={max_detections}, batch_size={batch_size}")
        if unreadable not in get_args(Unreadable):
            raise ValueError(f"unreadable must be {' or '.join(get_args(Unreadable))}; got {unreadable!r}")


def load(path: str | Path, trusted: Sequence[str] = ()) -> Predictor:
    """Rebuild a trained detector on the CPU.

    Args:
        path: a run's folder, its detector.safetensors or one of its checkpoints.
        trusted: packages of your own that the detector has classes of; others than detkit's are refused.

    Raises:
        CheckpointError: if the file cannot be read, or its weights do not fit its recipe or are no numbers.
        RecipeError: if the recipe inside names a class that is not found or not trusted.
    """
    stored = read_stored(path)
    packages = (*recipe.TRUSTED, *trusted)
    model, decode = (stored.recipe[part] for part in ("model", "decode"))
    with stored.building():
        stored.require_fit(trusted)
        detector = recipe.instantiate(model, trusted=packages)
        _require_numbers(stored.weights)
        stored.load_into(detector)
        decoder = recipe.instantiate(decode, trusted=packages)
    return Predictor(detector, decoder, stored.class_names, stored.image_hw, stored.resize)


def _require_numbers(weights: Mapping[str, Tensor]) -> None:
    """Of a detector with NaN in it no score would reach any threshold: it would find nothing, without a word."""
    broken = [name for name, tensor in weights.items() if tensor.isnan().any()]
    if broken:
        raise CheckpointError(f"{len(broken)} of {len(weights)} weights hold NaN, the first is {broken[0]}")


def _readable(images: Iterable[GivenImage], *, skip: bool) -> Iterator[tuple[GivenImage, np.ndarray]]:
    """Each image with its pixels; those that cannot be read raise, or are left out and counted."""
    read = left_out = 0
    for image in images:
        try:
            pixels = image.read()
        except DataError as error:
            if not skip:
                raise
            left_out += 1
            LOG.warning("left out: %s", error)
            continue
        read += 1
        yield image, pixels
    if left_out:
        LOG.warning("%d of %d images were left out: they cannot be read", left_out, left_out + read)
