"""Pictures of training batches, and of results next to the ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from typing_extensions import override

from detkit.ops.drawing import grid
from detkit.training.callbacks.best import BestDetector
from detkit.training.callbacks.drawings import drawing_of
from detkit.training.run.failed_writes import FailedWrites
from detkit.types import Batch

TRAIN_BATCHES, TRAIN_IMAGES = 3, 16


class Pictures(L.Callback):
    """Writes sheets of images to a folder and to W&B, on rank 0.

    Args:
        folder: folder of the pictures.
        class_names: class names of the labels.
        best: gives the best epoch; Lightning must call it before this callback.
        failures: records failures to write a picture.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], best: BestDetector, failures: FailedWrites) -> None:
        self.folder = folder
        self.class_names = class_names
        self.best = best
        self.failures = failures
        self._seen: list[tuple[Tensor, Any, Any]] = []

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Draw the first batches, after augmentation."""
        if trainer.current_epoch > 0 or batch_idx >= TRAIN_BATCHES:
            return
        self._write(trainer, f"train_batch_{batch_idx}", sheet_of(batch, self.class_names))

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self._seen = []
        rows = _rows_to_draw(batch_idx, len(batch.images), trainer, drawing_of(batch.targets.of_image(0)).images)
        self._seen += [
            (batch.images[row].cpu(), batch.targets.of_image(row), outputs["detections"][row]) for row in rows
        ]

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        names = [name for name, at in (("val_best", self.best.epoch), ("val_last", trainer.max_epochs)) if at == epoch]
        if not trainer.sanity_checking and self._seen and names:
            drawing = drawing_of(self._seen[0][1])
            drawn = [drawing.with_result(_uint8(seen[0]), seen[1], seen[2], self.class_names) for seen in self._seen]
            sheet = grid(drawn, columns=drawing.columns)
            for name in names:
                self._write(trainer, name, sheet)
        self._seen = []

    def _write(self, trainer: L.Trainer, name: str, sheet: np.ndarray) -> None:
        path = self.folder / f"{name}.jpg"
        _, content = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
        with self.failures.recording(path):
            self.folder.mkdir(exist_ok=True)
            path.write_bytes(content.tobytes())
        if not path.exists():
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"pictures/{name}", [str(path)])


def sheet_of(batch: Batch, class_names: Sequence[str]) -> np.ndarray:
    """The first images of a batch with their ground truth, after augmentation: (H, W, 3) RGB uint8."""
    pairs = [(_uint8(image), batch.targets.of_image(row)) for row, image in enumerate(batch.images[:TRAIN_IMAGES])]
    return grid([drawing_of(target).truth(image, target, class_names) for image, target in pairs], columns=4)


def _rows_to_draw(batch_idx: int, length: int, trainer: L.Trainer, images: int) -> list[int]:
    """Rows of a batch, evenly spaced over the whole split, because a split is often sorted by class."""
    batches = int(sum(trainer.num_val_batches))
    share = min((batch_idx + 1) * images // batches - batch_idx * images // batches, length)
    return [number * length // share for number in range(share)]


def _uint8(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (H, W, 3) uint8."""
    return np.ascontiguousarray((image.detach().float() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu())
