"""Backbone, neck and head joined. Channel counts are passed on here and nowhere else."""

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from detkit.errors import RecipeError, stride_fault
from detkit.models.preprocess import Preprocess
from detkit.types import FeatureSpec

InputT_contra = TypeVar("InputT_contra", contravariant=True)


class FeatureModule(Protocol[InputT_contra]):
    """A backbone, of images, or a neck, of the backbone's maps: ``out_specs`` describes each map that it returns."""

    out_specs: list[FeatureSpec]

    def __call__(self, inputs: InputT_contra, /) -> list[Tensor]: ...


class Composition(nn.Module):
    """Images in, raw predictions out: the same in training, evaluation and export.

    Args:
        backbone: built first; its ``out_specs`` decide what the neck receives.
        neck: called with the backbone's specs, e.g. a ``_partial_`` of PAN.
        head: called with the neck's specs.
        preprocess: what the weights expect of an image; None: RGB in [0, 1]. Loaded weights bring their own.

    Raises:
        ValueError: if backbone or neck has no ``out_specs``, or they are no list of ``FeatureSpec``.
    """

    def __init__(
        self,
        backbone: FeatureModule[Tensor],
        neck: Callable[[list[FeatureSpec]], FeatureModule[list[Tensor]]],
        head: Callable[[list[FeatureSpec]], nn.Module],
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess or Preprocess()
        self.backbone = backbone
        self.neck = neck(_specs_of(backbone, "backbone"))
        self.head = head(_specs_of(self.neck, "neck"))

    @property
    def takes_targets(self) -> bool:
        """Whether the head makes noisy queries of the targets in training."""
        return getattr(self.head, "takes_targets", False)  # a head that takes none need not have the attribute

    @property
    def largest_stride(self) -> int:
        """Sides of images must be multiples of it, in pixels."""
        return max(spec.stride for spec in (*self.backbone.out_specs, *self.neck.out_specs))

    def forward(self, images: Tensor, targets: object = None) -> Any:  # each kind of head has predictions of its own
        """(B, 3, H, W) RGB in [0, 1] to the head's predictions; in training a head that takes targets receives them.

        Raises:
            ValueError: if a side is no multiple of the largest stride.
            RecipeError: if backbone or neck return other maps than their ``out_specs`` describe.
        """
        height, width = images.shape[-2:]
        if height % self.largest_stride or width % self.largest_stride:
            raise ValueError(f"both sides of images {stride_fault((height, width), self.largest_stride)}")
        maps = self.backbone(self.preprocess(images))
        _require_described(maps, self.backbone, "backbone", images)
        features = self.neck(maps)
        _require_described(features, self.neck, "neck", images)
        return self.head(features) if targets is None else self.head(features, targets)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``, but a norm whose parameters are frozen keeps its statistics as well."""
        super().train(mode)
        for module in self.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, nn.modules.batchnorm._NormBase) and own and not any(p.requires_grad for p in own):  # noqa: SLF001
                module.eval()
        return self


def _specs_of(part: FeatureModule[InputT_contra], role: str) -> list[FeatureSpec]:
    """The specs of a part that a user may have written.

    Raises:
        ValueError: if it has none, or they are no list of ``FeatureSpec``.
    """
    rule = "a list of FeatureSpec(channels, stride), one for each map that its forward returns"
    if not hasattr(part, "out_specs"):
        raise ValueError(f"{role} {type(part).__name__} has no out_specs, which must be {rule}")
    specs: object = part.out_specs
    described = isinstance(specs, list | tuple) and all(isinstance(spec, FeatureSpec) for spec in specs)
    if not specs or not described:
        raise ValueError(f"{role} {type(part).__name__}: out_specs must be {rule}; got {specs!r}")
    return part.out_specs


def _require_described(maps: object, part: FeatureModule[InputT_contra], role: str, images: Tensor) -> None:
    """Compare what a part returned with what its specs say; wrong strides would move all boxes without an error.

    It costs microseconds. Compiled and exported graphs leave it out, because there sizes may be symbols.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return
    batch, _, height, width = images.shape
    described = [
        (batch, spec.channels, height // spec.stride, width // spec.stride) if spec.stride else (batch, spec.channels)
        for spec in part.out_specs
    ]
    if not isinstance(maps, list | tuple):
        returned: object = f"a {type(maps).__name__}, no list of maps"
    else:
        returned = [tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__ for values in maps]
    if returned != described:
        specs = ", ".join(f"FeatureSpec({spec.channels}, {spec.stride})" for spec in part.out_specs)
        raise RecipeError(
            f"model.{role}: {type(part).__name__} returns {returned}, but its out_specs [{specs}] describe {described} "
            f"for images {tuple(images.shape)}; correct its out_specs or its forward"
        )
