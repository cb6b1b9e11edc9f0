"""Fine-tuning: frozen parameters, the epoch that unfreezes them, and learning rates of the backbone."""

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
from detkit.training.optim.schedules import continue_at_step
from detkit.training.optim.stages import stages_of

SHOWN = 10
DEFAULTS = {"freeze": None, "backbone_lr_factor": 1.0, "layer_decay": 1.0}  # a resumed run must have equal values


class FineTuning(L.Callback):
    """Freeze parameters from the start, train them from an epoch on, and give the backbone its own learning rates.

    Frozen parameters have no gradient and are in no optimizer. A batch norm whose parameters are all frozen also keeps
    its statistics. The frozen parameters change between two batches only, and a checkpoint stores whether they were
    unfrozen, so a resumed run builds its optimizer and DDP with the right parameters.

    # Note [not Lightning's BaseFinetuning]
    BaseFinetuning appends groups to the optimizer. The scheduler has no learning rate for them and raises, and DDP
    does not average gradients of parameters that were frozen when DDP was made. Here optimizer, scheduler and DDP are
    made again.

    Args:
        model: its parameters are frozen by the constructor.
        freeze: number of the last frozen stage of the backbone, or patterns of names of modules or parameters.
        unfreeze_epoch: first epoch, counted from 0, in which all parameters train; None: never.
        backbone_lr_factor: learning rate of the backbone, as a factor on the optimizer's.
        layer_decay: a further factor from each stage of the backbone to the one before it.
        print_line: prints a line.

    Attributes:
        groups: model to groups of its trainable parameters, for an optimizer.

    Raises:
        RecipeError: if a pattern matches nothing, no parameter is left to train, or a backbone is needed and missing.
    """

    def __init__(
        self,
        model: nn.Module,
        freeze: int | str | Sequence[str] | None = None,
        unfreeze_epoch: int | None = None,
        backbone_lr_factor: float = 1.0,
        layer_decay: float = 1.0,
        print_line: Callable[[str], None] = print,
    ) -> None:
        self.model = model
        self.unfreeze_epoch = unfreeze_epoch
        self.print_line = print_line
        rates = {"backbone_lr_factor": backbone_lr_factor, "layer_decay": layer_decay}
        # No method, because EMA copies the module that has it.
        self.groups = functools.partial(parameter_groups, **rates)
        self.groups(model)
        self.settings = {"freeze": freeze, **rates}
        self.frozen = {name: model.get_parameter(name) for name in _names_to_freeze(model, freeze)}
        self.unfrozen = False
        self._set_training(False)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the strategy.

        Raises:
            RecipeError: if the strategy shards parameters and ``unfreeze_epoch`` is set.
        """
        known = isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy)
        if self.frozen and self.unfreeze_epoch is not None and not known:
            name = type(trainer.strategy).__name__
            raise RecipeError(f"unfreeze_epoch works on one device and with strategy ddp; got {name}")

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.frozen and not self.unfrozen:
            self.print_line(self.describe())
            self._set_norms(False)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.frozen and not self.unfrozen:
            self._set_norms(False)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Unfreeze before the first batch of an epoch, because a resumed run may skip ``on_train_epoch_start``."""
        due = self.unfreeze_epoch is not None and trainer.current_epoch >= self.unfreeze_epoch
        if due and self.frozen and not self.unfrozen:
            self._unfreeze(trainer)
            self.print_line(
                f"epoch {trainer.current_epoch + 1}: {len(self.frozen)} frozen tensors are trained from now on"
            )

    def describe(self) -> str:
        """One line about all frozen parameters, including those that the model froze itself."""
        parameters = dict(self.model.named_parameters())
        now_frozen = {name: parameter for name, parameter in parameters.items() if not parameter.requires_grad}
        modules = list(_largest_frozen(self.model, "", now_frozen))
        more = f", and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
        sizes = [sum(parameter.numel() for parameter in some.values()) for some in (now_frozen, parameters)]
        frozen, total = [f"{size / 1e6:.1f}" if sizes[1] >= 1e6 else f"{size}" for size in sizes]
        unit = "million parameters" if sizes[1] >= 1e6 else "parameters"
        until = "" if self.unfreeze_epoch is None else f" until epoch {self.unfreeze_epoch} is over"
        tensors = f"{len(now_frozen)} of {len(parameters)} tensors ({', '.join(modules[:SHOWN])}{more})"
        return f"frozen{until}: {tensors}, {frozen} of {total} {unit}"

    @override
    def state_dict(self) -> CheckpointState:
        return {"unfrozen": self.unfrozen} if self.frozen else {}

    @override
    def load_state_dict(self, state_dict: CheckpointState) -> None:
        """Lightning calls this before it wraps the model and makes the optimizer."""
        self.unfrozen = state_dict["unfrozen"]
        self._set_training(self.unfrozen)

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: CheckpointState) -> None:
        """Compare with the run that is resumed.

        Raises:
            RecipeError: if its settings of fine-tuning differ, because the state of its optimizer would not fit.
        """
        recipe = checkpoint.get("detkit", {}).get("recipe", {})
        for key, value in self.settings.items():
            stored = recipe.get(key, DEFAULTS[key])
            if stored != value:
                raise RecipeError(f"{key}={value}: the run that is resumed has {key}={stored}; set the same value")

    def _set_training(self, on: bool) -> None:
        for parameter in self.frozen.values():
            parameter.requires_grad_(on)

    def _set_norms(self, on: bool) -> None:
        """Set the mode of norms whose parameters are all in ``frozen``. Modules may have been replaced since then."""
        own = {id(parameter) for parameter in self.frozen.values()}
        for module in self.model.modules():
            parameters = list(module.parameters(recurse=False))
            is_norm = isinstance(module, nn.modules.batchnorm._NormBase)  # noqa: SLF001
            if is_norm and parameters and all(id(parameter) in own for parameter in parameters):
                module.train(on)

    def _unfreeze(self, trainer: L.Trainer) -> None:
        """Train all parameters: make DDP, optimizer and scheduler again and keep the state of the old ones."""
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
            continue_at_step(new.scheduler, old.scheduler)


def _wrap_again(strategy: DDPStrategy) -> None:
    """Make DDP again, because it averages only gradients of parameters that were trainable when it was made."""
    assert isinstance(strategy.model, DistributedDataParallel), "training has begun"
    strategy.model = strategy.model.module
    gc.collect()  # frees the old DDP with its hooks and gradient buckets
    strategy.configure_ddp()


def _names_to_freeze(model: nn.Module, freeze: int | str | Sequence[str] | None) -> list[str]:
    """The trainable parameters to freeze; parameters that the model froze itself are not among them."""
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
    """Names of parameters that match a pattern, or are in a module that matches."""
    parameters = [name for name, _ in model.named_parameters()]
    found = {name for name in parameters if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
    if not found:
        known = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
        hint = did_you_mean(pattern.rstrip(".*"), [*known, *parameters], 3, list_all=False)
        hint = hint or f"; it has {', '.join(name for name in known if '.' not in name)}"
        raise RecipeError(f"freeze={pattern}: {type(model).__name__} has no parameter of this name{hint}")
    return found


def _largest_frozen(module: nn.Module, prefix: str, frozen: Collection[str]) -> Iterator[str]:
    """The largest modules that are completely frozen, and single frozen parameters outside of them."""
    names = [f"{prefix}{name}" for name, _ in module.named_parameters()]
    if names and all(name in frozen for name in names):
        yield prefix.removesuffix(".")
        return
    yield from (f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False) if f"{prefix}{name}" in frozen)
    for name, child in module.named_children():
        yield from _largest_frozen(child, f"{prefix}{name}.", frozen)
