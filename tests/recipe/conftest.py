"""A whole recipe of toy parts, written to a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from detkit import recipe
from detkit.recipe import Plan

TOY = """\
# A toy detector.  Nothing is trained.
seed: 3
wandb: disabled
model:
  _target_: tests.recipe.toys.Detector
  backbone: {_target_: tests.recipe.toys.Backbone, depth: 2}
  head:
    _target_: tests.recipe.toys.Head
    _partial_: true
    num_classes: null
loss: {_target_: tests.recipe.toys.Loss, weights: {cls: 5e-1, box: 2}}
decode: {_target_: tests.recipe.toys.Decode}
metrics: {_target_: tests.recipe.toys.metrics, _partial_: true}
optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 1e-3, betas: [0.9, 0.99]}
scheduler: {_target_: tests.recipe.toys.schedule, _partial_: true}
data:
  _target_: tests.recipe.toys.Data
  root: null
  image_hw: [640, 640]
  seed: ${seed}
checkpoint: {_target_: tests.recipe.toys.Settings}
trainer:
  _target_: tests.recipe.toys.Trainer
  _partial_: true
  max_epochs: 300
  callbacks:
    - {_target_: tests.recipe.toys.EMA, decay: 0.99}
demo:
  data.image_hw: [32, 32]
  trainer.max_epochs: 2
"""

Load = Callable[..., Plan]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY)
    return path


@pytest.fixture
def load(toy: Path) -> Load:
    """Loads the toy recipe with arguments; ``replace=(old, new)`` edits its text first."""

    def load(*arguments: str, replace: tuple[str, str] | None = None) -> Plan:
        if replace:
            assert replace[0] in TOY
            toy.write_text(TOY.replace(*replace))
        return recipe.load([f"recipe={toy}", *arguments])

    return load
