"""What a benchmark will measure, checked before the first measurement."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from detkit import recipe
from detkit.benchmark.engines import EXPORTED, RUNTIMES, Runtime, missing_package, why_unavailable
from detkit.benchmark.machine import usable_cores
from detkit.benchmark.options import BenchmarkOptions, sizes_of
from detkit.checkpoint import DETECTOR_FILE
from detkit.data.demo.scene import draw_scene
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.exporting.verify.check_images import DataOverrides
from detkit.inference import Predictor, StoredDetector, load, read_stored
from detkit.inference.device import find_device
from detkit.inference.exported_detector import ExportedDecode, ExportedModel
from detkit.inference.output.writers import make_folder
from detkit.inference.predictor import predictor_of
from detkit.inference.runtimes import is_exported
from detkit.inference.runtimes.forms import INSTALL, Outputs
from detkit.inference.stored_detector import on_split
from detkit.ops.strides import largest_stride_of

RUNS = Path("runs/benchmark")
NUM_FILES = 16  # least number of timed images, because reading and suppression take different times for each
INSIDE: dict[Outputs, str] = {
    "raw": "",
    "decoded": "decoding is in the network",
    "detections": "decoding and the choice of boxes are in the network, from score {:g}",
}
DRAWN_WH = (1280, 960)  # of drawn images, used without data


class Setting(NamedTuple):
    """Threads, image size and batch size of one table; its rows are compared with each other."""

    threads: int
    image_hw: tuple[int, int]
    batch_size: int

    def __str__(self) -> str:
        height, width = self.image_hw
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{width} x {height} pixels, batch {self.batch_size}, {threads}"


class Candidate(NamedTuple):
    """A detector file and a runtime, one row of each table."""

    name: str  # of the runtime, or the exported file as the user named it
    title: str  # unique
    runtime: Runtime
    path: Path | None  # None means a file that is converted from the detector
    reason: str  # why it cannot be measured; empty if it can
    inside: str = ""  # which work after the network is part of the file


class NamedExport(NamedTuple):
    """An exported detector that the user named."""

    text: str  # as it was typed
    predictor: Predictor


class BenchmarkPlan(NamedTuple):
    """The measurements of a benchmark."""

    options: BenchmarkOptions
    stored: StoredDetector
    data_overrides: DataOverrides  # of the recipe's data; empty means that no AP is measured
    device: torch.device
    settings: list[Setting]
    candidates: list[Candidate]
    left_out: list[str]  # messages about runtimes that are not installed
    trained_hw: tuple[int, int]
    files: list[Path]  # timed images, at least one
    folder: Path  # for the results

    @property
    def trusted(self) -> list[str]:
        """Packages whose classes the detector may use."""
        return list(self.options.trusted)

    @property
    def log(self) -> Path:
        """The file with the output and the tracebacks of the worker processes."""
        return self.folder / "log.txt"

    def wants_accuracy(self, setting: Setting) -> bool:
        """Whether AP is measured in this setting: once for each size."""
        same_size = next(other for other in self.settings if other.image_hw == setting.image_hw)
        return bool(self.data_overrides) and setting == same_size and setting.image_hw in self.sizes_of_accuracy

    @property
    def sizes_of_accuracy(self) -> list[tuple[int, int]]:
        """The size of the training if it is measured and ``ap_sizes`` is "trained", else all sizes."""
        sizes = list(dict.fromkeys(setting.image_hw for setting in self.settings))
        only_trained = self.options.ap_sizes == "trained" and self.trained_hw in sizes
        return [self.trained_hw] if only_trained else sizes


def make_plan(options: BenchmarkOptions, data_overrides: DataOverrides, scratch: Path) -> BenchmarkPlan:
    """Load all detectors, and check the options against them and this machine.

    Args:
        options: of the command line.
        data_overrides: of the recipe's data.
        scratch: a temporary folder for drawn images.

    Raises:
        CheckpointError: if a detector cannot be loaded.
        RecipeError: if an option does not fit the detector or this machine.
        DataError: if the data cannot be used.
        StorageError: if the folder of the results cannot be made.
    """
    device = find_device(options.device)
    threads = _threads(options.threads)
    stored = read_stored(options.checkpoint)
    predictor = predictor_of(stored, options.trusted)
    stride = largest_stride_of(predictor.detector)
    sizes = sizes_of(options.image_hw, predictor.image_hw, stride)
    _check_threshold(predictor, options)
    exported = _exported(options, path := _file_of(stored), predictor)
    found = _candidates(options, path, exported, device)
    left_out = [_left_out(one) for one in found if missing_package(one.runtime)]
    candidates = [one for one in found if not missing_package(one.runtime)]
    if not candidates:
        raise RecipeError(f"runtimes={','.join(options.runtimes)}: none is installed: {INSTALL}")
    settings = [Setting(*key) for key in ((t, hw, b) for t in threads for hw in sizes for b in options.batch_size)]
    known = {path: predictor, **{file: export.predictor for file, export in exported.items()}}
    if data_overrides:
        files = _files_of_data(stored, options, data_overrides, known)
    else:
        files = _draw(scratch, _num_files(options))
    folder = make_folder(options.out, RUNS)
    trained_hw = predictor.image_hw
    return BenchmarkPlan(
        options, stored, data_overrides, device, settings, candidates, left_out, trained_hw, files, folder
    )


def _threads(numbers: Sequence[int]) -> list[int]:
    usable = usable_cores()
    if too_many := [number for number in numbers if number > usable]:
        raise RecipeError(f"threads={too_many[0]}: must be at most {usable}, the cores that this process may use")
    return list(numbers) or [min(torch.get_num_threads(), usable)]


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


def _exported(options: BenchmarkOptions, path: Path, predictor: Predictor) -> dict[Path, NamedExport]:
    """The exported detectors that the user named, each once."""
    files = {path: NamedExport(str(path), predictor)} if is_exported(path) else {}
    for text in options.also:
        file = _whole(Path(text))
        if not is_exported(file):
            raise RecipeError(f"also={text}: must be an exported detector: .onnx, .xml, .pt2 or .torchscript")
        if file not in files:
            files[file] = NamedExport(text, load(file, options.trusted))
    return files


def _candidates(
    options: BenchmarkOptions, path: Path, exported: Mapping[Path, NamedExport], device: torch.device
) -> list[Candidate]:
    """The runtimes of the detector file, and each exported file in its own runtime."""
    found = []
    for name in () if is_exported(path) else options.runtimes:
        runtime = RUNTIMES[name]
        opened = Path(f"model{runtime.suffix}") if runtime.suffix else path
        reason = "" if missing_package(runtime) else why_unavailable(runtime, opened, device)
        one = Candidate(name, runtime.title, runtime, path, reason)
        found.append(one._replace(path=None, inside=INSIDE["decoded"]) if runtime.suffix else one)
    for file, export in exported.items():
        title = _title(file, exported)
        detector, decode = export.predictor.detector, export.predictor.decode
        inside = ""
        if isinstance(detector, ExportedModel) and isinstance(decode, ExportedDecode):
            inside = INSIDE[detector.signature.outputs].format(decode.score_threshold)
        found.append(Candidate(export.text, title, EXPORTED, file, why_unavailable(EXPORTED, file, device), inside))
    return found


def _title(file: Path, files: Collection[Path]) -> str:
    """The shortest end of the path that no other file shares."""
    ends = (file.parts[-number:] for number in range(1, len(file.parts)))
    alone = (end for end in ends if sum(other.parts[-len(end) :] == end for other in files) == 1)
    return "/".join(next(alone))


def _left_out(candidate: Candidate) -> str:
    return f"left out: {candidate.title}: {missing_package(candidate.runtime)} is not installed: {INSTALL}"


def _files_of_data(
    stored: StoredDetector,
    options: BenchmarkOptions,
    data_overrides: DataOverrides,
    detectors: Mapping[Path, Predictor],
) -> list[Path]:
    """Evenly spaced images of the split, after a check that all detectors know its classes."""
    from detkit.training.evaluate import DecodeForClasses  # imports Lightning

    plan = on_split(stored.plan(list(data_overrides), options.trusted), options.split)
    built = recipe.build(plan, model=None).data
    for file, predictor in detectors.items():
        try:
            DecodeForClasses(predictor.decode, predictor.class_names, built.class_names)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
    index = built.index("val")
    number = min(len(index), _num_files(options))
    return [
        Path(index.path(row)).absolute() for row in np.linspace(0, len(index) - 1, number).round().astype(int).tolist()
    ]


def _num_files(options: BenchmarkOptions) -> int:
    """Number of timed images."""
    return max(NUM_FILES, *options.batch_size)


def _draw(folder: Path, number: int) -> list[Path]:
    """Write fixed drawings of metal parts as JPEG files."""
    rng = np.random.default_rng(0)
    files = [folder / f"{row}.jpg" for row in range(number)]
    for file in files:
        image = cv2.resize(draw_scene(rng).image, DRAWN_WH, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(file), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return files
