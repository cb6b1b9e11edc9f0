"""Accuracy against a slow reference, by hand, and on two ranks."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from detkit.metrics import Accuracy, CocoMetric
from detkit.types import ClassTruth, ImageLabels, RankedClasses
from tests.helpers.coco_files import NAMES as NAMES_OF_COCO

NAMES = ("cat", "dog", "cow", "hen", "pig", "ant", "bee")


def truth_of(names: tuple[str, ...] = NAMES) -> ClassTruth:
    return ClassTruth(names, np.arange(len(names)) + 10, np.ones(len(names), dtype=np.int64))


def images(seed: int, count: int) -> tuple[list[RankedClasses], ImageLabels]:
    """Rankings of all classes at random, and labels of all classes but the last."""
    rng = torch.Generator().manual_seed(seed)
    ranked = [RankedClasses(torch.zeros(7), torch.randperm(7, generator=rng)) for _ in range(count)]
    labels = torch.randint(6, (count,), generator=rng)
    return ranked, ImageLabels(labels, np.arange(count))


def one(label: int, *best: int) -> tuple[list[RankedClasses], ImageLabels]:
    ranked = RankedClasses(torch.zeros(len(best)), torch.tensor(best, dtype=torch.int64))
    return [ranked], ImageLabels(torch.tensor([label]), np.array([7]))


def share_of(targets: ImageLabels, rows: slice) -> ImageLabels:
    return ImageLabels(targets.labels[rows], targets.image_ids[rows])


def numbers(metric: Accuracy) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def slow_reference(ranked: list[RankedClasses], targets: ImageLabels) -> tuple[dict[str, float], dict[str, float]]:
    labels = targets.labels.tolist()
    right = [int(r.labels[0]) == label for r, label in zip(ranked, labels, strict=True)]
    among = [label in r.labels[:5].tolist() for r, label in zip(ranked, labels, strict=True)]
    per_class = {}
    for index, name in enumerate(NAMES):
        own = [hit for hit, label in zip(right, labels, strict=True) if label == index]
        per_class[name] = sum(own) / len(own) if own else -1.0
    return {"top1": sum(right) / len(right), "top5": sum(among) / len(among)}, per_class


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_slow_reference(seed: int) -> None:
    ranked, targets = images(seed, 50)
    metric = Accuracy(truth_of())
    for start in range(0, 50, 8):
        metric.update(ranked[start : start + 8], share_of(targets, slice(start, start + 8)))
    expected, per_class = slow_reference(ranked, targets)
    assert numbers(metric) == expected
    assert metric.per_class() == per_class
    assert per_class["bee"] == -1 and 0 < expected["top1"] < expected["top5"] < 1


def test_by_hand() -> None:
    metric = Accuracy(truth_of())
    for label, *best in ([0, 0, 1, 2], [0, 1, 0], [1, 0, 2, 3, 4, 5, 1], [2]):  # first, second, sixth, not ranked
        metric.update(*one(label, *best))
    assert numbers(metric) == {"top1": 0.25, "top5": 0.5}
    assert metric.per_class() == {"cat": 0.5, "dog": 0.0, "cow": 0.0} | dict.fromkeys(NAMES[3:], -1.0)


def test_no_image_is_no_number() -> None:
    metric = Accuracy(truth_of())
    metric.update([], ImageLabels(torch.zeros(0, dtype=torch.int64), np.zeros(0, dtype=np.int64)))
    assert numbers(metric) == {"top1": -1.0, "top5": -1.0}
    assert set(metric.per_class().values()) == {-1.0}


def test_reset_forgets_images_and_keeps_what_was_computed() -> None:
    metric = Accuracy(truth_of())
    metric.update(*one(0, 0))
    metric.compute()
    metric.reset()
    assert metric.per_class()["cat"] == 1.0
    assert copy.deepcopy(metric).compute()["top1"] == -1.0


def test_what_was_computed_does_not_change_with_later_images() -> None:
    metric = Accuracy(truth_of())
    metric.update(*one(0, 0))
    metric.compute()
    metric.update(*one(0, 1))
    assert metric.per_class()["cat"] == 1.0


def test_classes_of_one_name_are_told_apart() -> None:
    metric = Accuracy(truth_of(("cat", "dog", "cat")))
    metric.update(*one(2, 2))
    metric.compute()
    assert metric.per_class() == {"cat (10)": -1.0, "dog": -1.0, "cat (12)": 1.0}


@pytest.mark.parametrize(("label", "best"), [(0, 7), (7, 0), (-1, 0)])
def test_refuses_labels_that_are_no_class(label: int, best: int) -> None:
    low, high = sorted((label, best))
    with pytest.raises(ValueError, match=rf"\[0, 7\).* image 7 has labels from {low} to {high}"):
        Accuracy(truth_of()).update(*one(label, best))


def test_refuses_rankings_without_targets() -> None:
    with pytest.raises(ValueError, match="one ranking for each image; got 1 for 0 images"):
        Accuracy(truth_of()).update(one(0, 0)[0], share_of(one(0, 0)[1], slice(0)))


def test_says_nothing_before_compute() -> None:
    with pytest.raises(RuntimeError, match=r"call compute\(\) first"):
        Accuracy(truth_of()).per_class()


def test_every_number_has_a_meaning() -> None:
    assert list(Accuracy.meanings) == list(Accuracy(truth_of()).compute())
    assert list(CocoMetric.meanings) == list(NAMES_OF_COCO)
    for metric in (Accuracy, CocoMetric):
        assert {name for names in metric.shown.values() for name in names} <= metric.meanings.keys()


def _measure_share(rank: int, folder: Path) -> None:
    """One of two processes: rank 1 has fewer images."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ranked, targets = images(3, 11)
    share = slice(0, 7) if rank == 0 else slice(7, 11)
    metric = Accuracy(truth_of())
    metric.update(ranked[share], share_of(targets, share))
    (folder / f"rank{rank}.json").write_text(json.dumps([numbers(metric), metric.per_class()]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one(tmp_path: Path) -> None:
    spawn(_measure_share, args=(tmp_path,), nprocs=2)
    expected = list(slow_reference(*images(3, 11)))
    for rank in range(2):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == expected


@pytest.mark.gpu
def test_labels_on_the_gpu() -> None:
    ranked, targets = images(0, 9)
    metric = Accuracy(truth_of())
    metric.update(
        [RankedClasses(*(tensor.cuda() for tensor in image)) for image in ranked],
        targets._replace(labels=targets.labels.cuda()),
    )
    assert numbers(metric) == slow_reference(ranked, targets)[0]
