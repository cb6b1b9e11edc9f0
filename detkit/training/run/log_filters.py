"""Filters for Lightning's log and warnings."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def filtered_logs() -> Iterator[None]:
    """While active, Lightning logs only messages that the user can act on, so no device information and no tips."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of training batches")
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated"
            )  # from Lightning itself
            # The data module continues within an epoch, but Lightning checks the loader only.
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
            # The numbers of validation are computed from the images of all ranks, so they are equal on every rank.
            warnings.filterwarnings("ignore", message=r"It is recommended to use `self\.log\('val/")
            yield
    finally:
        log.setLevel(level)
