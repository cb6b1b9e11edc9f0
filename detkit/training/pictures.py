"""Pictures of what the network is trained on, and of what it finds beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from typing_extensions import override

from detkit.ops.drawing import draw_detections, grid, side_by_side
from detkit.training.best import BestDetector
from detkit.types import Batch, Detections

TRAIN_BATCHES, TRAIN_IMAGES, VAL_IMAGES = 3, 16, 8
MIN_SCORE = 0.3


class Pictures(L.Callback):
    """Sheets of images in a folder and in W&B; for rank 0 alone.

    Args:
        folder: where to.
        class_names: of the labels.
        best: the best epoch; it must see a validation before this does.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], best: BestDetector) -> None:
        self.folder = folder
        self.class_names = class_names
        self.best = best
        self._seen: list[tuple[Tensor, Any, Detections]] = []

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """After augmentation, as the network gets them."""
        if trainer.current_epoch > 0 or batch_idx >= TRAIN_BATCHES:
            return
        drawn = [
            draw_detections(
                _uint8(image), target.boxes.cpu().numpy(), target.labels.cpu().numpy(), None, self.class_names
            )
            for image, target in zip(batch.images[:TRAIN_IMAGES], batch.targets, strict=False)
        ]
        self._write(trainer, f"train_batch_{batch_idx}", grid(drawn, columns=4))

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
        room = VAL_IMAGES - len(self._seen)
        if room > 0:
            images = batch.images[:room].cpu()
            self._seen += zip(images, batch.targets[:room], outputs["detections"][:room], strict=True)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        # a new best takes the old one's place
        names = [name for name, at in (("val_best", self.best.epoch), ("val_last", trainer.max_epochs)) if at == epoch]
        if not trainer.sanity_checking and self._seen and names:
            sheet = grid([self._beside_truth(*seen) for seen in self._seen], columns=2)
            for name in names:
                self._write(trainer, name, sheet)
        self._seen = []

    def _beside_truth(self, image: Tensor, target: Any, detections: Detections) -> np.ndarray:
        picture = _uint8(image)
        sure = detections.scores >= MIN_SCORE
        boxes, scores, labels = (values[sure].float().cpu().numpy() for values in detections)
        truth = draw_detections(
            picture, target.boxes.cpu().numpy(), target.labels.cpu().numpy(), None, self.class_names
        )
        return side_by_side(truth, draw_detections(picture, boxes, labels.astype(int), scores, self.class_names))

    def _write(self, trainer: L.Trainer, name: str, sheet: np.ndarray) -> None:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{name}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"pictures/{name}", [str(path)])


def _uint8(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (H, W, 3) of bytes."""
    return np.ascontiguousarray((image.detach().float() * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu())
