"""Broken labels on a small scale; the whole of it is a program, ``python -m tests.reliability.mutated_labels``."""

from pathlib import Path

import pytest

from tests.reliability import mutated_labels
from tests.reliability.mutated_labels import Outcome, judge, make_sets, run


def test_no_mutant_breaks_the_promise(tmp_path: Path) -> None:
    counts, failures = run(250, 1, tmp_path, lambda *_: None)
    assert failures == []
    assert {what for _, what in counts} >= {"refused", "read"}
    assert {kind.split(": ")[1] for kind, _ in counts} == set(mutated_labels.MUTATIONS)


def test_broken_promises_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge can fail: on another number, on a traceback, and on an error that does not name the file."""
    yolo, voc = make_sets(tmp_path)
    assert judge(yolo, "labels/train/a.txt") == judge(voc, "Annotations/a.xml") == Outcome("read")
    assert "is read," in judge(yolo._replace(read=lambda _: {"a": [("cat", 75, 25, 51, 50)]}), "data.yaml").wrong
    (yolo.root / "labels/train/a.txt").write_text("0 0.5")
    assert judge(yolo, "labels/train/a.txt") == Outcome("refused")
    assert judge(yolo, "labels/train/b.txt").wrong.startswith("does not name the file")
    monkeypatch.setattr(mutated_labels, "load_index", lambda *_: {}["no such key"] if _ else None)
    assert judge(voc, "Annotations/a.xml").wrong == "raises KeyError: 'no such key'"
