"""The proof of an export: what it finds, beside what its detector finds, on the same images."""

import datetime as dt
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from detkit import __version__
from detkit.export.options import Options, Precision
from detkit.export.steps import Steps
from detkit.export.verify.check_images import CheckImages, Found
from detkit.export.verify.comparison import LEAST_SCORE, Comparison, Difference
from detkit.export.verify.latency import Latency, measure_latency
from detkit.inference.device import instruction_set, processor_name
from detkit.inference.predictor import Predictor
from detkit.types import Detections, Target

# A batch of another size, or images of another size, may not be grossly different; their AP is not measured. Boxes of
# float32 differ by rounding, some 1e-6 of IoU, while half a stride of 8 pixels costs 0.01 even of a box of 800 pixels.
# Float16 costs small objects some 0.003, int8 some 0.07; where there is ground truth, AP says what that is worth.
MOST_MEAN_SCORE = 0.05
MOST_UNMATCHED = 0.1
MOST_IOU_LOSS: dict[Precision, float] = {"fp32": 0.001, "fp16": 0.02, "int8": 0.2}
OTHERS = {"batch_1": "image by image", "second_size": "in images of another size"}


class Certificate(NamedTuple):
    """What was measured, as plain values."""

    difference_points: (
        float  # of AP, in hundredths; of int8 the loss; without ground truth see ``points_without_truth``
    )
    failure: str  # what is wrong with the file, for a message; empty: nothing
    noted: dict[str, Any]  # all of it, for the file

    @property
    def passed(self) -> bool:
        """Whether the file is the same detector."""
        return not self.failure

    def show(self, console: Console) -> None:
        """Both beside each other."""
        noted, table = self.noted, Table("", "torch", "export", "", box=None, padding=(0, 3, 0, 0))
        if noted["ap"]:
            ours, theirs = noted["ap"]["torch"], noted["ap"]["export"]
            what = "lost" if noted.get("precision") == "int8" else "apart"
            say = f"{self.difference_points:.3f} points {what}, at most {noted['tolerance']:g}"
            table.add_row("AP", f"{ours['AP']:.4f}", f"{theirs['AP']:.4f}", say)
            table.add_row("AP50", f"{ours['AP50']:.4f}", f"{theirs['AP50']:.4f}")
        for size, of in noted["latency"].items():
            ours, theirs = of["torch"], of["export"]
            say = (
                f"{ours['median_ms'] / theirs['median_ms']:.2f} times as fast; 95 of 100 within {theirs['p95_ms']:.1f}"
            )
            table.add_row(f"ms, batch of {size}", f"{ours['median_ms']:.1f}", f"{theirs['median_ms']:.1f}", say)
        console.print(table)
        found = noted["detections"]
        boxes, scores = f"boxes {found['largest_box_px']:.2g} px", f"scores {found['largest_score']:.2g}"
        what = f"{found['matched']:,} detections above {noted['least_score']:g}"
        runtimes = ", ".join(dict.fromkeys((noted["runtime"], f"torch {noted['torch']}")))
        runtimes = f"{runtimes}, {noted['threads']} thread{'s'[: noted['threads'] - 1]}"
        lines = [
            f"{what}: largest difference of {boxes}, of {scores}; {found['unmatched']} unmatched",
            f"checked on {noted['checked_on']}; {runtimes}; {noted['instruction_set']}",
        ]
        if not noted["ap"]:
            without = "annotations in these images" if noted["split_fingerprint"] else "a data set"
            lines.append(f"a weaker check: without {without} there is no AP; data.root=FOLDER measures it")
        console.print("", *lines, sep="\n", soft_wrap=True, highlight=False, markup=False)


class Seen(NamedTuple):
    """What one of them finds."""

    found: Found  # without what is no finite number
    targets: list[Target]
    sample: Tensor  # (B, 3, H, W) a whole batch with as many objects as any, and at least two images
    not_finite: int  # boxes with a side or a score that is none


class Measured(NamedTuple):
    """One export beside the detector."""

    ap: dict[str, float] | None  # the twelve numbers; None without ground truth
    difference: Difference
    points: float  # that the AP are apart, in hundredths; without ground truth see ``points_without_truth``
    lost_points: float  # the same, but 0 where the export has the better AP, as int8 may have by chance
    not_finite: int  # of what the export finds


class Check:
    """A detector as it was trained, to hold its exports against.

    Args:
        reference: not folded, in float32, on the CPU.
        images: to look at.
        steps: for the bar.
    """

    def __init__(self, reference: Predictor, images: CheckImages, steps: Steps) -> None:
        self.reference = reference
        self.images = images
        self.steps = steps

    @functools.cached_property
    def seen(self) -> Seen:
        """What the detector finds."""
        return self.look("torch", self.reference)

    @functools.cached_property
    def ap(self) -> dict[str, float] | None:
        """The detector's numbers; None without ground truth."""
        return self._numbers(self.seen)

    def look(self, name: str, predictor: Predictor) -> Seen:
        """Everything that one of them finds."""
        found: Found = []
        targets: list[Target] = []
        samples: list[tuple[tuple[bool, int, int], Tensor]] = []  # the best so far, and how good it is
        with self.steps.step(f"check, {name}", self.images.num_batches) as done:
            for images, of_images in self.images.batches():
                found += detect(predictor, images)
                targets += of_images
                objects = sum(int((of.scores >= LEAST_SCORE).sum()) for of in found[-len(images) :])
                samples.append(((objects > 0, len(images), objects), images))
                samples = [max(samples, key=lambda pair: pair[0])]
                done()
        finite = [_finite(of) for of in found]
        not_finite = sum(len(of.scores) for of in found) - sum(len(of.scores) for of in finite)
        [(_, sample)] = samples
        return Seen(finite, targets, sample if len(sample) > 1 else torch.cat((sample, sample.flip(-1))), not_finite)

    def measure(self, name: str, predictor: Predictor) -> Measured:
        """One export beside the detector."""
        before = self.ap  # the detector's turn comes first
        seen = self.look(name, predictor)
        ap, difference = self._numbers(seen), compared(self.seen.found, seen.found)
        if before is None or ap is None:
            points = points_without_truth(difference)
            return Measured(None, difference, points, points, seen.not_finite)
        lost = 100 * (before["AP"] - ap["AP"])
        return Measured(ap, difference, abs(lost), max(0.0, lost), seen.not_finite)

    def _numbers(self, seen: Seen) -> dict[str, float] | None:
        numbers = self.images.measure(seen.found, seen.targets) if self.images.measure else None
        return numbers if numbers and numbers["AP"] >= 0 else None  # -1: nothing in these images is annotated

    def certify(self, exported: Predictor, options: Options, about: Mapping[str, Any]) -> Certificate:
        """Measure everything.

        Args:
            exported: the written file, in its own runtime.
            options: of the export.
            about: more that is noted.
        """
        measured = self.measure("export", exported)
        points = measured.lost_points if options.precision == "int8" else measured.points
        images = self.seen.sample
        alone = [detect(exported, image)[0] for image in images.split(1)]
        others = {"batch_1": compared(detect(exported, images), alone)}
        if options.dynamic == "size":
            others["second_size"] = self._of_other_size(exported)
        failure = self._failure(measured, points, options)
        failure = failure or next(filter(None, (_unlike(name, others[name], options.precision) for name in others)), "")
        with self.steps.step("latency"):
            sides = {"torch": self.reference, "export": exported}
            sizes = (1, len(images))
            latency: dict[int, dict[str, Latency]] = {size: measure_latency(sides, images[:size]) for size in sizes}
        noted = {
            "passed": not failure,
            "difference_points": points,
            "tolerance": options.ap_tolerance,
            "checked_on": self.images.name,
            "images": len(self.seen.found),
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

    def _failure(self, measured: Measured, points: float, options: Options) -> str:
        difference, differs = measured.difference, f"differs by {points:.2f} points from"
        if measured.not_finite:
            return f"{measured.not_finite:,} of the boxes or scores that it finds are no finite numbers"
        if not difference.matched:
            return f"it and its detector find nothing alike in {self.images.name}; data.root=FOLDER names other images"
        if points > options.ap_tolerance:
            by_detections = f"what it finds {differs} its detector"
            by_ap = measured.ap and self.ap and f"its AP {measured.ap['AP']:.4f} {differs} {self.ap['AP']:.4f}"
            return f"{by_ap or by_detections}, more than tolerance={options.ap_tolerance:g}"
        return "" if measured.ap else _boxes_elsewhere(difference, options.precision)

    def _of_other_size(self, exported: Predictor) -> Difference:
        stride: int = exported.detector.largest_stride  # pyright: ignore[reportAssignmentType]
        height, width = self.reference.image_hw
        size_hw = (height + stride, width + 2 * stride)
        images = F.interpolate(self.seen.sample, size_hw, mode="bilinear", align_corners=False)
        images = (images * 255).round() / 255  # whole grey levels, for files that take bytes
        return compared(detect(self.reference, images), detect(exported, images))


def detect(predictor: Predictor, images: Tensor) -> Found:
    """What is found in (B, 3, H, W) images in [0, 1]."""
    with torch.inference_mode():
        return predictor.decode(predictor.detector(images))


def compared(ours: Found, theirs: Found) -> Difference:
    """The same images, seen by both; what is no finite number is not there."""
    comparison = Comparison()
    for of_ours, of_theirs in zip(ours, theirs, strict=True):
        comparison.add(_finite(of_ours), _finite(of_theirs))
    return comparison.difference()


def points_without_truth(difference: Difference) -> float:
    """In hundredths: the mean difference of scores, or the share of detections without a partner if that is more."""
    return 100 * max(difference.mean_score, difference.unmatched_share)


def _finite(found: Detections) -> Detections:
    kept = found.boxes.isfinite().all(-1) & found.scores.isfinite()
    return Detections(*(values[kept] for values in found))


def _unlike(name: str, difference: Difference, precision: Precision) -> str:
    """What is grossly different, for a message; empty: nothing."""
    said = _boxes_elsewhere(difference, precision)
    if difference.mean_score > MOST_MEAN_SCORE:
        said = f"its scores are other ones, {difference.mean_score:.2g} apart in the mean"
    if difference.unmatched_share > MOST_UNMATCHED:
        of = difference.matched + difference.unmatched
        said = f"it finds other objects: {difference.unmatched} of {of} have no partner"
    if not difference.matched:
        said = "nothing alike is found"
    return f"{OTHERS[name]} {said}" if said else ""


def _boxes_elsewhere(difference: Difference, precision: Precision) -> str:
    if difference.mean_iou_loss <= MOST_IOU_LOSS[precision]:
        return ""
    return f"its boxes are elsewhere, {difference.mean_box_px:.2g} pixels apart in the mean"
