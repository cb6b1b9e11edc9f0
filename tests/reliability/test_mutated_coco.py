"""Mutated annotation files at a small scale, and that each broken promise would be seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.errors import DataError
from tests.reliability import mutated_coco
from tests.reliability.coco_faults import OF_DOCUMENT, OF_TEXT, mutate


def test_refused_by_name_or_pycocotools_ap(tmp_path: Path) -> None:
    outcomes = mutated_coco.run(tmp_path, range(150), seed=1)
    assert [found for found in outcomes.values() if found[1].is_broken] == []
    whats = [outcome.what for _, outcome in outcomes.values()]
    assert whats.count("refused") > 50 and whats.count("equal") > 15


def test_every_fault_is_drawn_and_mutants_are_the_same_again() -> None:
    document = mutated_coco.base_document()
    drawn = [mutate(np.random.default_rng([3, number]), document) for number in range(400)]
    assert {name for names, _ in drawn for name in names} == {fault.__name__ for fault in (*OF_DOCUMENT, *OF_TEXT)}
    assert [mutate(np.random.default_rng([3, number]), document) for number in range(20)] == drawn[:20]


def _other_labels(*paths: Any) -> CocoIndex:
    index = load_index(*paths)
    return replace(index, truth=index.truth._replace(labels=np.roll(index.truth.labels, 1)))


def _lost_box(*paths: Any) -> CocoIndex:
    index = load_index(*paths)
    truth, boxes = index.truth, index.truth.boxes_xywh.copy()
    boxes[0] = 0
    return replace(index, truth=truth._replace(boxes_xywh=boxes))


def _bug(*_: Any) -> CocoIndex:
    raise KeyError("bbox")


def _nameless(*_: Any) -> CocoIndex:
    raise DataError("something is wrong")


@pytest.mark.parametrize(
    ("reader", "what"),
    [(_other_labels, "another AP"), (_lost_box, "another AP"), (_bug, "traceback"), (_nameless, "file not named")],
)
def test_a_broken_promise_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[..., CocoIndex], what: str
) -> None:
    monkeypatch.setattr(mutated_coco, "load_index", reader)
    monkeypatch.setattr(mutated_coco, "mutate", lambda _, document: ([], mutated_coco.json.dumps(document).encode()))
    [(_, outcome)] = mutated_coco.run(tmp_path, range(1), seed=0).values()
    assert outcome.what == what and outcome.is_broken
