"""A disk that is full, and a run that says when its first step is done."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from typing_extensions import override


class FullDisk:
    """A disk on which files of one kind cannot be written, from one of them on, for so many times."""

    def __init__(self, kind: str, first: int = 0, times: int = 1000) -> None:
        self.kind = kind
        self.range = range(first, first + times)
        self.seen = 0

    def __call__(self, moment: str) -> None:
        if moment.startswith("before open") and self.kind in moment:
            self.seen += 1
            if self.seen - 1 in self.range:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Slowly(L.Callback):
    """Says when the first step is done, and takes its time."""

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        Path(trainer.default_root_dir).with_name("begun").touch() if trainer.is_global_zero else None
        time.sleep(0.1)
