"""A detector, a loss and a data set as small as they can be: one coloured square on each image."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from detkit.api import run_settings
from detkit.metrics import CocoMetric
from detkit.ops.targets import pack_targets
from detkit.recipe.plan import Plan, default_settings
from detkit.training import EMA, CheckpointSettings, Parts, WarmupCosine
from detkit.types import Batch, Detections, GroundTruth, Target, Targets

SIZE, CLASSES = 32, ("red", "green", "blue")


class ToyDetector(nn.Module):
    """One box and one class for each image; with batch norm and dropout, whose state must survive."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)
        )
        self.box = nn.Linear(8 * 64, 4)
        self.class_logits = nn.Linear(8 * 64, len(CLASSES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(images)
        return self.box(x), self.class_logits(x)


def toy_loss(predictions: tuple[Tensor, Tensor], targets: Targets) -> dict[str, Tensor]:
    boxes, logits = predictions
    truth = targets.boxes / SIZE  # one of each image
    cls = nn.functional.cross_entropy(logits.float(), targets.labels)
    return {"cls": cls, "box": (boxes.float() - truth).abs().mean() * 5}


def toy_decode(predictions: tuple[Tensor, Tensor]) -> list[Detections]:
    boxes, logits = predictions
    scores, labels = logits.float().softmax(1).max(1)
    corners = boxes.float() * SIZE
    corners = torch.cat((corners[:, :2], torch.maximum(corners[:, 2:], corners[:, :2] + 1)), dim=1)
    return [Detections(corners[i : i + 1], scores[i : i + 1], labels[i : i + 1]) for i in range(len(scores))]


class Squares(Dataset[tuple[Tensor, Target]]):
    """A sample is a function of (seed, epoch, index); epoch -1 is validation."""

    def __init__(self, length: int, poison: int | None = None) -> None:
        self.length = length
        self.poison = poison  # an image whose pixels are no numbers

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        epoch, index = key
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([7, index])))
        x, y = (rng.integers(0, 5, 2) * 4).tolist()
        label, side = int(rng.integers(3)), 16
        image = torch.zeros(3, SIZE, SIZE)
        image[label, y : y + side, x : x + side] = 1
        if epoch >= 0:
            noise = np.random.Generator(np.random.Philox(np.random.SeedSequence([8, epoch, index])))
            image += torch.from_numpy(noise.normal(0, 0.05, image.shape).astype(np.float32))
        if index == self.poison:
            image[:] = torch.nan
        box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
        return image, Target(box, torch.tensor([label]), torch.zeros(0, 4), index, (SIZE, SIZE))

    def __len__(self) -> int:
        return self.length


class ToySampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys, in an order that is a function of the epoch."""

    def __init__(self, length: int, batch_size: int, trainer: L.Trainer) -> None:
        self.length, self.batch_size, self.trainer = length, batch_size, trainer

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        epochs, done = divmod(progress.ready, len(self))
        epoch = self.trainer.current_epoch + epochs
        order = np.random.Generator(np.random.Philox(epoch)).permutation(self.length)
        order = order[self.trainer.global_rank :: self.trainer.world_size]
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return iter([[(epoch, int(index)) for index in batch] for batch in batches[done:]])

    def __len__(self) -> int:
        own = range(self.trainer.global_rank, self.length, self.trainer.world_size)
        return math.ceil(len(own) / self.batch_size)


class ToyData(L.LightningDataModule):
    """Where an epoch goes on is what Lightning's own counters say."""

    class_names = CLASSES
    fingerprint = "toy"

    def __init__(self, length: int = 24, batch_size: int = 4, poison: int | None = None) -> None:
        super().__init__()
        self.dataset = Squares(length, poison)
        self.length, self.batch_size = length, batch_size

    def ground_truth(self) -> GroundTruth:
        count = 16
        targets = [self.dataset[(-1, 1000 + i)][1] for i in range(count)]
        corners = np.stack([target.boxes[0].double().numpy() for target in targets])
        boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
        return GroundTruth(
            image_ids=np.arange(1000, 1000 + count),
            sizes_hw=np.full((count, 2), SIZE, dtype=np.int32),
            boxes_xywh=boxes,
            areas=boxes[:, 2] * boxes[:, 3],
            crowd=np.zeros(count, dtype=bool),
            labels=np.array([int(target.labels[0]) for target in targets]),
            image_rows=np.arange(count),
            category_ids=np.array([1, 5, 7]),
            class_names=CLASSES,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        sampler = ToySampler(self.length, self.batch_size, self.trainer)
        return DataLoader(self.dataset, batch_sampler=sampler, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Any]:
        keys = [[(-1, 1000 + i + j) for j in range(5) if i + j < 16] for i in range(0, 16, 5)]
        return DataLoader(self.dataset, batch_sampler=keys, collate_fn=collate)


def collate(samples: list[tuple[Tensor, Target]]) -> Batch:
    return Batch(torch.stack([image for image, _ in samples]), pack_targets([target for _, target in samples]))


def toy_parts(runs: Path, *, data: ToyData | None = None, epochs: int = 3, **given: Any) -> Parts:
    """Parts of a toy recipe.

    Args:
        runs: folder of all runs.
        data: to train on.
        epochs: max_epochs.
        given: keys of the recipe's top, ``checkpoint`` and ``trainer`` settings; ``config``: over all of these, as
            an edited recipe has them.
    """
    L.seed_everything(0, verbose=False)
    settings = default_settings() | {"wandb": "disabled", "runs_dir": str(runs)}
    settings |= {key: given.pop(key) for key in list(given) if key in settings}
    checkpoint = CheckpointSettings(**given.pop("checkpoint", {}))
    config = {
        **settings,
        "data": {"root": None, "image_hw": [SIZE, SIZE]},
        "model": {"_target_": "toy"},
        "checkpoint": {},
        "trainer": {},
        **given.pop("config", {}),
    }
    ema = EMA(decay=0.9, ramp_steps=5)
    trainer = {"callbacks": [ema], "accelerator": "cpu", "gradient_clip_val": 1.0} | given.pop("trainer", {})
    assert not given, f"unknown settings {given}"
    return Parts(
        settings=run_settings(Plan("toy", None, config, config, [("trainer.max_epochs", epochs)], {}, {}, None)),
        data=data or ToyData(),
        model=ToyDetector(),
        loss=toy_loss,
        decode=toy_decode,
        metrics=CocoMetric,
        optimizer=functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.01),
        scheduler=functools.partial(WarmupCosine, warmup_epochs=1),
        checkpoint=checkpoint,
        trainer=functools.partial(L.Trainer, max_epochs=epochs, **trainer),
    )
