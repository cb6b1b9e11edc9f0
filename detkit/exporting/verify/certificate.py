"""The certificate of an export: its detections, AP and latency beside those of its detector."""

import datetime as dt
import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from detkit import __version__
from detkit.exporting.formats.writers import Metadata
from detkit.exporting.options import ExportOptions, Precision
from detkit.exporting.steps import TimedSteps
from detkit.exporting.verify.check_images import CheckImages
from detkit.exporting.verify.comparison import LEAST_SCORE, Comparison, Difference
from detkit.exporting.verify.latency import Latency, measure_latency
from detkit.inference.device import instruction_set, processor_name
from detkit.inference.predictor import Predictor
from detkit.ops.strides import largest_stride_of
from detkit.types import Detections, Target

# Limits for other batch and image sizes, for which no AP is measured, and for data without ground truth. Rounding in
# float32 costs about 1e-6 of IoU, float16 about 0.003 and int8 about 0.07 for small objects. An error of half a stride
# of 8 pixels costs 0.01 even for a box of 800 pixels.
MOST_MEAN_SCORE = 0.05
MOST_UNMATCHED = 0.1
MOST_IOU_LOSS: dict[Precision, float] = {"fp32": 0.001, "fp16": 0.02, "int8": 0.2}
OTHERS = {"batch_1": "image by image", "second_size": "in images of another size"}


class Certificate(NamedTuple):
    """The measurements of an export.

    Args:
        difference_points: difference of both AP in hundredths, for int8 the loss; without ground truth see
            ``points_without_truth``.
        failure: why the file fails the check; empty if it passes.
        noted: all measurements, for the file.
    """

    difference_points: float
    failure: str
    noted: Metadata

    @property
    def passed(self) -> bool:
        """Whether the file gives the results of its detector."""
        return not self.failure

    def show(self, console: Console) -> None:
        """Print the measurements of detector and export side by side."""
        noted, table = self.noted, Table("", "torch", "export", "", box=None, padding=(0, 3, 0, 0))
        if noted["ap"]:
            ours, theirs = noted["ap"]["torch"], noted["ap"]["export"]
            verb = "lost" if noted.get("precision") == "int8" else "apart"
            remark = f"{self.difference_points:.3f} points {verb}, at most {noted['tolerance']:g}"
            table.add_row("AP", f"{ours['AP']:.4f}", f"{theirs['AP']:.4f}", remark)
            table.add_row("AP50", f"{ours['AP50']:.4f}", f"{theirs['AP50']:.4f}")
        for size, of in noted["latency"].items():
            ours, theirs = of["torch"], of["export"]
            speedup = ours["median_ms"] / theirs["median_ms"]
            remark = f"{speedup:.2f} times as fast; 95 of 100 within {theirs['p95_ms']:.1f}"
            table.add_row(f"ms, batch of {size}", f"{ours['median_ms']:.1f}", f"{theirs['median_ms']:.1f}", remark)
        console.print(table)
        found = noted["detections"]
        boxes, scores = f"boxes {found['largest_box_px']:.2g} px", f"scores {found['largest_score']:.2g}"
        compared = f"{found['matched']:,} detections above {noted['least_score']:g}"
        runtimes = ", ".join(dict.fromkeys((noted["runtime"], f"torch {noted['torch']}")))
        runtimes = f"{runtimes}, {noted['threads']} thread{'s'[: noted['threads'] - 1]}"
        lines = [
            f"{compared}: largest difference of {boxes}, of {scores}; {found['unmatched']} unmatched",
            f"checked on {noted['checked_on']}; {runtimes}; {noted['instruction_set']}",
        ]
        if not noted["ap"]:
            without = "annotations in these images" if noted["split_fingerprint"] else "a data set"
            lines.append(f"a weaker check: without {without} there is no AP; data.root=FOLDER measures it")
        console.print("", *lines, sep="\n", soft_wrap=True, highlight=False, markup=False)


class CheckRun(NamedTuple):
    """The detections of one predictor on the images of the check.

    Args:
        found: detections of each image, without those that are not finite.
        targets: ground truth of each image; empty for drawn images.
        sample: (B, 3, H, W) in [0, 1], at least two images: the batch with the most detections.
        not_finite: number of detections with a box side or score that is not finite.
    """

    found: list[Detections]
    targets: list[Target]
    sample: Tensor
    not_finite: int


class CheckResult(NamedTuple):
    """The comparison of one export with the detector.

    Args:
        ap: the twelve COCO numbers of the export; None without ground truth.
        difference: of the detections.
        points: difference of both AP in hundredths; without ground truth see ``points_without_truth``.
        lost_points: the same, but 0 if the export has the higher AP.
        not_finite: number of detections of the export that are not finite.
    """

    ap: dict[str, float] | None
    difference: Difference
    points: float
    lost_points: float
    not_finite: int


class ExportCheck:
    """Compares exports with the detector that they were made from.

    Args:
        reference: the detector, not folded, in float32, on the CPU.
        images: of the check.
        steps: for the progress bar.
    """

    def __init__(self, reference: Predictor, images: CheckImages, steps: TimedSteps) -> None:
        self.reference = reference
        self.images = images
        self.steps = steps

    @functools.cached_property
    def reference_run(self) -> CheckRun:
        """The detections of the detector."""
        return self.run("torch", self.reference)

    @functools.cached_property
    def ap(self) -> dict[str, float] | None:
        """The COCO numbers of the detector; None without ground truth."""
        return self._numbers(self.reference_run)

    def run(self, name: str, predictor: Predictor) -> CheckRun:
        """Detect in all images."""
        found: list[Detections] = []
        targets: list[Target] = []
        samples: list[tuple[tuple[bool, int, int], Tensor]] = []  # at most one: the best batch so far and its rank
        with self.steps.step(f"check, {name}", self.images.num_batches) as done:
            for images, of_images in self.images.batches():
                found += detect_batch(predictor, images)
                targets += of_images
                objects = sum(int((of.scores >= LEAST_SCORE).sum()) for of in found[-len(images) :])
                samples.append(((objects > 0, len(images), objects), images))
                samples = [max(samples, key=lambda pair: pair[0])]
                done()
        finite = [_finite(of) for of in found]
        not_finite = sum(len(of.scores) for of in found) - sum(len(of.scores) for of in finite)
        [(_, sample)] = samples
        return CheckRun(
            finite, targets, sample if len(sample) > 1 else torch.cat((sample, sample.flip(-1))), not_finite
        )

    def measure(self, name: str, predictor: Predictor) -> CheckResult:
        """Compare one export with the detector."""
        before = self.ap  # runs the detector first
        run = self.run(name, predictor)
        ap, difference = self._numbers(run), compare_detections(self.reference_run.found, run.found)
        if before is None or ap is None:
            points = points_without_truth(difference)
            return CheckResult(None, difference, points, points, run.not_finite)
        lost = 100 * (before["AP"] - ap["AP"])
        return CheckResult(ap, difference, abs(lost), max(0.0, lost), run.not_finite)

    def _numbers(self, run: CheckRun) -> dict[str, float] | None:
        numbers = self.images.measure(run.found, run.targets) if self.images.measure else None
        return numbers if numbers and numbers["AP"] >= 0 else None  # AP is -1 if no image is annotated

    def certify(self, exported: Predictor, options: ExportOptions, about: Mapping[str, object]) -> Certificate:
        """Measure detections, AP, other batch and image sizes, and latency.

        Args:
            exported: the written file, in its own runtime.
            options: of the export.
            about: further entries of the certificate.
        """
        measured = self.measure("export", exported)
        points = measured.lost_points if options.precision == "int8" else measured.points
        images = self.reference_run.sample
        alone = [detect_batch(exported, image)[0] for image in images.split(1)]
        others = {"batch_1": compare_detections(detect_batch(exported, images), alone)}
        if options.dynamic == "size":
            others["second_size"] = self._of_other_size(exported)
        failure = self._failure(measured, points, options)
        failures = (_gross_difference(name, others[name], options.precision) for name in others)
        failure = failure or next(filter(None, failures), "")
        with self.steps.step("latency"):
            sides = {"torch": self.reference, "export": exported}
            sizes = (1, len(images))
            latency: dict[int, dict[str, Latency]] = {size: measure_latency(sides, images[:size]) for size in sizes}
        noted = {
            "passed": not failure,
            "difference_points": points,
            "tolerance": options.ap_tolerance,
            "checked_on": self.images.name,
            "images": len(self.reference_run.found),
            "split_fingerprint": self.images.fingerprint,
            "ap": measured.ap and {"torch": self.ap, "export": measured.ap},
            "least_score": LEAST_SCORE,
            "detections": measured.difference._asdict(),
            "not_finite": measured.not_finite,
            **{name: other._asdict() for name, other in others.items()},
            "latency": {
                str(size): {side: of._asdict() for side, of in sides.items()} for size, sides in latency.items()
            },
            "threads": torch.get_num_threads(),
            "processor": processor_name(),
            "instruction_set": instruction_set(),
            "torch": torch.__version__,
            "detkit_version": __version__,
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            **about,
        }
        return Certificate(points, failure, noted)

    def _failure(self, measured: CheckResult, points: float, options: ExportOptions) -> str:
        difference, differs = measured.difference, f"differs by {points:.2f} points from"
        if measured.not_finite:
            return f"{measured.not_finite:,} of its boxes or scores are not finite"
        if not difference.matched:
            return (
                f"it shares no detection with its detector in {self.images.name}; data.root=FOLDER names other images"
            )
        if points > options.ap_tolerance:
            by_detections = f"its output {differs} its detector"
            by_ap = measured.ap and self.ap and f"its AP {measured.ap['AP']:.4f} {differs} {self.ap['AP']:.4f}"
            return f"{by_ap or by_detections}, more than tolerance={options.ap_tolerance:g}"
        return "" if measured.ap else _box_difference(difference, options.precision)

    def _of_other_size(self, exported: Predictor) -> Difference:
        stride = largest_stride_of(exported.detector)
        height, width = self.reference.image_hw
        size_hw = (height + stride, width + 2 * stride)
        images = F.interpolate(self.reference_run.sample, size_hw, mode="bilinear", align_corners=False)
        images = (images * 255).round() / 255  # grey levels that uint8 can hold
        return compare_detections(detect_batch(self.reference, images), detect_batch(exported, images))


def detect_batch(predictor: Predictor, images: Tensor) -> list[Detections]:
    """Detections of each of the (B, 3, H, W) images in [0, 1], in pixels of the network input."""
    with torch.inference_mode():
        return predictor.decode(predictor.detector(images))


def compare_detections(ours: list[Detections], theirs: list[Detections]) -> Difference:
    """The differences of two predictors on the same images; detections that are not finite are left out."""
    comparison = Comparison()
    for of_ours, of_theirs in zip(ours, theirs, strict=True):
        comparison.add(_finite(of_ours), _finite(of_theirs))
    return comparison.difference()


def points_without_truth(difference: Difference) -> float:
    """Hundredths of the mean difference of scores, or of the share of unmatched detections if that is larger."""
    return 100 * max(difference.mean_score, difference.unmatched_share)


def _finite(found: Detections) -> Detections:
    kept = found.boxes.isfinite().all(-1) & found.scores.isfinite()
    return Detections(*(values[kept] for values in found))


def _gross_difference(name: str, difference: Difference, precision: Precision) -> str:
    """Which difference is beyond its limit, as text for a message; empty if none is."""
    fault = _box_difference(difference, precision)
    if difference.mean_score > MOST_MEAN_SCORE:
        fault = f"its scores differ by {difference.mean_score:.2g} on average"
    if difference.unmatched_share > MOST_UNMATCHED:
        total = difference.matched + difference.unmatched
        fault = f"it finds other objects: {difference.unmatched} of {total} have no partner"
    if not difference.matched:
        fault = "it shares no detection with its detector"
    return f"{OTHERS[name]} {fault}" if fault else ""


def _box_difference(difference: Difference, precision: Precision) -> str:
    if difference.mean_iou_loss <= MOST_IOU_LOSS[precision]:
        return ""
    return f"its boxes differ by {difference.mean_box_px:.2g} pixels on average"
