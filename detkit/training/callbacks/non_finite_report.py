"""The report of a step whose numbers are not finite: loss terms, tensors, image ids and a picture of the batch."""

import importlib.metadata
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.precision import FSDPPrecision, MixedPrecision
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from detkit import __version__
from detkit.checkpoint import PlainData, storage_errors
from detkit.checkpoint.file import make_folder, replace
from detkit.training.callbacks.norms import Norms, named_floats
from detkit.types import Batch

LOSS, GRADIENTS, STATE = "the loss is not finite", "the gradients are not finite", "the weights are not finite"
LARGEST = 10  # number of largest gradients in a report
LISTED = 50  # number of tensors that are not finite in a report
SHOWN_IDS, SHOWN_NAMES = 16, 3  # in a message
PACKAGES = ("torch", "lightning", "numpy")
DrawBatch = Callable[[Batch], np.ndarray]  # a batch to a picture: (H, W, 3) RGB uint8


class StepSnapshot(NamedTuple):
    """The state of an optimizer step at the time of a check."""

    step: int  # counted from 1
    epoch: int  # counted from 1
    batch_index: int  # in the epoch, of this rank
    batch: Batch
    terms: Mapping[str, Tensor]  # loss terms
    gradients: Norms | None
    learning_rates: list[float]  # of the optimizer's groups


class NonFiniteReport(NamedTuple):
    """The report of one rank."""

    fault: str  # LOSS, GRADIENTS or STATE
    facts: PlainData
    picture: bytes  # JPEG of the batch

    def describe(self) -> str:
        """One sentence with the fault, the step, the loss terms and the image ids."""
        terms = ", ".join(f"{name} {value}" for name, value in self.facts["terms"].items())
        ids = [str(image_id) for image_id in self.facts["image_ids"]]
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        rank = f" of rank {self.facts['rank']}" if self.facts["ranks"] > 1 else ""
        place = f"in step {self.facts['step']} (epoch {self.facts['epoch']})"
        pixels = self.facts["images_not_finite"]
        images = f"; pixels that are not finite in {', '.join(map(str, pixels[:SHOWN_IDS]))}" if pixels else ""
        return (
            f"{self.fault}{self._names()} {place}: {terms}; image ids{rank} {', '.join(ids[:SHOWN_IDS])}{more}{images}"
        )

    def _names(self) -> str:
        """Names of tensors that are not finite, and a learning rate that is not finite, in parentheses."""
        gradients = self.facts["gradients"]["not_finite"] if self.fault == GRADIENTS else []
        names = self.facts["weights_not_finite"] if self.fault == STATE else gradients
        listed = [*names[:SHOWN_NAMES], *(["..."] if len(names) > SHOWN_NAMES else [])]
        listed += [f"learning rate {rate}" for rate in self.facts["learning_rates"][:1] if isinstance(rate, str)]
        return f" ({', '.join(listed)})" if listed else ""


def make_report(
    fault: str, snapshot: StepSnapshot, module: torch.nn.Module, trainer: L.Trainer, draw_batch: DrawBatch
) -> NonFiniteReport:
    """The report of this rank; waits for the device.

    Args:
        fault: LOSS, GRADIENTS or STATE.
        snapshot: snapshot of the step.
        module: its parameters and running statistics are checked.
        trainer: gives rank and precision.
        draw_batch: draws the batch.
    """
    batch, scaler = snapshot.batch, scaler_of(trainer)
    image_ids = batch.targets.image_ids.tolist()
    bad_images = [image_id for image, image_id in zip(batch.images, image_ids, strict=True) if not _finite(image)]
    facts = {
        "what": fault,
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "batch_index": snapshot.batch_index,
        "rank": trainer.global_rank,
        "ranks": trainer.world_size,
        "image_ids": image_ids,
        "images_not_finite": bad_images,
        "terms": {name: _number(float(value)) for name, value in snapshot.terms.items()},
        "gradients": _gradients(snapshot.gradients),
        "weights_not_finite": [name for name, value in named_floats(module) if not _finite(value)][:LISTED],
        "learning_rates": [_number(rate) for rate in snapshot.learning_rates],
        "precision": str(trainer.precision),
        "loss_scale": _number(scaler.get_scale()) if scaler else None,
        "versions": {"detkit": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
    }
    drawn = cv2.imencode(".jpg", cv2.cvtColor(draw_batch(batch), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return NonFiniteReport(fault, facts, drawn.tobytes())


def write_report(folder: Path, reports: Sequence[NonFiniteReport]) -> Path:
    """Write step-N.json with the first report and the image ids of the others, and a picture of the first batch.

    Raises:
        StorageError: if a file cannot be written.
    """
    first, others = reports[0], reports[1:]
    path = folder / f"step-{first.facts['step']:08d}.json"
    also = [{key: other.facts[key] for key in ("rank", "image_ids", "terms")} for other in others]
    text = json.dumps({**first.facts, "picture": path.with_suffix(".jpg").name, "other_ranks": also}, indent=1)
    with storage_errors(path):
        make_folder(folder)
        replace(path.with_suffix(".jpg"), lambda file: file.write(first.picture))
        replace(path, lambda file: file.write(text.encode()))
    return path


def scaler_of(trainer: L.Trainer) -> GradScaler | None:
    """The gradient scaler of half precision, which skips steps whose gradients overflow; None in other precisions."""
    plugin = trainer.precision_plugin
    return plugin.scaler if isinstance(plugin, MixedPrecision | FSDPPrecision) else None


def scaler_handles_overflow(trainer: L.Trainer) -> bool:
    """Whether the scaler handles gradients that overflow. Below a scale of 1, lowering the scale does not help."""
    scaler = scaler_of(trainer)
    return scaler is not None and scaler.get_scale() >= 1


def _gradients(norms: Norms | None) -> PlainData:
    pairs = list(zip(norms.names, norms.values.tolist(), strict=True)) if norms else []
    finite = sorted((pair for pair in pairs if math.isfinite(pair[1])), key=lambda pair: -pair[1])
    bad = [name for name, norm in pairs if not math.isfinite(norm)]
    return {"largest": dict(finite[:LARGEST]), "not_finite": bad[:LISTED], "not_finite_count": len(bad)}


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _number(value: float) -> float | str:
    """A number for JSON, with "nan", "inf" and "-inf" as text."""
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)
