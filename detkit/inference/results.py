"""The detections of one image, in pixels of that image."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, overload

import cv2
import numpy as np
from numpy.typing import ArrayLike

from detkit.errors import did_you_mean
from detkit.ops.drawing import draw_detections

if TYPE_CHECKING:
    import pandas as pd  # pyright: ignore[reportMissingImports]

CLASSES_SHOWN = 5  # in a repr
NOTEBOOK_PX = 1024  # longest side of the picture in a notebook


class Detection(NamedTuple):
    """One detected object."""

    name: str  # of its class
    score: float
    box: tuple[float, float, float, float]  # xyxy, pixels of the original image
    label: int  # class index


class CocoResult(TypedDict):
    """A detection as pycocotools reads it."""

    image_id: int
    category_id: int
    bbox: list[float]  # xywh, pixels of the original image
    score: float


class ImageDetections:
    """The detections of one image, best first.

    An index and iteration give single detections; a slice or a mask gives another ``ImageDetections``:
    ``found[:10]``, ``found[found.scores > 0.5]``.

    Args:
        boxes: (N, 4) xyxy in pixels of the original, upright image.
        scores: (N,) in [0, 1].
        labels: (N,) class index.
        class_names: of every class index.
        image_hw: of the original image.
        path: of its file; None: it is not from a file.
        read: reads the image again, (H, W, 3) uint8 RGB, for ``draw``; None: ``draw`` needs the image as an argument.
        category_ids: the data set's own id of each class index; None: numbered from 1.
        image_name: its path, or its place in a list, e.g. "images[3]".

    Attributes:
        boxes: float32.
        scores: float32.
        labels: int64.

    Raises:
        ValueError: if the numbers of boxes, scores and labels differ, a value is not finite, or a label has no name.
    """

    def __init__(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        image_hw: tuple[int, int],
        path: Path | None = None,
        read: Callable[[], np.ndarray] | None = None,
        category_ids: Sequence[int] | None = None,
        image_name: str = "image",
    ) -> None:
        _check(boxes, scores, labels, len(class_names))
        order = np.argsort(-scores, kind="stable")
        self.boxes = boxes[order].astype(np.float32)
        self.scores = scores[order].astype(np.float32)
        self.labels = labels[order].astype(np.int64)
        self.class_names = tuple(class_names)
        self.image_hw = image_hw
        self.path = path
        self.category_ids = tuple(range(1, len(class_names) + 1) if category_ids is None else category_ids)
        self.image_name = image_name
        self._read = read

    @property
    def names(self) -> list[str]:
        """The class of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        columns = (self.names, self.scores.tolist(), map(tuple, self.boxes.tolist()), self.labels.tolist())
        return map(Detection._make, zip(*columns, strict=True))

    @overload
    def __getitem__(self, which: slice | np.ndarray | Sequence[bool]) -> "ImageDetections": ...
    @overload
    def __getitem__(self, which: int | np.integer) -> Detection: ...
    def __getitem__(self, which: slice | ArrayLike) -> "Detection | ImageDetections":
        """A detection by its index, or the detections of a slice or a mask.

        Raises:
            IndexError: if there is no such detection, or a mask is not one boolean for each detection.
        """
        if isinstance(which, slice):
            return self._select(np.arange(len(self))[which])
        mask = np.asarray(which)
        if not mask.ndim:
            return list(self)[index(mask.item())]
        if mask.shape != self.scores.shape or (mask.dtype != bool and len(mask)):
            raise IndexError(f"a mask must be {len(self)} booleans; got {mask.shape} of {mask.dtype}")
        return self._select(mask.astype(bool))

    def filter(self, score_threshold: float = 0.0, classes: str | Sequence[str] | None = None) -> "ImageDetections":
        """The detections with at least this score and of these classes.

        Args:
            score_threshold: in [0, 1].
            classes: a name or several; None: every class.

        Raises:
            ValueError: if the threshold is out of range, or a class name is unknown.
        """
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in [0, 1]; got {score_threshold}")
        mask = self.scores >= float(score_threshold)
        if classes is not None:
            wanted = [classes] if isinstance(classes, str) else list(classes)
            if unknown := sorted(set(wanted) - set(self.class_names)):
                raise ValueError(f"there is no class {unknown[0]!r}{did_you_mean(unknown[0], self.class_names)}")
            mask = mask & np.array([name in wanted for name in self.names], dtype=bool)
        return self._select(mask)

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[CocoResult]:
        """COCO results, as pycocotools reads them; ``bbox`` is xywh.

        Args:
            image_id: of the data set.
            category_ids: of the data set, for each class index; None: those of the detector's training data.

        Raises:
            ValueError: if there is not one id for each class.
        """
        ids = self.category_ids if category_ids is None else category_ids
        if len(ids) != len(self.class_names):
            raise ValueError(f"category_ids must be one for each of {len(self.class_names)} classes; got {len(ids)}")
        boxes = self.boxes.astype(np.float64)
        boxes_xywh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1).tolist()
        return [
            {"image_id": image_id, "category_id": int(ids[label]), "bbox": box_xywh, "score": score}
            for label, box_xywh, score in zip(self.labels.tolist(), boxes_xywh, self.scores.tolist(), strict=True)
        ]

    def to_pandas(self) -> "pd.DataFrame":
        """A table with the columns name, score, x1, y1, x2, y2 and label.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError("to_pandas needs pandas, which is not installed: pip install pandas") from error
        x1, y1, x2, y2 = self.boxes.T
        sides = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        names = np.array(self.names, dtype=object)  # the same type also without detections
        return pd.DataFrame({"name": names, "score": self.scores, **sides, "label": self.labels})

    def draw(self, image: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB: a copy of the image with boxes, names and scores.

        Args:
            image: (H, W, 3) uint8 RGB; None: the image is read again.

        Raises:
            ValueError: if there is no image to draw on, or its size differs.
            DataError: if the file cannot be read any more.
        """
        if image is None:
            if self._read is None:
                raise ValueError("the image of these detections is not stored; pass it: draw(image)")
            image = self._read()
        if image.shape[:2] != self.image_hw:
            raise ValueError(
                f"the image must have the size of the detections, {_size(self.image_hw)}; got {_size(image.shape)}"
            )
        return draw_detections(image, self.boxes, self.labels, self.scores, self.class_names)

    def __repr__(self) -> str:
        number = f"{len(self)} detection{'' if len(self) == 1 else 's'}" if len(self) else "nothing"
        where = f"{number} in {self.path.name if self.path else self.image_name} ({_size(self.image_hw)})"
        counts = Counter(self.names).most_common()
        shown = [f"{count} {name}" for name, count in counts[:CLASSES_SHOWN]]
        if len(counts) > CLASSES_SHOWN:
            shown.append(
                f"{sum(count for _, count in counts[CLASSES_SHOWN:])} of {len(counts) - CLASSES_SHOWN} other classes"
            )
        return f"<{where}: {', '.join(shown)}; best {self.scores[0]:.2f}>" if shown else f"<{where}>"

    def _repr_png_(self) -> bytes | None:
        """A picture for notebooks, not larger than a screen; None without the image."""
        if self._read is None:
            return None
        picture = self.draw()
        scale = min(1, NOTEBOOK_PX / max(self.image_hw))
        size_wh = tuple(max(1, round(side * scale)) for side in reversed(self.image_hw))
        picture = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
        _, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return content.tobytes()

    def _select(self, which: np.ndarray) -> "ImageDetections":
        values = (self.boxes[which], self.scores[which], self.labels[which])
        image = (self.image_hw, self.path, self._read, self.category_ids, self.image_name)
        return ImageDetections(*values, self.class_names, *image)


def _check(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    if scores.ndim != 1 or labels.shape != scores.shape or boxes.shape != (len(scores), 4):
        shapes = ", ".join(str(values.shape) for values in (boxes, scores, labels))
        raise ValueError(f"boxes, scores and labels must be (N, 4), (N,) and (N,); got {shapes}")
    for name, values in (("boxes", boxes), ("scores", scores)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite; got {values[~np.isfinite(values)][0]}")
    if len(nameless := labels[(labels < 0) | (labels >= num_classes)]):
        raise ValueError(f"labels must lie in [0, {num_classes}), one for each class name; got {nameless[0]}")


def _size(size_hw: Sequence[int]) -> str:
    return f"{size_hw[1]} x {size_hw[0]}"
