"""Backbone, neck and head joined. The only place where channel counts travel."""

from collections.abc import Callable
from typing import Any, Protocol, Self

from torch import Tensor, nn

from detkit.models.preprocess import Preprocess
from detkit.types import FeatureSpec


class FeatureModule(Protocol):
    """A backbone or a neck: it says what it gives before it is asked to."""

    out_specs: list[FeatureSpec]

    def __call__(self, inputs: Any) -> list[Tensor]: ...


class Composition(nn.Module):
    """Images in, raw predictions out: the same in training, evaluation and export.

    Args:
        backbone: built first; its ``out_specs`` decide what the neck receives.
        neck: called with the backbone's specs, e.g. a ``_partial_`` of PAN.
        head: called with the neck's specs.
        preprocess: what the weights expect of an image; None: RGB in [0, 1]. Loaded weights bring their own.
    """

    def __init__(
        self,
        backbone: FeatureModule,
        neck: Callable[[list[FeatureSpec]], FeatureModule],
        head: Callable[[list[FeatureSpec]], nn.Module],
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess or Preprocess()
        self.backbone = backbone
        self.neck = neck(backbone.out_specs)
        self.head = head(self.neck.out_specs)

    @property
    def takes_targets(self) -> bool:
        """Whether the head makes noisy queries of the targets in training."""
        return getattr(self.head, "takes_targets", False)

    @property
    def largest_stride(self) -> int:
        """Sides of images must be multiples of it, in pixels."""
        return max(spec.stride for spec in (*self.backbone.out_specs, *self.neck.out_specs))

    def forward(self, images: Tensor, targets: Any = None) -> Any:
        """(B, 3, H, W) RGB in [0, 1] to the head's predictions; in training a head that takes targets is given them.

        Raises:
            ValueError: if a side is no multiple of the largest stride.
        """
        height, width = images.shape[-2:]
        if height % self.largest_stride or width % self.largest_stride:
            raise ValueError(
                f"images of {height} x {width} pixels: both sides must be multiples of {self.largest_stride}, "
                "the largest stride"
            )
        features = self.neck(self.backbone(self.preprocess(images)))
        return self.head(features) if targets is None else self.head(features, targets)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``, but a norm whose parameters are frozen keeps its statistics as well."""
        super().train(mode)
        for module in self.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, nn.modules.batchnorm._NormBase) and own and not any(p.requires_grad for p in own):  # noqa: SLF001
                module.eval()
        return self
