"""detkit.load: a trained detector from its file alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from detkit import recipe
from detkit.data import Resize
from detkit.inference.stored import read_stored
from detkit.types import Detections


class Predictor(NamedTuple):
    """A trained detector and what its results mean."""

    detector: nn.Module  # (B, 3, H, W) RGB in [0, 1] to raw predictions; in evaluation mode
    decode: Callable[[Any], list[Detections]]
    class_names: tuple[str, ...]
    image_hw: tuple[int, int]  # the network input that it was trained for
    resize: Resize  # how images come to that size, see ``detkit.data.to_input``


def load(path: str | Path, trusted: Sequence[str] = ()) -> Predictor:
    """Rebuild a trained detector on the CPU.

    Args:
        path: a run's folder, its detector.safetensors or one of its checkpoints.
        trusted: packages of your own that the detector has classes of; others than detkit's are refused.

    Raises:
        CheckpointError: if the file cannot be read, or its weights do not fit its recipe.
        RecipeError: if the recipe inside names a class that is not found or not trusted.
    """
    stored = read_stored(path)
    packages = (*recipe.TRUSTED, *trusted)
    model, decode = (stored.recipe[part] for part in ("model", "decode"))
    with stored.building():
        stored.require_fit(trusted)
        detector = recipe.instantiate(model, trusted=packages)
        stored.load_into(detector)
        decoder = recipe.instantiate(decode, trusted=packages)
    return Predictor(detector.eval(), decoder, stored.class_names, stored.image_hw, stored.resize)
