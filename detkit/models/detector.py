"""Backbone, neck and head joined. The only place where channel counts travel."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from detkit.types import FeatureSpec


class FeatureModule(Protocol):
    """A backbone or a neck: it says what it gives before it is asked to."""

    out_specs: list[FeatureSpec]

    def __call__(self, inputs: Any) -> list[Tensor]: ...


class Detector(nn.Module):
    """Images in, raw predictions out: the same in training, evaluation and export.

    Args:
        backbone: built first; its ``out_specs`` decide what the neck receives.
        neck: called with the backbone's specs, e.g. a ``_partial_`` of PAN.
        head: called with the neck's specs.
        preprocess: what the weights expect of an image; None: RGB in [0, 1].
    """

    def __init__(
        self,
        backbone: FeatureModule,
        neck: Callable[[list[FeatureSpec]], FeatureModule],
        head: Callable[[list[FeatureSpec]], nn.Module],
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess or nn.Identity()
        self.backbone = backbone
        self.neck = neck(backbone.out_specs)
        self.head = head(self.neck.out_specs)

    def forward(self, images: Tensor) -> Any:
        """(B, 3, H, W) RGB in [0, 1] to the head's predictions."""
        return self.head(self.neck(self.backbone(self.preprocess(images))))
