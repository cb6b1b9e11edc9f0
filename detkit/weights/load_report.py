"""The report of loaded weights."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SHOWN = 10


class LoadReport(NamedTuple):
    """The names of loaded and of other tensors in the model; ``str`` makes it readable.

    Counters of batch norm and the preprocessing are loaded, but not listed.
    """

    source: str
    names: tuple[str, ...]  # all tensors of the model
    loaded: tuple[str, ...]  # completely, or some of their class rows
    missing: tuple[str, ...]  # in the model, not in the file
    unexpected: tuple[str, ...]  # in the file, not in the model
    other_shape: tuple[str, ...]  # each with both shapes
    left_out: tuple[str, ...]  # as requested
    num_classes: int  # of the model; 0 if the file has no class rows
    kept_classes: tuple[int, ...]  # class indices of the model whose rows came from the file
    images: str  # the preprocessing that the network now uses

    def __str__(self) -> str:
        """One line for the loaded tensors, one for each reason that others were not loaded, one for the images."""
        total, loaded = (Counter(name.partition(".")[0] for name in names) for names in (self.names, self.loaded))
        parts = ", ".join(f"{part} {loaded[part]} of {total[part]}" for part in total)
        by_part = f" ({parts})" if len(self.loaded) < len(self.names) and len(total) > 1 else ""
        lines = [f"{self.source}: loaded {len(self.loaded)} of {len(self.names)} tensors{by_part}"]
        if len(self.kept_classes) < self.num_classes:
            kept = len(self.kept_classes)
            lines.append(f"  class rows: {kept} of {self.num_classes} from the file, the others start untrained")
        within = tuple(name for name in self.missing if loaded[name.partition(".")[0]])
        for what, names in (
            ("missing", within),
            ("unexpected", self.unexpected),
            ("other shape", self.other_shape),
            ("left out", self.left_out),
        ):
            if names:
                lines.append(f"  {what}: {_first_few(names)}")
        if self.images:
            lines.append(f"  images: {self.images}")
        return "\n".join(lines)


def _first_few(names: Sequence[str]) -> str:
    more = f"; ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more
