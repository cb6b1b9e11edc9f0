"""Seed the random numbers of the network, e.g. of dropout, for each batch."""

import lightning as L
import numpy as np
import torch
from typing_extensions import override

from detkit.types import Batch

STREAM = 2  # makes these numbers differ from those of other uses of the same seed


class ReseedEachBatch(L.Callback):
    """Seed torch by (seed, epoch, batch, rank), so that a resumed run needs no state of a generator.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        key = np.random.SeedSequence([self.seed, STREAM, trainer.current_epoch, batch_idx, trainer.global_rank])
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0]))
