"""Writers of results: annotated pictures and videos, COCO JSON, CSV, YOLO-txt. Each frame is written at once.

The results are in a separate folder under the names of their sources, so that no source is overwritten.
"""

import contextlib
import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import cv2
import numpy as np

from detkit.checkpoint import storage_errors
from detkit.checkpoint.file import new_folder
from detkit.errors import DataError
from detkit.inference.input.video import Frame, VideoWriter
from detkit.inference.output.coco_ids import CocoIds
from detkit.inference.results import ImageDetections

RUNS = Path("runs/predict")
CSV_HEADER = ("file", "frame", "label", "name", "score", "x1", "y1", "x2", "y2")
JPEG_PX = 65_500  # longest side of a JPEG


class Output(Protocol):
    """A writer of results in one form."""

    @property
    def kept(self) -> str:
        """The path of the results, as text."""
        ...

    def add(self, frame: Frame, found: ImageDetections) -> None:
        """Write the detections of a frame; the frames of a video come one after the other."""
        ...

    def close(self) -> None:
        """Complete the files."""
        ...


class Pictures:
    """Annotated pictures as JPEG, and a video for each video, in the folders of their sources.

    Args:
        folder: to write to.
        names: of all sources.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.paths = {suffix: output_names(names, suffix) for suffix in (".jpg", ".mp4")}
        self._video: tuple[str, VideoWriter] | None = None

    @property
    def kept(self) -> str:
        return str(self.folder)

    def add(self, frame: Frame, found: ImageDetections) -> None:
        drawn = found.draw(frame.image)
        path = self.folder / self.paths[".jpg" if frame.number is None else ".mp4"][frame.name]
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if frame.number is None:
                path.write_bytes(_jpeg(drawn))
        if frame.number is not None:
            self._writer(path, frame).write(drawn, frame.time_s if frame.is_live else None)

    def close(self) -> None:
        if self._video:
            self._video[1].close()
        self._video = None

    def _writer(self, path: Path, frame: Frame) -> VideoWriter:
        """The writer of the frame's video; that of another video is closed."""
        if self._video is None or self._video[0] != frame.name:
            self.close()
            self._video = frame.name, VideoWriter(path, frame.fps, frame.image.shape[:2])
        return self._video[1]


class CocoResults:
    """``predictions.json`` for COCO's tools, and ``images.json``, the annotation file with its image ids.

    Args:
        folder: to write to.
        ids: of images and classes.
    """

    def __init__(self, folder: Path, ids: CocoIds) -> None:
        self.ids = ids
        self.results = _JsonList(folder / "predictions.json")
        own = {"categories": ids.categories, "annotations": []}
        self.images = None if ids.image_ids else _JsonList(folder / "images.json", own, "images")
        self._numbers = itertools.count(1)

    @property
    def kept(self) -> str:
        return f"{self.results.path}" + (f" with {self.images.path.name}" if self.images else "")

    def add(self, frame: Frame, found: ImageDetections) -> None:
        image_id = self.ids.image_ids[frame.name] if self.ids.image_ids else next(self._numbers)
        if self.images:  # before the results, because COCO's tools refuse results of unknown images
            height, width = frame.image.shape[:2]
            place = {} if frame.number is None else {"frame": frame.number, "time_s": frame.time_s}
            name = frame.name if frame.number is None else _of_frame(frame)
            self.images.add([{"id": image_id, "file_name": name, "height": height, "width": width, **place}])
        self.results.add(self.ids.known(found).to_coco(image_id, self.ids.category_ids))

    def close(self) -> None:
        self.results.close()
        if self.images:
            self.images.close()


class Csv:
    """``predictions.csv`` with a line for each detection; corners in pixels; no frame number for pictures."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.csv"
        _write(self.path, ",".join(CSV_HEADER) + "\n", "w")

    @property
    def kept(self) -> str:
        return str(self.path)

    def add(self, frame: Frame, found: ImageDetections) -> None:
        where = frame.name, "" if frame.number is None else frame.number
        columns = found.labels.tolist(), found.names, found.scores, found.boxes
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows([*where, label, name, score, *box] for label, name, score, box in zip(*columns, strict=True))
        _write(self.path, text.getvalue())

    def close(self) -> None:
        """Nothing to do: the file is complete after each frame."""


class YoloTxt:
    """A .txt file for each frame: class, centre x, y, width and height as fractions of the image, score.

    The file is empty without detections. ``classes.txt`` beside the folder has the class names.
    """

    def __init__(self, folder: Path, names: Sequence[str], class_names: Sequence[str]) -> None:
        self.folder = folder
        self.paths = output_names(names, ".txt")
        _write(folder.with_name("classes.txt"), "".join(f"{name}\n" for name in class_names), "w")

    @property
    def kept(self) -> str:
        return str(self.folder)

    def add(self, frame: Frame, found: ImageDetections) -> None:
        height, width = frame.image.shape[:2]
        lines = []
        columns = found.labels.tolist(), found.boxes.tolist(), found.scores.tolist()
        for label, (x1, y1, x2, y2), score in zip(*columns, strict=True):
            values = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]) + "\n")
        name = self.paths[frame.name] if frame.number is None else f"{_of_frame(frame)}.txt"
        path = self.folder / name
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, "".join(lines), "w")

    def close(self) -> None:
        """Nothing to do: each file is complete."""


@contextlib.contextmanager
def open_outputs(
    folder: Path, save: Iterable[str], names: Sequence[str], class_names: Sequence[str], ids: CocoIds
) -> Iterator[list[Output]]:
    """Open the requested outputs; they are closed at the end also after an error, with the results so far.

    Args:
        folder: an existing folder.
        save: some of pictures, coco, csv and yolo.
        names: of all sources.
        class_names: of the detector.
        ids: for COCO.

    Raises:
        StorageError: if a file cannot be written.
    """
    make = {
        "pictures": lambda: Pictures(folder / "pictures", names),
        "coco": lambda: CocoResults(folder, ids),
        "csv": lambda: Csv(folder),
        "yolo": lambda: YoloTxt(folder / "labels", names, class_names),
    }
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(make[name]())) for name in save]


def make_folder(out: str, runs: Path = RUNS) -> Path:
    """Make the folder ``out``, or without a name a new folder in ``runs``, named by the time.

    Raises:
        DataError: if ``out`` exists and is not empty.
        StorageError: if it cannot be made.
    """
    folder = Path(out).expanduser()
    with storage_errors(folder if out else runs):
        if not out:
            return new_folder(runs)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise DataError(f"out={out}: exists already; choose a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def output_names(names: Sequence[str], suffix: str) -> dict[str, str]:
    """Each name with another suffix; the suffix is appended (a.png.jpg) where names would become equal."""
    wanted = {name: PurePosixPath(name).with_suffix(suffix).as_posix() for name in names}
    shared = Counter(wanted.values())
    taken = {name for name, number in shared.items() if number == 1}
    for name, new in wanted.items():
        if shared[new] > 1:
            candidates = (f"{name}{'_' * number}{suffix}" for number in itertools.count())
            wanted[name] = next(candidate for candidate in candidates if candidate not in taken)
            taken.add(wanted[name])
    return wanted


def _of_frame(frame: Frame) -> str:
    """The name of a frame of a video, in a folder of the video's name."""
    return f"{frame.name}/{frame.number:06d}"


def _jpeg(image: np.ndarray) -> bytes:
    """An RGB image as a JPEG file, reduced if it is larger than JPEG allows."""
    scale = JPEG_PX / max(image.shape[:2])
    if scale < 1:
        size_wh = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
        image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


class _JsonList:
    """A list in a JSON file, to which items are appended.

    Args:
        path: of the file.
        document: an object with the list as its last entry; None: the file is the list.
        key: of the list in the object.
    """

    def __init__(self, path: Path, document: Mapping[str, object] | None = None, key: str = "") -> None:
        self.path = path
        self._end = "\n]\n" if document is None else "\n]}\n"
        self._before = "\n"
        _write(path, "[" if document is None else f"{json.dumps(document)[:-1]}, {json.dumps(key)}: [", "w")

    def add(self, items: Iterable[Mapping[str, object]]) -> None:
        text = ",\n".join(map(json.dumps, items))
        if text:
            _write(self.path, self._before + text)
            self._before = ",\n"

    def close(self) -> None:
        _write(self.path, self._end)


def _write(path: Path, text: str, mode: Literal["w", "a"] = "a") -> None:
    """Write text to a file, by default at its end."""
    with storage_errors(path), path.open(mode, encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)  # surrogateescape, because file names may be invalid UTF-8
