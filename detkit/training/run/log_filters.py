"""Filters for Lightning's log: no notes on devices, tips and logging intervals; its warnings stay."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def filtered_logs() -> Iterator[None]:
    """Around Lightning's work: only messages that the user can act on."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of training batches")
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")  # its own
            # It looks at the loader alone; where an epoch goes on is known to the data module.
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
            # Numbers of validation are computed of all ranks' images, and equal on every rank.
            warnings.filterwarnings("ignore", message=r"It is recommended to use `self\.log\('val/")
            yield
    finally:
        log.setLevel(level)
