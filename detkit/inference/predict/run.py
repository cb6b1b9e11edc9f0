"""A detector over all that ``source=`` names: read, look, write, a batch after the other."""

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
from detkit.inference.output.writers import Output, make_folder, opened
from detkit.inference.predict.options import PredictOptions
from detkit.inference.predictor import Predictor, load
from detkit.inference.results import ImageDetections
from detkit.progress import progress_bar

Phase = Literal["read", "network", "write"]
Item = TypeVar("Item")


class Counts:
    """What was seen and found, and how long it took.

    Attributes:
        frames: pictures and frames of videos.
        detections: of each label.
        holders: frames with at least one of the label.
        unread: what was wrong with the files that could not be read, or not to their end.
        short: videos that were trimmed, or are not whole.
        seconds: of each phase.
        kept: where the results lie.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.detections: Counter[int] = Counter()
        self.holders: Counter[int] = Counter()
        self.unread: list[str] = []
        self.short: list[str] = []
        self.seconds: dict[Phase, float] = dict.fromkeys(get_args(Phase), 0.0)
        self.kept: list[str] = []

    def add(self, found: ImageDetections) -> None:
        """Count a frame."""
        labels = found.labels.tolist()
        self.frames += 1
        self.detections.update(labels)
        self.holders.update(set(labels))

    @contextlib.contextmanager
    def timing(self, phase: Phase) -> Iterator[None]:
        """Add the time that passes in here."""
        start_s = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start_s


class Work(NamedTuple):
    """All that is needed for a run, found right."""

    options: PredictOptions
    sources: list[Source]
    predictor: Predictor
    ids: CocoIds
    folder: Path | None  # None: nothing is kept

    def run(self, console: Console) -> None:
        """Look at everything, with a bar while that goes on, and tell what was found, also if it is stopped.

        Raises:
            DataError: if a file cannot be read and ``unreadable`` is "stop", or none can be read.
            StorageError: if a result cannot be written.
        """
        counts = Counts()
        try:
            self._look(counts)
        finally:
            if counts.frames:
                self._show(counts, console)
        if not counts.frames:
            raise DataError(_unread(counts.unread))

    def _look(self, counts: Counts) -> None:
        names, class_names = [source.name for source in self.sources], self.predictor.class_names
        keep = self.options.save if self.folder else ()
        one_by_one = self.options.slices or any(isinstance(source, Camera) for source in self.sources)
        batches = _batched(self._frames(counts), 1 if one_by_one else self.options.batch_size)
        if not (batch := _next(batches, counts)):
            return  # before there are files without anything in them
        with opened(self.folder or Path(), keep, names, class_names, self.ids) as outputs, progress_bar() as progress:
            counts.kept = [output.kept for output in outputs]
            task = progress.add_task("", total=None if progress.disable else _total(self.sources))
            while batch:
                for frame, found in zip(batch, self._predict(batch, counts), strict=True):
                    _keep(frame, found, outputs, counts)
                progress.update(task, description=batch[-1].name, completed=counts.frames + len(counts.unread))
                batch = _next(batches, counts)

    def _frames(self, counts: Counts) -> Iterator[Frame]:
        for source in self.sources:
            try:
                yield from source.frames()
            except FewFramesError as notice:
                counts.short.append(str(notice))
            except DataError as error:
                if self.options.unreadable == "stop":
                    raise
                counts.unread.append(str(error))

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
                table.add_row(Text(name), f"{counts.detections[label]:,}", f"{counts.holders[label]:,}")
        table.add_row("all", f"{counts.detections.total():,}", f"{counts.frames:,}")
        console.print(table)
        lines = [_speed(counts), *([f"not read: {_unread(counts.unread)}"] if counts.unread else [])]
        if counts.short:
            lines.append(f"perhaps not whole: {_gathered('videos with fewer frames than they say', counts.short)}")
        if self.ids.unknown and "coco" in self.options.save:
            names = ", ".join(self.ids.unknown)
            lines.append(f"not in predictions.json, for {self.options.annotations} has no such category: {names}")
        lines += [f"kept: {kept}" for kept in counts.kept]
        lines = [line.encode(errors="backslashreplace").decode() for line in lines]  # names of files need not be text
        console.print("", *lines, sep="\n", soft_wrap=True, highlight=False, markup=False)


def prepare(options: PredictOptions) -> Work:
    """Find the sources, load the detector and make the folder for its results.

    Raises:
        DataError: if there is no source, or the annotation file does not fit them.
        RecipeError: if there is no such device, or the detector gives no such scores.
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
    return Work(options, sources, predictor, ids, make_folder(options.out) if options.save else None)


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
    """What was read before an error comes before it."""
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


def _unread(messages: list[str]) -> str:
    return _gathered("files that cannot be read, or not to their end", messages)


def _gathered(what: str, messages: list[str]) -> str:
    """How many, and the first ten; one alone."""
    if len(messages) == 1:
        return messages[0]
    return str(Finding("unreadable", "error", what, len(messages), tuple(map(Place, messages))))
