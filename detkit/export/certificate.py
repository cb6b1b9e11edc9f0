"""The proof of an export: what it finds, beside what its detector finds, on the same images."""

import datetime as dt
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from detkit import __version__
from detkit.export.comparison import LEAST_SCORE, Comparison, Difference
from detkit.export.images import CheckImages, Found, generated_images
from detkit.export.latency import Latency, measure_latency
from detkit.export.options import Options
from detkit.export.steps import Steps
from detkit.inference.device import processor_name
from detkit.inference.predictor import Predictor
from detkit.types import Target

# A batch of another size, or images of another size, may not be grossly different; their AP is not measured.
MOST_MEAN_SCORE = 0.05
MOST_UNMATCHED = 0.1
OTHERS = {"batch_1": "image by image", "second_size": "in images of another size"}


class Certificate(NamedTuple):
    """What was measured, as plain values."""

    passed: bool
    difference_points: (
        float  # of AP, in hundredths; of int8 the loss; without ground truth see ``points_without_truth``
    )
    noted: dict[str, Any]  # all of it, for the file

    def failure(self, out: Path) -> str:
        """What is wrong with the file, for a message."""
        noted, tolerance = self.noted, f"more than tolerance={self.noted['tolerance']:g}"
        if self.difference_points <= noted["tolerance"] and (noted["ap"] or noted["detections"]["matched"]):
            others = {name: noted[name] for name in OTHERS if name in noted}
            worst = max(others, key=lambda name: others[name]["mean_score"])
            return f"{OTHERS[worst]} {out} finds other objects: {others[worst]['unmatched']} have no partner"
        if noted["ap"]:
            ours, theirs = (noted["ap"][side]["AP"] for side in ("torch", "export"))
            return (
                f"AP {theirs:.4f} of {out} differs by {self.difference_points:.2f} points from {ours:.4f}, {tolerance}"
            )
        if not noted["detections"]["matched"]:
            return f"{out} and its detector find nothing alike in {noted['checked_on']}; data.root=FOLDER measures AP"
        return f"what {out} finds differs by {self.difference_points:.2f} points from its detector, {tolerance}"

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
            f"checked on {noted['checked_on']}; {runtimes}",
        ]
        if not noted["ap"]:
            lines.append("a weaker check: without a data set there is no AP; data.root=FOLDER measures it")
        console.print("", *lines, sep="\n", soft_wrap=True, highlight=False, markup=False)


class Measured(NamedTuple):
    """One export beside the detector."""

    ap: dict[str, float] | None  # the twelve numbers; None without ground truth
    difference: Difference
    points: float  # that the AP are apart, in hundredths; without ground truth see ``points_without_truth``
    lost_points: float  # the same, but 0 where the export has the better AP, as int8 may have by chance


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
    def first(self) -> Tensor:
        """The first batch."""
        return next(iter(self.images.batches()))[0]

    @functools.cached_property
    def seen(self) -> tuple[Found, list[Target]]:
        """What the detector finds."""
        return self.look("torch", self.reference)

    @functools.cached_property
    def ap(self) -> dict[str, float] | None:
        """The detector's numbers; None without ground truth."""
        return self.images.measure(*self.seen) if self.images.measure else None

    def look(self, name: str, predictor: Predictor) -> tuple[Found, list[Target]]:
        """Everything that one of them finds."""
        found: Found = []
        targets: list[Target] = []
        with self.steps.step(f"check, {name}", self.images.num_batches) as done:
            for images, of_images in self.images.batches():
                found += detect(predictor, images)
                targets += of_images
                done()
        return found, targets

    def measure(self, name: str, predictor: Predictor) -> "Measured":
        """One export beside the detector."""
        before = self.ap  # the detector's turn comes first
        found, targets = self.look(name, predictor)
        ap, difference = self.images.measure and self.images.measure(found, targets), compared(self.seen[0], found)
        if before is None or ap is None:
            points = points_without_truth(difference)
            return Measured(None, difference, points, points)
        lost = 100 * (before["AP"] - ap["AP"])
        return Measured(ap, difference, abs(lost), max(0.0, lost))

    def certify(self, exported: Predictor, options: Options, about: Mapping[str, Any]) -> Certificate:
        """Measure everything.

        Args:
            exported: the written file, in its own runtime.
            options: of the export.
            about: more that is noted.
        """
        ap, difference, apart, lost = self.measure("export", exported)
        points = lost if options.precision == "int8" else apart
        first = self.first
        others = {
            "batch_1": compared(detect(exported, first), [detect(exported, image)[0] for image in first.split(1)])
        }
        if options.dynamic == "size":
            others["second_size"] = self._of_other_size(exported)
        blind = ap is None and not difference.matched
        alike = all(_is_alike(other) for other in others.values())
        passed = points <= options.ap_tolerance and alike and not blind
        with self.steps.step("latency"):
            sides = {"torch": self.reference, "export": exported}
            sizes = dict.fromkeys((1, len(first)))
            latency: dict[int, dict[str, Latency]] = {size: measure_latency(sides, first[:size]) for size in sizes}
        noted = {
            "passed": passed,
            "difference_points": points,
            "tolerance": options.ap_tolerance,
            "checked_on": self.images.name,
            "images": len(self.seen[0]),
            "data_fingerprint": self.images.fingerprint,
            "ap": ap and {"torch": self.ap, "export": ap},
            "least_score": LEAST_SCORE,
            "detections": difference._asdict(),
            **{name: other._asdict() for name, other in others.items()},
            "latency": {
                str(size): {side: of._asdict() for side, of in sides.items()} for size, sides in latency.items()
            },
            "threads": torch.get_num_threads(),
            "processor": processor_name(),
            "torch": torch.__version__,
            "detkit_version": __version__,
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            **about,
        }
        return Certificate(passed, points, noted)

    def _of_other_size(self, exported: Predictor) -> Difference:
        stride: int = exported.detector.largest_stride  # pyright: ignore[reportAssignmentType]
        height, width = self.reference.image_hw
        images = generated_images(2, (height + stride, width + 2 * stride))
        return compared(detect(self.reference, images), detect(exported, images))


def detect(predictor: Predictor, images: Tensor) -> Found:
    """What is found in (B, 3, H, W) images in [0, 1]."""
    with torch.inference_mode():
        return predictor.decode(predictor.detector(images))


def compared(ours: Found, theirs: Found) -> Difference:
    """The same images, seen by both."""
    comparison = Comparison()
    for of_ours, of_theirs in zip(ours, theirs, strict=True):
        comparison.add(of_ours, of_theirs)
    return comparison.difference()


def points_without_truth(difference: Difference) -> float:
    """In hundredths: the mean difference of scores, or the share of detections without a partner if that is more."""
    return 100 * max(difference.mean_score, difference.unmatched_share)


def _is_alike(difference: Difference) -> bool:
    return difference.mean_score <= MOST_MEAN_SCORE and difference.unmatched_share <= MOST_UNMATCHED
