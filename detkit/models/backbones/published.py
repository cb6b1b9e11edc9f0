"""Weights that a library publishes for its networks, and the pixel values that they were trained on."""

from pathlib import Path
from typing import Protocol
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision import models

from detkit.models.preprocess import Preprocess


class WeightsUnavailableError(OSError):
    """Published weights are not on this machine and cannot be downloaded; the text names the folder for them."""


class PublishedWeights(Protocol):
    """What a backbone offers as its attribute ``published``, if a library has weights for it."""

    @property
    def names(self) -> list[str]:
        """Of all weights of this network; the library's own choice first."""
        ...

    def preprocess(self, name: str | None = None) -> Preprocess:
        """What these weights expect of an image; None: those of the library's own choice."""
        ...

    def fetch(self, name: str) -> dict[str, Tensor]:
        """The weights under the library's names, from its cache or its server.

        Raises:
            WeightsUnavailableError: if they are in neither.
        """
        ...


class TorchvisionWeights:
    """Weights of torchvision.

    Args:
        model: torchvision's name of the network, e.g. ``resnet50``.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._all = models.get_model_weights(model)

    @property
    def names(self) -> list[str]:
        """The latest first: torchvision's DEFAULT."""
        default = self._all.DEFAULT.name  # type: ignore[attr-defined]
        return [default, *(weights.name for weights in self._all if weights.name != default)]

    def preprocess(self, name: str | None = None) -> Preprocess:
        """RGB in [0, 1], with ImageNet's mean and standard deviation."""
        transforms = self._all[name or "DEFAULT"].transforms()
        return Preprocess(mean=tuple(transforms.mean), std=tuple(transforms.std))

    def fetch(self, name: str) -> dict[str, Tensor]:
        """The weights, from torch's cache or torchvision's server.

        Raises:
            WeightsUnavailableError: if they are in neither.
        """
        weights = self._all[name]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        try:
            return weights.get_state_dict(progress=True, check_hash=True)
        except (URLError, OSError) as error:
            raise WeightsUnavailableError(
                f"{name} of {self.model} cannot be downloaded ({error}); where there is a network, fetch {weights.url} "
                f"and put it into {folder}, or pass its path as weights=PATH"
            ) from error
