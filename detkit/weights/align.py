"""Match the names of a file with those of a model, if prefixes differ or dots became underscores."""

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

DEEPEST_PREFIX = 4  # parts of a prefix


def align(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a file under a model's names.

    Each prefix that the file's names may have (``module.``, ``model.backbone.``) is tried with each part of the model
    that the file may belong to: the whole, the backbone, a network inside it. The pair with the most tensors of equal
    name and shape is used. Dots and underscores count as equal, so ``blocks_0.conv`` matches ``blocks.0.conv``.

    Args:
        weights: of the file.
        own: state_dict of the model.

    Returns:
        The same tensors, under the model's names if they are in the model, else under the file's names.
    """
    parts = ["", *_prefixes(name for name in own if name.startswith("backbone."))]
    places = [_Place(prefix, own) for prefix in parts]
    pairs = [(place, prefix) for place in places for prefix in ["", *_prefixes(weights)]]
    place, prefix = max(pairs, key=lambda pair: pair[0].score(weights, pair[1]))
    return {place.name(name, prefix) or name: tensor for name, tensor in weights.items()}


class _Place:
    """A part of a model that a file may belong to."""

    def __init__(self, prefix: str, own: Mapping[str, Tensor]) -> None:
        self.own = own
        inside = [name for name in own if name.startswith(prefix)]
        plain = Counter(_plain(name.removeprefix(prefix)) for name in inside)
        self.exact = {name.removeprefix(prefix): name for name in inside}
        self.flat = {_plain(inner): name for inner, name in self.exact.items() if plain[_plain(inner)] == 1}

    def name(self, name: str, prefix: str) -> str | None:
        """The model's name for a name of the file."""
        if not name.startswith(prefix):
            return None
        inner = name.removeprefix(prefix)
        return self.exact.get(inner) or self.flat.get(_plain(inner))

    def score(self, weights: Mapping[str, Tensor], prefix: str) -> tuple[int, int]:
        """(number of tensors with equal name and shape, number of equal names)."""
        pairs = [(self.name(name, prefix), tensor) for name, tensor in weights.items()]
        found = [(self.own[name], tensor) for name, tensor in pairs if name is not None]
        return sum(own.shape == tensor.shape for own, tensor in found), len(found)


def _prefixes(names: Iterable[str]) -> list[str]:
    """Prefixes that at least a quarter of the names share, short ones first."""
    names = list(names)
    counts = Counter(
        ".".join(parts[:depth]) + "."
        for parts in (name.split(".") for name in names)
        for depth in range(1, min(len(parts), DEEPEST_PREFIX + 1))
    )
    return sorted((prefix for prefix, count in counts.items() if 4 * count >= len(names)), key=len)


def _plain(name: str) -> str:
    return name.replace("_", ".")
