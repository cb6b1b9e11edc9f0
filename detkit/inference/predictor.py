"""detkit.load: a trained detector from its file alone, and its use on images."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias, get_args, overload

import numpy as np
import torch
from torch import Tensor, nn

from detkit import recipe
from detkit.data import Resize, to_input
from detkit.data.images.resize import to_unit
from detkit.errors import CheckpointError
from detkit.inference.decoder import Decode, TakesUint8, lowest_score, with_threshold
from detkit.inference.exported_detector import ExportedDecode
from detkit.inference.input.image_forms import InputImage, OneImage, input_images, readable_images
from detkit.inference.results import ImageDetections
from detkit.inference.stored_detector import StoredDetector, read_stored
from detkit.inference.tiling.merging import MIN_SCORE_SHARE
from detkit.inference.tiling.slicing import detect_mirrored, detect_slices
from detkit.inference.tiling.windows import LEAST_SLICE, MOST_OVERLAP
from detkit.ops.boxes import boxes_to_original
from detkit.types import Detections

Unreadable = Literal["raise", "skip"]
ManyImages: TypeAlias = "Iterable[str | Path | OneImage]"


class Predictor:
    """A trained detector with the meaning of its outputs.

    Args:
        detector: (B, 3, H, W) RGB in [0, 1] to raw predictions.
        decode: raw predictions to the detections of each image, in pixels of the network input.
        class_names: of each class index.
        image_hw: size of the network input in its training.
        resize: how images are resized to it, see ``detkit.data.to_input``.
        device: where the detector runs; it is moved there.
        category_ids: id of each class index in its training data; None: numbered from 1.
    """

    def __init__(
        self,
        detector: nn.Module,
        decode: Decode,
        class_names: Sequence[str],
        image_hw: tuple[int, int],
        resize: Resize,
        device: str | torch.device = "cpu",
        category_ids: Sequence[int] | None = None,
    ) -> None:
        self.detector = detector.eval()
        self.decode = decode
        self.class_names = tuple(class_names)
        self.category_ids = tuple(range(1, len(class_names) + 1) if category_ids is None else category_ids)
        self.image_hw = image_hw
        self.resize: Resize = resize
        self.to(device)

    def to(self, device: str | torch.device) -> Self:
        """Move the detector to a device, e.g. "cuda"."""
        self.device = torch.device(device)
        self.detector.to(self.device)
        return self

    def __repr__(self) -> str:
        height, width = self.image_hw
        return f"<Predictor of {len(self.class_names)} classes, {self.resize} to {width} x {height}, on {self.device}>"

    # fmt: off
    @overload
    def predict(
        self, images: "OneImage", *, score_threshold: float = ..., max_detections: int = ..., batch_size: int = ...,
        bgr: bool = ..., unreadable: Unreadable = ..., slices: int | None = ..., overlap: float = ..., flip: bool = ...,
    ) -> ImageDetections: ...
    @overload
    def predict(
        self, images: str | Path, *, score_threshold: float = ..., max_detections: int = ..., batch_size: int = ...,
        bgr: bool = ..., unreadable: Unreadable = ..., slices: int | None = ..., overlap: float = ..., flip: bool = ...,
    ) -> Any: ...  # one result or a list, for a file or a folder
    @overload
    def predict(
        self, images: "ManyImages", *, score_threshold: float = ..., max_detections: int = ..., batch_size: int = ...,
        bgr: bool = ..., unreadable: Unreadable = ..., slices: int | None = ..., overlap: float = ..., flip: bool = ...,
    ) -> list[ImageDetections]: ...
    # fmt: on
    def predict(
        self,
        images: "str | Path | OneImage | ManyImages",
        *,
        score_threshold: float = 0.25,
        max_detections: int = 100,
        batch_size: int = 8,
        bgr: bool = False,
        unreadable: Unreadable = "raise",
        slices: int | None = None,
        overlap: float = 0.2,
        flip: bool = False,
    ) -> ImageDetections | list[ImageDetections]:
        """The detections of one image or of many.

        Args:
            images: the path of a file; an array, (H, W, 3) or grey (H, W), uint8 RGB; a Pillow image; a tensor,
                (3, H, W) RGB, uint8 or in [0, 1]. Many images: a folder with its subfolders, a pattern such as
                ``photos/*.jpg``, or a list of any of these. Pixels of a generator or a data loader are not stored; to
                draw its results, pass the image to ``draw``.
            score_threshold: lowest score of a detection, in [0, 1]; not below that of ``decode``.
            max_detections: largest number of detections of an image; ``decode`` may keep fewer.
            batch_size: images, or windows of one image, in one network call; affects only time and memory.
            bgr: whether arrays and tensors are BGR, as cv2 reads them.
            unreadable: of many images, "skip" omits unreadable images, with a warning for each; ``image_name`` of the
                results shows which images remain.
            slices: side in pixels of windows in which the detector is also run, each resized to the network input, for
                small objects in large images; None: only the whole image.
            overlap: smallest share of a window that the next window covers too; should exceed the usual object.
            flip: also detect in the mirrored image, in twice the time; the score of an object that is found in only
                one of the two is halved.

        Returns:
            The detections of one image, or a list in the order of the images; files of a folder in natural order.

        Raises:
            DataError: if an image cannot be read, or a folder or a pattern has no image.
            ValueError: if an array or a tensor is not an image, or an option is out of its range.
            TypeError: if images have another type.
            CheckpointError: if the checkpoint contains a classifier.
        """
        views = _Views(score_threshold, max_detections, batch_size, slices, overlap, flip)
        views.check()
        self.require_score(score_threshold, "predictor.decode.score_threshold may be set lower")
        if unreadable not in get_args(Unreadable):
            raise ValueError(f"unreadable must be {' or '.join(get_args(Unreadable))}; got {unreadable!r}")
        given = input_images(images, bgr)
        if isinstance(given, InputImage):
            return self._predict([(given, given.read())], views)[0]
        readable = readable_images(given, skip=unreadable == "skip")
        found: list[ImageDetections] = []
        while batch := list(itertools.islice(readable, 1 if slices else batch_size)):
            found += self._predict(batch, views)
        return found

    def require_score(self, score_threshold: float, remedy: str = "") -> None:
        """Refuse a threshold below the lowest score of the detector.

        Args:
            score_threshold: lowest score of a detection.
            remedy: for the error, how to lower the detector's own threshold; an export has its own remedy.

        Raises:
            ValueError: if it is out of its range.
        """
        lowest = lowest_score(self.decode)
        if lowest <= score_threshold <= 1:
            return
        if isinstance(self.decode, ExportedDecode) and self.decode.outputs == "detections":
            remedy = "export it again with another score_threshold"
        is_too_low = remedy and 0 <= score_threshold < lowest
        fault = f"score_threshold must lie in [{lowest}, 1]; got {score_threshold}"
        raise ValueError(f"{fault}; {remedy}" if is_too_low else fault)

    def detect(self, images: Sequence[np.ndarray], score_threshold: float = 0.0) -> list[Detections]:
        """All detections that ``decode`` keeps, for images in memory, in one batch.

        Args:
            images: each (H, W, 3) uint8 RGB, of any size.
            score_threshold: lowest score if it is above that of ``decode``.

        Returns:
            The detections of each image, on the CPU, in pixels of the image and clipped to it.

        Raises:
            CheckpointError: if the checkpoint contains a classifier.
        """
        if not images:
            return []
        inputs, scales = zip(*(to_input(image, self.image_hw, self.resize) for image in images), strict=True)
        batch = torch.from_numpy(np.stack(inputs)).to(self.device).permute(0, 3, 1, 2)
        decode = with_threshold(self.decode, max(score_threshold, lowest_score(self.decode)))
        if self.detector.training:
            self.detector.eval()
        takes_uint8 = isinstance(self.detector, TakesUint8) and self.detector.takes_uint8
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            decoded = decode(self.detector(batch if takes_uint8 else to_unit(batch)))
        if not isinstance(decoded[0], Detections):
            raise CheckpointError(
                f"predict needs a detector; the checkpoint's decode gives {type(decoded[0]).__name__}"
            )
        return [
            Detections(
                boxes_to_original(found.boxes.float().cpu(), (image.shape[0], image.shape[1]), scale_xy),
                found.scores.float().cpu().clone(),  # tensors of inference mode cannot be used in training
                found.labels.cpu().clone(),
            )
            for found, image, scale_xy in zip(decoded, images, scales, strict=True)
        ]

    def _predict(self, batch: Sequence[tuple[InputImage, np.ndarray]], views: "_Views") -> list[ImageDetections]:
        results = []
        detections = views.detections_of([image for _, image in batch], self.detect)
        for (given, image), found in zip(batch, detections, strict=True):
            about = (image.shape[0], image.shape[1]), given.path, given.reader, self.category_ids, given.name
            boxes, scores, labels = (values.numpy() for values in found)
            result = ImageDetections(boxes, scores, labels, self.class_names, *about)
            results.append(result.filter(views.score_threshold)[: views.max_detections])
        return results


class _Views(NamedTuple):
    """The options of ``Predictor.predict``."""

    score_threshold: float
    max_detections: int
    batch_size: int
    slices: int | None
    overlap: float
    flip: bool

    def detections_of(self, images: Sequence[np.ndarray], detect: Callable[..., list[Detections]]) -> list[Detections]:
        """The detections of each image, including all above the threshold."""
        least = self.score_threshold * (MIN_SCORE_SHARE if self.slices else 1)
        detect_views = partial(detect_mirrored, detect, least) if self.flip else partial(detect, score_threshold=least)
        if self.slices is None:
            return detect_views(images)
        return [detect_slices(detect_views, image, self.slices, self.overlap, self.batch_size) for image in images]

    def check(self) -> None:
        """Raise a ValueError if an option other than the score is out of its range."""
        if self.max_detections < 1 or self.batch_size < 1:
            raise ValueError(
                f"limits must be at least 1; got max_detections={self.max_detections}, batch_size={self.batch_size}"
            )
        if self.slices is not None and self.slices < LEAST_SLICE:
            raise ValueError(f"slices must be at least {LEAST_SLICE} pixels a side; got {self.slices}")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise ValueError(f"overlap must lie in [0, {MOST_OVERLAP}], a part of a window; got {self.overlap}")


def load(path: str | Path, trusted: Sequence[str] = ()) -> Predictor:
    """Rebuild a trained detector on the CPU.

    Args:
        path: a run's folder, its detector.safetensors, one of its checkpoints, or an exported detector (.onnx, .xml of
            OpenVINO, .pt2, .torchscript).
        trusted: your own packages whose classes the detector may use; other classes are refused. "torch" opens
            .pt2 and .torchscript files, which may run code of their author.

    Raises:
        CheckpointError: if the file cannot be read, or its weights do not fit its recipe or contain NaN.
        RecipeError: if its recipe names a class that is not found or not trusted.
    """
    return predictor_of(read_stored(path), trusted)


def predictor_of(stored: StoredDetector, trusted: Sequence[str] = ()) -> Predictor:
    """As ``load``, of a file that is read already.

    Raises:
        CheckpointError: if its weights do not fit its recipe or contain NaN.
        RecipeError: if its recipe names a class that is not found or not trusted.
    """
    detector = stored.build_model(trusted)
    with stored.building():
        _require_numbers(stored.weights)
        decoder = recipe.instantiate(stored.recipe["decode"], trusted=(*recipe.TRUSTED, *trusted))
    ids = stored.noted.get("category_ids")
    return Predictor(detector, decoder, stored.class_names, stored.image_hw, stored.resize, category_ids=ids)


def _require_numbers(weights: Mapping[str, Tensor]) -> None:
    """Refuse NaN weights: no score would reach a threshold, so the detector would find nothing without an error."""
    broken = [name for name, tensor in weights.items() if tensor.isnan().any()]
    if broken:
        raise CheckpointError(f"{len(broken)} of {len(weights)} weights hold NaN, the first is {broken[0]}")
