"""Fine-tuning: what stays as it is, until when, and how fast the backbone learns."""

import functools
import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatchcase

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from detkit.checkpoint import CheckpointState
from detkit.errors import RecipeError, did_you_mean
from detkit.training.optim.parameter_groups import parameter_groups
from detkit.training.optim.schedules import go_on_at_step
from detkit.training.optim.stages import stages_of

SHOWN = 10
FIXED = {"freeze": None, "backbone_lr_factor": 1.0, "layer_decay": 1.0}  # must be the same in a run that goes on


class FineTuning(L.Callback):
    """Freeze parameters from the start, train them from an epoch on, and give the backbone its own learning rates.

    Frozen parameters have no gradient and are in no optimizer; a batch norm whose parameters are all
    frozen keeps its statistics as well. What is frozen changes between two batches and is in the
    checkpoint, so a resumed run builds its optimizer and DDP with the right parameters at once.

    # Note [not Lightning's BaseFinetuning]
    That one appends groups to the optimizer: the scheduler has no learning rate for them and raises, and
    DDP never averages the gradients of what was frozen when it was made. Here all three are made anew.

    Args:
        model: its parameters are frozen at once.
        freeze: stages of the backbone up to this one, or names of modules or parameters with wildcards.
        unfreeze_epoch: from this epoch on, counted from 0, everything trains; None: never.
        backbone_lr_factor: learning rate of the backbone, as a factor on the optimizer's.
        layer_decay: factor on that from each stage of the backbone to the one before it.
        say: prints a line.

    Attributes:
        groups: makes of a model the groups of the parameters that train now, for an optimizer.

    Raises:
        RecipeError: if a name matches nothing, nothing is left to train, or the model has no backbone and
            one is needed. (``recipe.load`` has looked at the ranges of the values.)
    """

    def __init__(
        self,
        model: nn.Module,
        freeze: int | str | Sequence[str] | None = None,
        unfreeze_epoch: int | None = None,
        backbone_lr_factor: float = 1.0,
        layer_decay: float = 1.0,
        say: Callable[[str], None] = print,
    ) -> None:
        self.model = model
        self.unfreeze_epoch = unfreeze_epoch
        self.say = say
        rates = {"backbone_lr_factor": backbone_lr_factor, "layer_decay": layer_decay}
        self.groups = functools.partial(parameter_groups, **rates)  # no method: the module with it is copied
        self.groups(model)
        self.settings = {"freeze": freeze, **rates}
        self.frozen = {name: model.get_parameter(name) for name in _names_to_freeze(model, freeze)}
        self.unfrozen = False
        self._set_training(False)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse strategies that shard parameters.

        Raises:
            RecipeError: if something is to be unfrozen under one.
        """
        known = isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy)
        if self.frozen and self.unfreeze_epoch is not None and not known:
            name = type(trainer.strategy).__name__
            raise RecipeError(f"unfreeze_epoch works on one device and with strategy ddp; got {name}")

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.frozen and not self.unfrozen:
            self.say(self.describe())
            self._set_norms(False)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.frozen and not self.unfrozen:
            self._set_norms(False)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Unfreeze before the epoch's first batch; a run resumed there does not see the epoch's start."""
        due = self.unfreeze_epoch is not None and trainer.current_epoch >= self.unfreeze_epoch
        if due and self.frozen and not self.unfrozen:
            self._unfreeze(trainer)
            self.say(f"epoch {trainer.current_epoch + 1}: {len(self.frozen)} frozen tensors train from here on")

    def describe(self) -> str:
        """What is frozen now, by this and by the model itself, for people."""
        parameters = dict(self.model.named_parameters())
        still = {name: parameter for name, parameter in parameters.items() if not parameter.requires_grad}
        modules = list(_topmost(self.model, "", still))
        more = f", and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
        sizes = [sum(parameter.numel() for parameter in some.values()) for some in (still, parameters)]
        frozen, total = [f"{size / 1e6:.1f}" if sizes[1] >= 1e6 else f"{size}" for size in sizes]
        unit = "million parameters" if sizes[1] >= 1e6 else "parameters"
        until = "" if self.unfreeze_epoch is None else f" until epoch {self.unfreeze_epoch} is over"
        tensors = f"{len(still)} of {len(parameters)} tensors ({', '.join(modules[:SHOWN])}{more})"
        return f"frozen{until}: {tensors}, {frozen} of {total} {unit}"

    @override
    def state_dict(self) -> CheckpointState:
        return {"unfrozen": self.unfrozen} if self.frozen else {}

    @override
    def load_state_dict(self, state_dict: CheckpointState) -> None:
        """Known before the model is wrapped and the optimizer made."""
        self.unfrozen = state_dict["unfrozen"]
        self._set_training(self.unfrozen)

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: CheckpointState) -> None:
        """Compare with the run that goes on.

        Raises:
            RecipeError: if it was fine-tuned otherwise, as its optimizer would not fit.
        """
        recipe = checkpoint.get("detkit", {}).get("recipe", {})
        for key, value in self.settings.items():
            theirs = recipe.get(key, FIXED[key])
            if theirs != value:
                raise RecipeError(f"{key}={value}: the run that is resumed has {key}={theirs}; give it the same")

    def _set_training(self, on: bool) -> None:
        for parameter in self.frozen.values():
            parameter.requires_grad_(on)

    def _set_norms(self, on: bool) -> None:
        """Norms of which every parameter is frozen, or was; the modules may have been replaced since freezing."""
        own = {id(parameter) for parameter in self.frozen.values()}
        for module in self.model.modules():
            parameters = list(module.parameters(recurse=False))
            is_norm = isinstance(module, nn.modules.batchnorm._NormBase)  # noqa: SLF001
            if is_norm and parameters and all(id(parameter) in own for parameter in parameters):
                module.train(on)

    def _unfreeze(self, trainer: L.Trainer) -> None:
        """Everything trains: norms, optimizer, schedule and DDP learn of it; what was learnt so far stays."""
        self.unfrozen = True
        self._set_training(True)
        self._set_norms(True)
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy):
            _wrap_again(strategy)
        optimizers, schedulers = trainer.optimizers, trainer.lr_scheduler_configs
        strategy.setup_optimizers(trainer)
        for new, old in zip(trainer.optimizers, optimizers, strict=True):
            new.state.update(old.state)
        for new, old in zip(trainer.lr_scheduler_configs, schedulers, strict=True):
            go_on_at_step(new.scheduler, old.scheduler)


def _wrap_again(strategy: DDPStrategy) -> None:
    """A new DDP, as DDP averages the gradients of those parameters alone that trained when it was made."""
    assert isinstance(strategy.model, DistributedDataParallel), "training has begun"
    strategy.model = strategy.model.module
    gc.collect()  # the old one with its hooks, and with buckets as large as the gradients
    strategy.configure_ddp()


def _names_to_freeze(model: nn.Module, freeze: int | str | Sequence[str] | None) -> list[str]:
    """Parameters that train now and shall not; those that the model froze itself are left to it."""
    if freeze is None:
        return []
    if isinstance(freeze, int):
        names = _names_up_to(model, freeze)
    else:
        names = set().union(*(_found(model, pattern) for pattern in ([freeze] if isinstance(freeze, str) else freeze)))
    training = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if names.issuperset(training):
        raise RecipeError(f"freeze={freeze} leaves nothing to train")
    return [name for name in training if name in names]


def _names_up_to(model: nn.Module, last: int) -> set[str]:
    stages = stages_of(model, f"freeze={last}")
    if not 0 <= last < len(stages):
        listed = "; ".join(f"{number} {', '.join(stage.modules)}" for number, stage in enumerate(stages))
        raise RecipeError(f"freeze={last}: the backbone's stages are {listed}")
    return {name for stage in stages[: last + 1] for name in stage.parameters}


def _found(model: nn.Module, pattern: str) -> set[str]:
    """Names of parameters that are what the pattern says, or lie in it."""
    parameters = [name for name, _ in model.named_parameters()]
    found = {name for name in parameters if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
    if not found:
        known = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
        hint = did_you_mean(pattern.rstrip(".*"), [*known, *parameters], 3, list_all=False)
        hint = hint or f"; it has {', '.join(name for name in known if '.' not in name)}"
        raise RecipeError(f"freeze={pattern}: {type(model).__name__} has no parameter of such a name{hint}")
    return found


def _topmost(module: nn.Module, prefix: str, frozen: Collection[str]) -> Iterator[str]:
    """The largest modules that are frozen as a whole, and single parameters beside them."""
    names = [f"{prefix}{name}" for name, _ in module.named_parameters()]
    if names and all(name in frozen for name in names):
        yield prefix.removesuffix(".")
        return
    yield from (f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False) if f"{prefix}{name}" in frozen)
    for name, child in module.named_children():
        yield from _topmost(child, f"{prefix}{name}.", frozen)
