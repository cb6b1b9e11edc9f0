"""Enable the L1 term of YOLOX's loss in the last epochs."""

from typing import Protocol, runtime_checkable

import lightning as L
from typing_extensions import override

from detkit.errors import RecipeError


@runtime_checkable
class HasL1Weight(Protocol):
    """A loss whose L1 term has a weight."""

    l1_weight: float


class LateL1(L.Callback):
    """Enables the L1 term of the loss in the last epochs, which have no mosaic.

    The weight is set before every batch, because a run that is resumed within an epoch skips the start of the epoch.

    Args:
        last_epochs: number of epochs with the L1 term.
        weight: weight of the term in these epochs; it is 0 before.

    Raises:
        ValueError: if a number is negative.

    Source: Ge et al., YOLOX, 2021, §2.1 and code release. https://arxiv.org/abs/2107.08430
    """

    def __init__(self, last_epochs: int = 15, weight: float = 1.0) -> None:
        if last_epochs < 0 or weight < 0:
            raise ValueError(
                f"last_epochs and weight must not be negative; got last_epochs={last_epochs}, weight={weight}"
            )
        self.last_epochs = last_epochs
        self.weight = weight

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the loss and the trainer before the first step.

        Raises:
            RecipeError: if the loss has no L1 term, or max_epochs is not set.
        """
        if not isinstance(pl_module.loss, HasL1Weight):
            raise RecipeError(
                f"{type(pl_module.loss).__name__} has no l1_weight for LateL1 to set; "
                "remove LateL1 from trainer.callbacks or use YOLOXLoss"
            )
        if trainer.max_epochs is None or trainer.max_epochs < 0:
            raise RecipeError(
                f"LateL1 counts epochs from the end: trainer.max_epochs must be set; got {trainer.max_epochs}"
            )

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Set the weight of this epoch."""
        loss = pl_module.loss
        assert trainer.max_epochs is not None and isinstance(loss, HasL1Weight), "on_fit_start has checked both"
        is_late = trainer.current_epoch >= trainer.max_epochs - self.last_epochs
        loss.l1_weight = self.weight if is_late else 0.0
