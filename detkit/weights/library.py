"""Weights that torchvision or timm publish for a backbone."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from detkit.errors import CheckpointError, did_you_mean, nearest_path
from detkit.models.backbones.published import PublishedWeights, WeightsUnavailableError
from detkit.weights.align import align
from detkit.weights.source_weights import SourceWeights


@runtime_checkable
class HasPublished(Protocol):
    """A backbone with published weights."""

    published: PublishedWeights | None


def published_by(model: nn.Module) -> PublishedWeights | None:
    """The published weights of the model's backbone; None if it has none."""
    backbone = dict(model.named_children()).get("backbone")
    return backbone.published if isinstance(backbone, HasPublished) else None


def fetch(name: str, published: PublishedWeights, own: Mapping[str, Tensor]) -> SourceWeights:
    """Published weights under the model's names.

    Args:
        name: name of the weights; DEFAULT means the first of ``published.names``.
        published: published weights of the backbone.
        own: state_dict of the model.

    Raises:
        CheckpointError: if no weights have this name, or they cannot be downloaded.
    """
    names = published.names
    if not names:
        raise CheckpointError(f"weights={name}: no weights are published for this backbone; give the path of a file")
    chosen = names[0] if name == "DEFAULT" else name
    if chosen not in names:
        hint = nearest_path(name) or did_you_mean(name, names)
        raise CheckpointError(f"weights={name}: neither a file nor published for this backbone{hint}")
    try:
        weights = published.fetch(chosen)
    except WeightsUnavailableError as error:
        raise CheckpointError(f"weights={name}: {error}") from error
    return SourceWeights(chosen, align(weights, own), preprocess=published.preprocess(chosen))
