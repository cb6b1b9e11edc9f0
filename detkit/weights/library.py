"""Weights that torchvision or timm publish for a backbone, by their name."""

import difflib
from typing import Any

from torch import nn

from detkit.errors import CheckpointError
from detkit.models.backbones.published import PublishedWeights, WeightsUnavailableError
from detkit.weights.align import align
from detkit.weights.source_weights import Given


def published_by(model: nn.Module) -> PublishedWeights | None:
    """What the backbone says of published weights, if it does."""
    return getattr(getattr(model, "backbone", None), "published", None)


def fetch(name: str, published: PublishedWeights, own: Any) -> Given:
    """Published weights under the model's names; DEFAULT is the library's own choice.

    Raises:
        CheckpointError: if there are none of this name, or they are not to be had.
    """
    names = published.names
    if not names:
        raise CheckpointError(f"weights={name}: no weights are published for this backbone; give the path of a file")
    chosen = names[0] if name == "DEFAULT" else name
    if chosen not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise CheckpointError(
            f"weights={name}: neither a file nor published for this backbone; there are {', '.join(names)}{hint}"
        )
    try:
        weights = published.fetch(chosen)
    except WeightsUnavailableError as error:
        raise CheckpointError(f"weights={name}: {error}") from error
    return Given(chosen, align(weights, own), preprocess=published.preprocess(chosen))
