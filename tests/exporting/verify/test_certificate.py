"""What counts as the same detector: AP apart in either direction, of int8 what it lost; and what shows nothing."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.exporting.options import ExportOptions, Precision
from detkit.exporting.steps import TimedSteps
from detkit.exporting.verify.certificate import Certificate, ExportCheck
from detkit.exporting.verify.check_images import CheckImages
from detkit.inference.predictor import Predictor
from detkit.types import Detections

FOUND = Detections(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([0.9]), torch.tensor([0]))
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
IMAGE_HW = (32, 32)


class Finds(Predictor):
    """Finds the same in every image, or what ``of`` says of a batch."""

    def __init__(self, of: Callable[[Tensor], list[Detections]] | Detections) -> None:
        decode = of if callable(of) else lambda images: [of] * len(images)
        network = nn.Identity()
        network.largest_stride = 8  # pyright: ignore[reportArgumentType]
        super().__init__(network, decode, ["cat"], IMAGE_HW, "letterbox")


def check_of(reference: Predictor, *aps: float, images: Tensor | None = None) -> ExportCheck:
    """The APs are made up, that of the reference first; none: there is no ground truth."""
    numbers = iter(aps)
    looked_at = torch.zeros(2, 3, *IMAGE_HW) if images is None else images
    measure = (lambda *_: {"AP": next(numbers), "AP50": 0.5}) if aps else None
    return ExportCheck(
        reference, CheckImages("images", lambda: iter([(looked_at, [])]), 1, None, measure), TimedSteps()
    )


def certified(check: ExportCheck, exported: Predictor, **options: Any) -> Certificate:
    made = check.certify(exported, ExportOptions("run", **options), {})
    assert made.passed == made.noted["passed"] == (not made.failure)
    return made


@pytest.mark.parametrize(
    ("precision", "before", "after", "points", "passed"),
    [
        ("fp32", 0.5, 0.502, 0.2, False),
        ("fp32", 0.5, 0.498, 0.2, False),
        ("fp32", 0.5, 0.5005, 0.05, True),
        ("int8", 0.5, 0.52, 0.0, True),
        ("int8", 0.5, 0.495, 0.5, True),
        ("int8", 0.5, 0.48, 2.0, False),
    ],
)
def test_apart_or_lost(precision: Precision, before: float, after: float, points: float, passed: bool) -> None:
    made = certified(check_of(Finds(FOUND), before, after), Finds(FOUND), precision=precision)
    assert made.difference_points == pytest.approx(points)
    said = f"its AP {after:.4f} differs by {points:.2f} points from 0.5000, more than tolerance="
    assert made.passed == passed and made.failure.startswith("" if passed else said)


def test_a_gain_is_no_loss() -> None:
    measured = check_of(Finds(FOUND), 0.5, 0.52).measure("export", Finds(FOUND))
    assert (measured.points, measured.lost_points) == (pytest.approx(2), 0)


@pytest.mark.parametrize("ap", [-1.0, 0.0])
def test_what_is_not_found_is_not_the_same(ap: float) -> None:
    """In images without annotations both have AP -1, in those where neither is right AP 0."""
    made = certified(check_of(Finds(FOUND), ap, ap), Finds(NOTHING))
    assert made.failure.startswith("it shares no detection with its detector in images")
    assert (made.noted["ap"] is None) == (ap < 0)


def test_without_annotations_detections_are_compared() -> None:
    worse = FOUND._replace(scores=torch.tensor([0.7]))
    made = certified(check_of(Finds(FOUND), -1.0, -1.0), Finds(worse))
    assert made.noted["ap"] is None
    assert made.difference_points == pytest.approx(20)
    assert "its output differs by 20.00 points from its detector, more than tolerance=0.1" in made.failure


@pytest.mark.parametrize(("precision", "passed"), [("fp32", False), ("fp16", False), ("int8", True)])
def test_boxes_elsewhere_are_not_the_same(precision: Precision, passed: bool) -> None:
    """Half a stride to the right, with all scores as they were: an eighth of the union of 64 x 60 pixels."""
    large = Detections(torch.tensor([[0.0, 0.0, 60.0, 60.0]]), torch.tensor([0.9]), torch.tensor([0]))
    moved = large._replace(boxes=large.boxes + torch.tensor([4.0, 0.0, 4.0, 0.0]))
    made = certified(check_of(Finds(large)), Finds(moved), precision=precision)
    assert made.noted["detections"]["mean_iou_loss"] == pytest.approx(1 - 56 / 64)
    assert made.failure == ("" if passed else "its boxes differ by 4 pixels on average")
    assert certified(check_of(Finds(large), 0.5, 0.5), Finds(moved)).passed  # where there is ground truth, AP decides


def found_where(is_wrong: Callable[[Tensor], bool], wrong: Detections) -> Predictor:
    return Finds(lambda images: [wrong if is_wrong(images) else FOUND] * len(images))


MOVED = FOUND._replace(boxes=FOUND.boxes + torch.tensor([0.1, 0.0, 0.1, 0.0]))
MORE = Detections(
    torch.tensor([[0.0, 0.0, 8.0, 8.0], [20.0, 0.0, 28.0, 8.0]]), torch.tensor([0.9, 0.5]), torch.tensor([0, 0])
)


@pytest.mark.parametrize(
    ("wrong", "precision", "said"),
    [
        (NOTHING, "fp32", "it shares no detection with its detector"),
        (MORE, "int8", r"it finds other objects: \d of \d have no partner"),
        (FOUND._replace(scores=torch.tensor([0.8])), "int8", r"its scores differ by 0\.1 on average"),
        (MOVED, "fp32", r"its boxes differ by 0\.1 pixels on average"),
        (MOVED, "int8", None),
    ],
)
def test_another_batch_and_another_size(wrong: Detections, precision: Precision, said: str | None) -> None:
    """Where the AP is the same: what goes wrong is named, and where."""
    for where, is_wrong in (
        ("image by image", lambda images: len(images) == 1),
        ("in images of another size", lambda images: images.shape[-2:] == (40, 48)),
    ):
        check = check_of(Finds(FOUND), 0.5, 0.5)
        made = certified(check, found_where(is_wrong, wrong), precision=precision, dynamic="size")
        assert re.fullmatch(f"{where} {said}" if said else "", made.failure)


def test_another_size_at_which_nothing_is_found_shows_nothing() -> None:
    """Neither finds anything there."""
    silent = found_where(lambda images: images.shape[-2:] == (40, 48), NOTHING)
    made = certified(check_of(silent, 0.5, 0.5), silent, dynamic="size")
    assert made.failure == "in images of another size it shares no detection with its detector"


def test_a_single_image_is_shown_twice() -> None:
    """A batch that may vary is run with two images, whatever the data gives."""
    wrong_in_batches = found_where(lambda images: len(images) > 1, NOTHING)
    made = certified(check_of(Finds(FOUND), 0.5, 0.5, images=torch.zeros(1, 3, *IMAGE_HW)), wrong_in_batches)
    assert made.failure == "image by image it shares no detection with its detector"
    assert set(made.noted["latency"]) == {"1", "2"}


def test_sample_is_a_batch_with_objects() -> None:
    """A whole one, if that has any."""
    batches = [torch.full((size, 3, *IMAGE_HW), value) for size, value in ((2, 0.0), (2, 0.5), (1, 0.9))]

    def check(least: float) -> Tensor:
        finds = Finds(lambda images: [FOUND if image.max() > least else NOTHING for image in images])
        images = CheckImages("images", lambda: ((batch, []) for batch in batches), 3, None, None)
        return ExportCheck(finds, images, TimedSteps()).reference_run.sample

    assert check(0.1).unique().tolist() == [0.5] and len(check(0.1)) == 2
    assert check(0.7).unique().tolist() == [pytest.approx(0.9)] and len(check(0.7)) == 2
    assert len(check(1.0)) == 2


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_finite_number_is_told(number: float) -> None:
    """The rest is measured: COCO's numbers are of finite boxes alone."""
    broken = Detections(
        torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, number]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    )
    check = check_of(Finds(FOUND), 0.5, 0.5)
    made = certified(check, Finds(broken))
    assert made.failure == "2 of its boxes or scores are not finite"
    assert made.noted["not_finite"] == 2
    run = check.run("export", Finds(broken))
    assert all(found.boxes.isfinite().all() and len(found.scores) == 1 for found in run.found)
