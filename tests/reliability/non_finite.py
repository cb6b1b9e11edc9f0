"""Numbers that are not finite, put into a toy run on purpose: what is found, in which step, and what was saved.

python -m tests.reliability.non_finite count=1
"""

import csv
import functools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from detkit.checkpoint import manifests_in, read_checkpoint, read_detector
from detkit.errors import TrainingError
from detkit.training import Parts, train
from detkit.training.callbacks.ema import averaged_module
from tests.helpers.toy import ToyData, toy_loss, toy_parts

STEP = 9  # the third of the second epoch
STEPS = 12


class AfterStep(L.Callback):
    """Damages something right after the optimizer step."""

    def __init__(self, damage: Callable[[L.Trainer], None], step: int = STEP) -> None:
        self.damage = damage
        self.step = step

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            self.damage(trainer)


class BrokenLoss:
    """The toy loss, wrong at one call."""

    def __init__(self, wrong: Callable[[dict[str, Tensor]], dict[str, Tensor]], step: int = STEP) -> None:
        self.wrong = wrong
        self.step = step
        self.calls = 0

    def __call__(self, predictions: Any, targets: Any) -> dict[str, Tensor]:
        self.calls += 1
        terms = toy_loss(predictions, targets)
        return self.wrong(terms) if self.calls == self.step else terms


class Fault(NamedTuple):
    """One way to break a run."""

    name: str
    break_it: Callable[[Parts], Parts]
    says: str  # in the message
    step: int | None  # in which it is found; None: in any
    can_skip: bool


def faults() -> list[Fault]:
    """Each row of the table."""
    return [
        Fault("NaN in the loss", _loss(lambda terms: terms | {"box": terms["box"] * math.nan}), "box nan", STEP, True),
        Fault("inf in the loss", _loss(lambda terms: terms | {"cls": terms["cls"] + math.inf}), "cls inf", STEP, True),
        Fault("NaN in a gradient", _loss(_root_of_zero), "the gradients are not finite", STEP, True),
        Fault("NaN in an image", _image, "pixels that are not finite in 5", None, True),
        Fault("NaN in a weight", _after(_weight), "the weights are not finite", STEP, False),
        Fault("inf in running statistics", _after(_statistics), "the weights are not finite", STEP, False),
        Fault("NaN in the average", _after(_average), "average.model.box.bias is not finite", STEPS, False),
        Fault("inf in the optimizer's mean", _after(_optimizer("exp_avg")), "the weights are not", STEP + 1, False),
        Fault("inf in its square", _after(_optimizer("exp_avg_sq")), "optimizer_states.0.state.0", STEPS, False),
        Fault("learning rate inf", _rate, "the weights are not finite", 1, False),
    ]


class Outcome(NamedTuple):
    """What became of a run."""

    message: str  # of the error; empty if it ran to its end
    step: int  # optimizer steps done
    broken: list[str]  # promises


def try_fault(fault: Fault, policy: str, runs: Path) -> Outcome:
    """Run into a fault and look at everything that is on disk afterwards."""
    last = LastStep()
    parts = toy_parts(runs, epochs=2, non_finite=policy, checkpoint={"every_n_steps": 4, "keep": 100})
    parts = fault.break_it(parts)
    parts.trainer.keywords["callbacks"].append(last)
    message = ""
    try:
        train(parts)
    except TrainingError as error:
        message = str(error)
    (folder,) = (runs / "toy").iterdir()
    broken = [*_not_finite(folder), *_wrong_end(fault, policy, message, last.step)]
    if (message and "Report: " in message) or (policy == "skip" and not message):
        broken += _wrong_report(folder, fault)
    return Outcome(message, last.step, broken)


class LastStep(L.Callback):
    """Remembers how far a run came."""

    step = 0

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.step = trainer.global_step


def _wrong_end(fault: Fault, policy: str, message: str, step: int) -> Iterator[str]:
    if policy == "skip" and fault.can_skip:
        if message or step != STEPS:
            yield f"was to be skipped, but: {message or step}"
        return
    if fault.says not in message:
        yield f"the message lacks {fault.says!r}: {message or 'no error'}"
    done = None if fault.step is None else fault.step - (1 if fault.can_skip else 0)
    if done is not None and step != done:
        yield f"{step} steps were done, not {done}"


def _not_finite(folder: Path) -> Iterator[str]:
    """What a run saved although it is no number."""
    for manifest in manifests_in(folder / "checkpoints"):
        state = read_checkpoint(manifest.path)
        for key in ("state_dict", "current_model_state", "optimizer_states"):
            yield from (f"{manifest.path.name}: {place}" for place in _places(state[key], key))
    if (folder / "detector.safetensors").exists():
        yield from (f"detector: {place}" for place in _places(read_detector(folder / "detector.safetensors")[0], ""))
    if (folder / "metrics.csv").exists():
        with (folder / "metrics.csv").open() as file:
            values = [(name, value) for row in csv.DictReader(file) for name, value in row.items()]
        yield from (f"metrics.csv: {name} {value}" for name, value in values if not math.isfinite(float(value)))


def _places(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and not value.isfinite().all():
            yield place
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(item, f"{place}.{key}")


def _wrong_report(folder: Path, fault: Fault) -> Iterator[str]:
    paths = sorted((folder / "non_finite").glob("step-*.json"))
    if not paths:
        yield "no report"
        return
    report = json.loads(paths[0].read_text(), parse_constant=lambda name: f"{name} is no JSON")
    if len(report["image_ids"]) != 4 or not report["terms"] or not report["learning_rates"]:
        yield f"{paths[0].name} lacks images, terms or learning rates"
    if fault.step is not None and report["step"] != fault.step:
        yield f"{paths[0].name} speaks of step {report['step']}, not {fault.step}"
    if cv2.imread(str(paths[0].with_name(report["picture"]))) is None:
        yield f"{report['picture']} is no picture"
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    if not [event for event in events if event["kind"] == "event" and event["event"] == "non_finite"]:
        yield "no event in metrics.jsonl"


def _loss(wrong: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Parts], Parts]:
    return lambda parts: parts._replace(loss=BrokenLoss(wrong))


def _root_of_zero(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """A finite loss whose gradient is none: the slope of a root at 0, times 0."""
    return terms | {"box": terms["box"] + (terms["box"] * 0).sqrt()}


def _image(parts: Parts) -> Parts:
    return parts._replace(data=ToyData(poison=5))


def _after(damage: Callable[[L.Trainer], None]) -> Callable[[Parts], Parts]:
    def break_it(parts: Parts) -> Parts:
        parts.trainer.keywords["callbacks"].append(AfterStep(damage))
        return parts

    return break_it


def _weight(trainer: L.Trainer) -> None:
    trainer.lightning_module.get_parameter("model.box.bias").data[1] = math.nan


def _statistics(trainer: L.Trainer) -> None:
    trainer.lightning_module.get_buffer("model.body.1.running_var")[2] = math.inf


def _average(trainer: L.Trainer) -> None:
    averaged_module(trainer).get_parameter("model.box.bias").data[1] = math.nan


def _optimizer(key: str) -> Callable[[L.Trainer], None]:
    def damage(trainer: L.Trainer) -> None:
        next(iter(trainer.optimizers[0].state.values()))[key].view(-1)[0] = math.inf

    return damage


def _rate(parts: Parts) -> Parts:
    return parts._replace(optimizer=functools.partial(torch.optim.AdamW, lr=math.inf))


def main(arguments: list[str]) -> int:
    """A table of every fault under both policies."""
    count = int(dict(argument.split("=") for argument in arguments).get("count", "1"))
    torch.set_num_threads(1)
    failed = 0
    print(f"{'fault':30}{'non_finite':12}{'steps done':>10}{'s':>6}  result")
    for fault in faults() * count:
        for policy in ("stop", "skip"):
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as runs:
                outcome = try_fault(fault, policy, Path(runs))
            seconds = time.perf_counter() - start
            failed += bool(outcome.broken)
            result = "; ".join(outcome.broken) or outcome.message.partition(". ")[0] or "skipped, ran to its end"
            print(f"{fault.name:30}{policy:12}{outcome.step:10}{seconds:6.1f}  {result[:140]}", flush=True)
    print(
        f"{failed} promises broken"
        if failed
        else "all stopped or skipped in the same step; all that was saved is finite"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
