"""Runs a detector over the sources of ``source=``, batch by batch: read, predict, write."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detkit.data.findings import Finding, Place
from detkit.errors import DataError, RecipeError
from detkit.inference.device import find_device
from detkit.inference.input.sources import Source, find_sources
from detkit.inference.input.video import Camera, FewFramesError, Frame
from detkit.inference.output.coco_ids import CocoIds, ids_of_annotations, ids_of_detector
from detkit.inference.output.writers import Output, make_folder, open_outputs
from detkit.inference.predict.options import PredictOptions
from detkit.inference.predictor import Predictor, load
from detkit.inference.results import ImageDetections
from detkit.progress import progress_bar

Phase = Literal["read", "network", "write"]
Item = TypeVar("Item")


class Counts:
    """Counts and times of a run.

    Attributes:
        frames: number of pictures and frames of videos.
        detections: number for each label.
        images_with: number of frames with at least one detection of the label.
        unreadable: errors of files that could not be read to their end.
        incomplete: messages about videos that were trimmed or are incomplete.
        seconds: of each phase.
        kept: paths of the results.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.detections: Counter[int] = Counter()
        self.images_with: Counter[int] = Counter()
        self.unreadable: list[str] = []
        self.incomplete: list[str] = []
        self.seconds: dict[Phase, float] = dict.fromkeys(get_args(Phase), 0.0)
        self.kept: list[str] = []

    def add(self, found: ImageDetections) -> None:
        """Count a frame."""
        labels = found.labels.tolist()
        self.frames += 1
        self.detections.update(labels)
        self.images_with.update(set(labels))

    @contextlib.contextmanager
    def timing(self, phase: Phase) -> Iterator[None]:
        """Add the time of this context to the phase."""
        start_s = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start_s


class PredictRun(NamedTuple):
    """A checked run."""

    options: PredictOptions
    sources: list[Source]
    predictor: Predictor
    ids: CocoIds
    folder: Path | None  # None: no results are written

    def run(self, console: Console) -> None:
        """Predict on all sources with a progress bar, and print a summary, also after an interrupt.

        Raises:
            DataError: if a file cannot be read and ``unreadable`` is "stop", or no file can be read.
            StorageError: if a result cannot be written.
        """
        counts = Counts()
        try:
            self._predict_all(counts)
        finally:
            if counts.frames:
                self._show(counts, console)
        if not counts.frames:
            raise DataError(_unreadable_summary(counts.unreadable))

    def _predict_all(self, counts: Counts) -> None:
        names, class_names = [source.name for source in self.sources], self.predictor.class_names
        keep = self.options.save if self.folder else ()
        one_by_one = self.options.slices or any(isinstance(source, Camera) for source in self.sources)
        batches = _batched(self._frames(counts), 1 if one_by_one else self.options.batch_size)
        if not (batch := _next(batches, counts)):
            return  # before empty result files are made
        with (
            open_outputs(self.folder or Path(), keep, names, class_names, self.ids) as outputs,
            progress_bar() as progress,
        ):
            counts.kept = [output.kept for output in outputs]
            task = progress.add_task("", total=None if progress.disable else _total(self.sources))
            while batch:
                for frame, found in zip(batch, self._predict(batch, counts), strict=True):
                    _keep(frame, found, outputs, counts)
                progress.update(task, description=batch[-1].name, completed=counts.frames + len(counts.unreadable))
                batch = _next(batches, counts)

    def _frames(self, counts: Counts) -> Iterator[Frame]:
        for source in self.sources:
            try:
                yield from source.frames()
            except FewFramesError as notice:
                counts.incomplete.append(str(notice))
            except DataError as error:
                if self.options.unreadable == "stop":
                    raise
                counts.unreadable.append(str(error))

    def _predict(self, batch: list[Frame], counts: Counts) -> list[ImageDetections]:
        with counts.timing("network"):
            return self.predictor.predict(
                [frame.image for frame in batch],
                score_threshold=self.options.score_threshold,
                max_detections=self.options.max_detections,
                batch_size=self.options.batch_size,
                slices=self.options.slices,
                overlap=self.options.overlap,
                flip=self.options.flip,
            )

    def _show(self, counts: Counts, console: Console) -> None:
        table = Table("class", "detections", "images", box=None, padding=(0, 3, 0, 0))
        for label, name in enumerate(self.predictor.class_names):
            if counts.detections[label]:
                table.add_row(Text(name), f"{counts.detections[label]:,}", f"{counts.images_with[label]:,}")
        table.add_row("all", f"{counts.detections.total():,}", f"{counts.frames:,}")
        console.print(table)
        lines = [
            _speed(counts),
            *([f"not read: {_unreadable_summary(counts.unreadable)}"] if counts.unreadable else []),
        ]
        if counts.incomplete:
            lines.append(
                f"perhaps incomplete: {_summary('videos with fewer frames than their header says', counts.incomplete)}"
            )
        if self.ids.unknown and "coco" in self.options.save:
            names = ", ".join(self.ids.unknown)
            lines.append(f"not in predictions.json, because {self.options.annotations} has no such category: {names}")
        lines += [f"results: {kept}" for kept in counts.kept]
        lines = [line.encode(errors="backslashreplace").decode() for line in lines]  # file names may be invalid UTF-8
        console.print("", *lines, sep="\n", soft_wrap=True, highlight=False, markup=False)


def prepare(options: PredictOptions) -> PredictRun:
    """Find the sources, load the detector and make the folder for its results.

    Raises:
        DataError: if there is no source, or the annotation file does not fit them.
        RecipeError: if there is no such device, or the score threshold is below that of the detector.
        CheckpointError: if the detector cannot be loaded.
        StorageError: if the folder cannot be made.
    """
    sources = find_sources(options.source)
    device = find_device(options.device)
    predictor = load(options.checkpoint, options.trusted).to(device)
    _check_score(predictor, options)
    ids = ids_of_detector(predictor.class_names, predictor.category_ids)
    if options.annotations:
        ids = ids_of_annotations(Path(options.annotations).expanduser(), sources, predictor.class_names)
    return PredictRun(options, sources, predictor, ids, make_folder(options.out) if options.save else None)


def _check_score(predictor: Predictor, options: PredictOptions) -> None:
    try:
        predictor.require_score(options.score_threshold)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _keep(frame: Frame, found: ImageDetections, outputs: list[Output], counts: Counts) -> None:
    counts.add(found)
    with counts.timing("write"):
        for output in outputs:
            output.add(frame, found)


def _next(batches: Iterator[list[Frame]], counts: Counts) -> list[Frame]:
    with counts.timing("read"):
        return next(batches, [])


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Batches of items; the items before an error are yielded before it is raised."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except DataError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _total(sources: list[Source]) -> int | None:
    lengths = [source.length for source in sources]
    return None if None in lengths else sum(length for length in lengths if length)


def _speed(counts: Counts) -> str:
    parts = ", ".join(f"{name} {1000 * seconds / counts.frames:.1f}" for name, seconds in counts.seconds.items())
    return f"{counts.frames / sum(counts.seconds.values()):.1f} images/s; milliseconds of each: {parts}"


def _unreadable_summary(messages: list[str]) -> str:
    return _summary("files that cannot be read, or not to their end", messages)


def _summary(what: str, messages: list[str]) -> str:
    """A single message, or the number of messages and the first ten."""
    if len(messages) == 1:
        return messages[0]
    return str(Finding("unreadable", "error", what, len(messages), tuple(map(Place, messages))))
