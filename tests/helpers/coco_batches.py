"""A data module with small settings, and a hash of each batch."""

import hashlib
from pathlib import Path
from typing import Any

from detkit.data import CocoDataModule
from detkit.data.augment import Augmentation
from detkit.types import Batch

SMALL: dict[str, Any] = {
    "image_hw": (64, 64),
    "batch_size": 4,
    "num_workers": 0,
    "augmentation": Augmentation(mixup_probability=0.3),
}


def data_of(root: Path, **settings: Any) -> CocoDataModule:
    return CocoDataModule(root=str(root), **{**SMALL, **settings})


def digest(batch: Batch) -> tuple[tuple[int, ...], str]:
    """The images of a batch by name, and a hash of all that is in it."""
    content = hashlib.sha256(batch.images.numpy().tobytes())
    for target in batch.targets.unpack():
        content.update(b"".join(tensor.numpy().tobytes() for tensor in target[:3]))
        content.update(str(target[3:]).encode())
    return tuple(batch.targets.image_ids.tolist()), content.hexdigest()
