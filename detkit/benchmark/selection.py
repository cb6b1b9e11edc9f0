"""What is going to be measured, found right before anything is."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from detkit import recipe
from detkit.benchmark.engines import EXPORTED, RUNTIMES, Runtime, missing, why_not
from detkit.benchmark.machine import usable_cores
from detkit.benchmark.options import BenchmarkOptions, sizes_of
from detkit.checkpoint import DETECTOR_FILE
from detkit.data.demo.scene import draw_scene
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.inference import Predictor, StoredDetector, load, read_stored
from detkit.inference.device import find_device
from detkit.inference.exported_detector import ExportedModel
from detkit.inference.output.writers import make_folder
from detkit.inference.runtimes import is_exported
from detkit.inference.runtimes.forms import INSTALL, Outputs

RUNS = Path("runs/benchmark")
NUM_FILES = 16  # that time is measured with, at least: how long one takes to read and to suppress boxes of is chance
INSIDE: dict[Outputs, str] = {
    "raw": "",
    "decoded": "decoding is in the network",
    "detections": "decoding and the choice of boxes are in the network, from score {:g}",
}
DRAWN_WH = (1280, 960)  # pictures where no data is given
Data = Sequence[tuple[str, Any]]


class Setting(NamedTuple):
    """Rows of one setting are compared."""

    threads: int
    image_hw: tuple[int, int]
    batch_size: int

    def __str__(self) -> str:
        height, width = self.image_hw
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{width} x {height} pixels, batch {self.batch_size}, {threads}"


class Candidate(NamedTuple):
    """A way to run the detector."""

    name: str  # of the runtime, or the file that was given
    title: str  # no other has it
    runtime: Runtime
    path: Path | None  # of the file; None: it is made from the detector
    reason: str  # why it cannot be measured here; empty: it can
    inside: str = ""  # what of the work after the network is part of it


class Given(NamedTuple):
    """An exported detector that was named."""

    text: str  # as it was typed
    predictor: Predictor


class Plan(NamedTuple):
    """All that is needed for the measurements."""

    options: BenchmarkOptions
    stored: StoredDetector
    data: Data  # keys of the recipe's data; none: no AP
    device: torch.device
    settings: list[Setting]
    candidates: list[Candidate]
    left_out: list[str]  # what is not installed, in words
    trained_hw: tuple[int, int]
    files: list[Path]  # images that time is measured with, at least one
    folder: Path  # for the results

    @property
    def trusted(self) -> list[str]:
        """Packages."""
        return list(self.options.trusted)

    @property
    def log(self) -> Path:
        """What the workers write themselves, with the tracebacks of those that fail."""
        return self.folder / "log.txt"

    def wants_accuracy(self, setting: Setting) -> bool:
        """Whether AP is measured in this setting: in one of each size."""
        same_size = next(other for other in self.settings if other.image_hw == setting.image_hw)
        return bool(self.data) and setting == same_size and setting.image_hw in self.sizes_of_accuracy

    @property
    def sizes_of_accuracy(self) -> list[tuple[int, int]]:
        """That of the training alone, if nothing else is asked for and it is among those that are measured."""
        sizes = list(dict.fromkeys(setting.image_hw for setting in self.settings))
        only_trained = self.options.ap_sizes == "trained" and self.trained_hw in sizes
        return [self.trained_hw] if only_trained else sizes


def make_plan(options: BenchmarkOptions, data: Data, scratch: Path) -> Plan:
    """Look at everything that was asked for.

    Args:
        options: of the command line.
        data: (key, value) of the recipe's data.
        scratch: a folder for pictures, where no data is given.

    Raises:
        CheckpointError: if a detector cannot be loaded.
        RecipeError: if an option does not fit the detector or this machine.
        DataError: if the data cannot be used.
        StorageError: if the folder of the results cannot be made.
    """
    device = find_device(options.device)
    threads = _threads(options.threads)
    predictor, stored = load(options.checkpoint, options.trusted), read_stored(options.checkpoint)
    stride = getattr(predictor.detector, "largest_stride", 1)
    sizes = sizes_of(options.image_hw, predictor.image_hw, stride)
    _check_threshold(predictor, options)
    exported = _exported(options, path := _file_of(stored), predictor)
    found = _candidates(options, path, exported, device)
    left_out = [_left_out(one) for one in found if missing(one.runtime)]
    candidates = [one for one in found if not missing(one.runtime)]
    if not candidates:
        raise RecipeError(f"runtimes={','.join(options.runtimes)}: none is installed: {INSTALL}")
    settings = [Setting(*key) for key in ((t, hw, b) for t in threads for hw in sizes for b in options.batch_size)]
    known = {path: predictor, **{file: given.predictor for file, given in exported.items()}}
    files = _files_of_data(stored, options, data, known) if data else _draw(scratch, _number(options))
    folder = make_folder(options.out, RUNS)
    return Plan(options, stored, data, device, settings, candidates, left_out, predictor.image_hw, files, folder)


def _threads(given: Sequence[int]) -> list[int]:
    usable = usable_cores()
    if too_many := [number for number in given if number > usable]:
        raise RecipeError(f"threads={too_many[0]}: this process may use {usable} cores; more threads would wait")
    return list(given) or [min(torch.get_num_threads(), usable)]


def _check_threshold(predictor: Predictor, options: BenchmarkOptions) -> None:
    try:
        predictor.predict([], score_threshold=options.score_threshold)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _file_of(stored: StoredDetector) -> Path:
    if stored.path is None:
        raise CheckpointError("a detector without a file cannot be measured")
    path = _whole(stored.path)
    return path / DETECTOR_FILE if path.is_dir() else path


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100  (resolve() would leave a link's own folder)


def _exported(options: BenchmarkOptions, path: Path, predictor: Predictor) -> dict[Path, Given]:
    """The exported detectors that were named, each once."""
    files = {path: Given(str(path), predictor)} if is_exported(path) else {}
    for text in options.also:
        file = _whole(Path(text))
        if not is_exported(file):
            raise RecipeError(f"also={text}: must be an exported detector: .onnx, .xml, .pt2 or .torchscript")
        if file not in files:
            files[file] = Given(text, load(file, options.trusted))
    return files


def _candidates(
    options: BenchmarkOptions, path: Path, exported: Mapping[Path, Given], device: torch.device
) -> list[Candidate]:
    """The runtimes of a detector file, or an exported one as it is; and others beside it."""
    found = []
    for name in () if is_exported(path) else options.runtimes:
        runtime = RUNTIMES[name]
        place = Path(f"model{runtime.suffix}") if runtime.suffix else path
        reason = "" if missing(runtime) else why_not(runtime, place, device)
        one = Candidate(name, runtime.title, runtime, path, reason)
        found.append(one._replace(path=None, inside=INSIDE["decoded"]) if runtime.suffix else one)
    for file, given in exported.items():
        title = _title(file, exported)
        detector, lowest = given.predictor.detector, getattr(given.predictor.decode, "score_threshold", 0.0)
        inside = INSIDE[detector.signature.outputs].format(lowest) if isinstance(detector, ExportedModel) else ""
        found.append(Candidate(given.text, title, EXPORTED, file, why_not(EXPORTED, file, device), inside))
    return found


def _title(file: Path, files: Collection[Path]) -> str:
    """The shortest end of the path that no other file has."""
    ends = (file.parts[-number:] for number in range(1, len(file.parts)))
    alone = (end for end in ends if sum(other.parts[-len(end) :] == end for other in files) == 1)
    return "/".join(next(alone))


def _left_out(candidate: Candidate) -> str:
    return f"left out: {candidate.title}: {missing(candidate.runtime)} is not installed: {INSTALL}"


def _files_of_data(
    stored: StoredDetector, options: BenchmarkOptions, data: Data, detectors: Mapping[Path, Predictor]
) -> list[Path]:
    """Some images of the split, evenly over all of them; all detectors know its classes."""
    from detkit.training.evaluate import DecodeForClasses  # lightning

    built = recipe.build(stored.plan(list(data), options.split, options.trusted)).data
    for file, predictor in detectors.items():
        try:
            DecodeForClasses(predictor.decode, predictor.class_names, built.class_names)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
    index = built.index("val")
    number = min(len(index), _number(options))
    return [
        Path(index.path(row)).absolute() for row in np.linspace(0, len(index) - 1, number).round().astype(int).tolist()
    ]


def _number(options: BenchmarkOptions) -> int:
    """Of images that time is measured with."""
    return max(NUM_FILES, *options.batch_size)


def _draw(folder: Path, number: int) -> list[Path]:
    """Drawings of metal parts as JPEG, the same ones always."""
    rng = np.random.default_rng(0)
    files = [folder / f"{row}.jpg" for row in range(number)]
    for file in files:
        image = cv2.resize(draw_scene(rng).image, DRAWN_WH, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(file), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return files
