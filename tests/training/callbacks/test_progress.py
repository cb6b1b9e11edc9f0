"""The bar in a terminal. What a log file gets is tested with a whole run."""

import io
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from detkit.training import train
from detkit.training.callbacks.progress import terms_by_kind
from tests.helpers.toy import toy_parts


def said_in_a_terminal(runs: Path, **given: Any) -> str:
    out = io.StringIO()
    train(toy_parts(runs, **given), console=Console(file=out, force_terminal=True, width=160))
    return out.getvalue()


def test_bar_in_a_terminal(tmp_path: Path) -> None:
    said = said_in_a_terminal(tmp_path, epochs=2)
    assert "\x1b[" in said
    assert "6/6" in said and "images/s" in said and "left 0:00:00, run 0:00:0" in said
    assert "epoch 2/2 validation" in said
    assert len([line for line in said.splitlines() if "epoch 2/2  AP" in line and "best" in line]) == 1


def test_bar_can_be_switched_off(tmp_path: Path) -> None:
    said = said_in_a_terminal(tmp_path, epochs=1, trainer={"enable_progress_bar": False})
    assert "6/6" not in said and "images/s" in said


def test_terms_of_a_kind_are_shown_as_their_sum() -> None:
    terms = {"cls": torch.tensor(1.0), "l1": torch.tensor(2.0), "cls_aux_0": torch.tensor(4.0), "loss": 7.0}
    assert terms_by_kind(terms) == {"cls": 5.0, "l1": 2.0, "loss": 7.0}
