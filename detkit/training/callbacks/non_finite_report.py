"""The report of a step whose numbers are not finite: where, in which terms, of which images, with the images."""

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
from detkit.checkpoint import PlainData, storing
from detkit.checkpoint.file import make_folder, replace
from detkit.training.callbacks.norms import Norms, named_floats
from detkit.types import Batch

LOSS, GRADIENTS, STATE = "the loss is not finite", "the gradients are not finite", "the weights are not finite"
LARGEST = 10  # gradients that a report names
LISTED = 50  # names of what is not finite
SHOWN_IDS, SHOWN_NAMES = 16, 3  # in a message
PACKAGES = ("torch", "lightning", "numpy")
Sheet = Callable[[Batch], np.ndarray]  # a batch drawn for a person: (H, W, 3) RGB bytes


class Moment(NamedTuple):
    """An optimizer step, as far as it has come."""

    step: int  # counted from 1
    epoch: int  # counted from 1
    batch_index: int  # in the epoch, of this rank
    batch: Batch
    terms: Mapping[str, Tensor]  # of the loss
    gradients: Norms | None
    learning_rates: list[float]  # of the optimizer's groups


class Report(NamedTuple):
    """What one rank found."""

    what: str  # LOSS, GRADIENTS or STATE
    facts: PlainData
    picture: bytes  # JPEG of the batch

    def describe(self) -> str:
        """One sentence: what, where, and of which images."""
        terms = ", ".join(f"{name} {value}" for name, value in self.facts["terms"].items())
        ids = [str(image_id) for image_id in self.facts["image_ids"]]
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        rank = f" of rank {self.facts['rank']}" if self.facts["ranks"] > 1 else ""
        place = f"in step {self.facts['step']} (epoch {self.facts['epoch']})"
        pixels = self.facts["images_not_finite"]
        seen = f"; pixels that are no numbers in {', '.join(map(str, pixels[:SHOWN_IDS]))}" if pixels else ""
        return f"{self.what}{self._names()} {place}: {terms}; image ids{rank} {', '.join(ids[:SHOWN_IDS])}{more}{seen}"

    def _names(self) -> str:
        """Of what is wrong where that is a tensor with a name, and of a learning rate that may be why."""
        gradients = self.facts["gradients"]["not_finite"] if self.what == GRADIENTS else []
        names = self.facts["weights_not_finite"] if self.what == STATE else gradients
        listed = [*names[:SHOWN_NAMES], *(["..."] if len(names) > SHOWN_NAMES else [])]
        listed += [f"learning rate {rate}" for rate in self.facts["learning_rates"][:1] if isinstance(rate, str)]
        return f" ({', '.join(listed)})" if listed else ""


def make_report(what: str, moment: Moment, module: torch.nn.Module, trainer: L.Trainer, sheet: Sheet) -> Report:
    """What this rank found; it waits for the device.

    Args:
        what: LOSS, GRADIENTS or STATE.
        moment: of the step.
        module: whose parameters and running statistics are looked at.
        trainer: for the rank and the precision.
        sheet: draws the batch.
    """
    batch, scaler = moment.batch, scaler_of(trainer)
    image_ids = batch.targets.image_ids.tolist()
    bad_images = [image_id for image, image_id in zip(batch.images, image_ids, strict=True) if not _finite(image)]
    facts = {
        "what": what,
        "step": moment.step,
        "epoch": moment.epoch,
        "batch_index": moment.batch_index,
        "rank": trainer.global_rank,
        "ranks": trainer.world_size,
        "image_ids": image_ids,
        "images_not_finite": bad_images,
        "terms": {name: _number(float(value)) for name, value in moment.terms.items()},
        "gradients": _gradients(moment.gradients),
        "weights_not_finite": [name for name, value in named_floats(module) if not _finite(value)][:LISTED],
        "learning_rates": [_number(rate) for rate in moment.learning_rates],
        "precision": str(trainer.precision),
        "loss_scale": _number(scaler.get_scale()) if scaler else None,
        "versions": {"detkit": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
    }
    drawn = cv2.imencode(".jpg", cv2.cvtColor(sheet(batch), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return Report(what, facts, drawn.tobytes())


def write_report(folder: Path, reports: Sequence[Report]) -> Path:
    """step-N.json with what the first rank found, the picture of its batch beside it, and the other ranks' images.

    Raises:
        StorageError: if they cannot be written.
    """
    first, others = reports[0], reports[1:]
    path = folder / f"step-{first.facts['step']:08d}.json"
    also = [{key: other.facts[key] for key in ("rank", "image_ids", "terms")} for other in others]
    text = json.dumps({**first.facts, "picture": path.with_suffix(".jpg").name, "other_ranks": also}, indent=1)
    with storing(path):
        make_folder(folder)
        replace(path.with_suffix(".jpg"), lambda file: file.write(first.picture))
        replace(path, lambda file: file.write(text.encode()))
    return path


def scaler_of(trainer: L.Trainer) -> GradScaler | None:
    """That of half precision, or None: it skips steps whose gradients overflow by itself, and lowers its scale."""
    plugin = trainer.precision_plugin
    return plugin.scaler if isinstance(plugin, MixedPrecision | FSDPPrecision) else None


def left_to_the_scaler(trainer: L.Trainer) -> bool:
    """Whether the scaler handles gradients that overflow: at a scale below 1 no lower one would help."""
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
    """As JSON can hold it: "nan", "inf" and "-inf" are words there."""
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)
