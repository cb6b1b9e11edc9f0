"""Parts as small as they can be, for recipes of the tests."""

import os  # noqa: F401  (reached through this module by the tests of trust)
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.recipe import helpers


class Backbone:
    """Toy backbone.

    Args:
        depth: how deep; more is slower.
        width_multiple: factor on the channels,
            rounded down.
    """

    def __init__(self, depth: int = 3, width_multiple: float = 1.0) -> None:
        if depth < 1:
            raise ValueError(f"depth must be positive; got {depth}")
        self.depth = depth
        self.width_multiple = width_multiple


class OtherBackbone:
    """Another toy backbone."""

    def __init__(self, layers: int = 18, depth: int = 7) -> None:
        self.layers = layers
        self.depth = depth


class Head:
    """Toy head.

    Args:
        in_specs: of the backbone.
        num_classes: C.
        kind: of the box branch.
    """

    def __init__(self, in_specs: list[int], num_classes: int, kind: Literal["plain", "bins"] = "plain") -> None:
        if kind == "bins" and num_classes > 2:
            raise ValueError(f"bins take at most 2 classes; got {num_classes}")
        self.in_specs = in_specs
        self.num_classes = num_classes
        self.kind = kind


class Detector:
    """Toy detector.

    Args:
        backbone: built first.
        head: called with the backbone's specs.
        preprocess: what the weights expect.
    """

    def __init__(
        self, backbone: Backbone | OtherBackbone, head: Callable[[list[int]], Head], preprocess: Head | None = None
    ) -> None:
        self.backbone = backbone
        self.head = head([1, 2])
        self.preprocess = preprocess


class Data:
    """Toy data of three classes.

    Args:
        root: folder of the data set.
        image_hw: height and width.
    """

    def __init__(
        self, root: str | Path | None = None, image_hw: tuple[int, int] = (64, 64), batch_size: int = 4, seed: int = 0
    ) -> None:
        self.root = root
        self.image_hw = image_hw
        self.batch_size = batch_size
        self.seed = seed
        self.class_names: tuple[str, ...] = ()

    def prepare(self) -> None:
        self.class_names = ("cat", "dog", "bird")


class Loss:
    """Toy loss."""

    def __init__(self, weights: dict[str, float] | None = None, powers: list[int] | None = None) -> None:
        self.weights = weights
        self.powers = powers


class Decode:
    """Toy decoder, with a fault deeper down."""

    def __init__(self, threshold: float = 0.1) -> None:
        self.threshold = helpers.parsed(threshold)


@dataclass
class Settings:
    """Toy settings."""

    keep: int = 2


class Trainer:
    """Toy trainer.

    Args:
        max_epochs: how long.
        devices: how many, or which ones.
    """

    def __init__(
        self,
        max_epochs: int | None = None,
        devices: list[int] | str | int = "auto",
        precision: Literal[32, "bf16-mixed"] = 32,
        callbacks: list[Any] | None = None,
    ) -> None:
        self.max_epochs = max_epochs
        self.devices = devices
        self.precision = precision
        self.callbacks = callbacks


class EMA:
    """Toy callback."""

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay


def anything(**options: Any) -> dict[str, Any]:
    return options


def metrics(ground_truth: Iterable[int], engine: str = "fast") -> tuple[Iterable[int], str]:
    return ground_truth, engine


def schedule(optimizer: Any, warmup_epochs: int = 3) -> tuple[Any, int]:
    return optimizer, warmup_epochs


NOT_CALLABLE = 3
