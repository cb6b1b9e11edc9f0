"""The settings of a run as typed fields, so that no module of training reads a recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypedDict, get_args

from detkit.checkpoint import PlainData

WandbMode = Literal["auto", "online", "offline", "disabled"]
NonFinitePolicy = Literal["stop", "skip"]
OnFailure = Literal["stop", "continue"]


class RecipeChange(Protocol):
    """One value of a recipe that differs between two runs."""

    @property
    def place(self) -> str: ...  # e.g. data.image_hw
    @property
    def before(self) -> object: ...
    @property
    def after(self) -> object: ...
    @property
    def source(self) -> str: ...  # where this run's value is set: the command line, or a line of a file


class FineTuningSettings(NamedTuple):
    """Which parameters train, and how fast; ``FineTuning`` explains the fields."""

    freeze: int | str | Sequence[str] | None = None
    unfreeze_epoch: int | None = None
    backbone_lr_factor: float = 1.0
    layer_decay: float = 1.0


class RunSettings(NamedTuple):
    """The settings of one run, and the recipe that is stored with it."""

    name: str  # the run's folder is in runs_dir/name/
    runs_dir: Path
    seed: int
    wandb: WandbMode
    resume: bool | str | None  # True: the latest run of this name; text: path of a run or checkpoint; None: a new run
    allow_changes: bool  # resume although the recipe or the data has changed
    weights: str | None  # source of the initial weights
    weights_except: str | Sequence[str]  # patterns of names that are not loaded
    fine_tuning: FineTuningSettings
    non_finite: NonFinitePolicy
    max_non_finite: int  # largest number of skipped steps
    image_hw: tuple[int, int]  # of the network input
    data_root: str | None  # as in the recipe, for the commands that a run suggests
    trusted: Sequence[str]  # packages that the user trusts, for the command that resumes the run
    trusted_by_detector: Sequence[str]  # packages of the detector's classes, for the commands that use the detector
    recipe_name: str
    recipe_file: Path | None
    recipe: PlainData  # as stored in checkpoints and detector files
    recipe_yaml: str  # the recipe as text
    changes_since: Callable[[PlainData], Sequence[RecipeChange]]  # stored recipe to the values that this run changes


@dataclass(frozen=True)
class CheckpointSettings:
    """When training checkpoints are saved, and the reaction to a failed save.

    Args:
        every_n_steps: optimizer steps between saves within an epoch; null: at the end of epochs only.
        every_minutes: also save at the first step after this time without a save; null: never.
        keep: number of latest checkpoints that are kept; the best one is kept as well.
        monitor: the number that selects the best epoch; higher is better.
        on_failure: reaction if a file cannot be written: stop ends the run with exit code 74; continue logs a warning
            and tries again at the next save. Earlier files are kept in both cases.

    Raises:
        ValueError: if a value is out of its range.
    """

    every_n_steps: int | None = None
    every_minutes: float | None = None
    keep: int = 2
    monitor: str = "val/AP"
    on_failure: OnFailure = "stop"

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise ValueError(
                f"keep must be at least 2, so that one checkpoint is complete while another is written; got {self.keep}"
            )
        if self.every_n_steps is not None and self.every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, or null; got {self.every_n_steps}")
        if self.every_minutes is not None and not self.every_minutes > 0:
            raise ValueError(f"every_minutes must be above 0, or null; got {self.every_minutes}")
        if self.on_failure not in get_args(OnFailure):
            raise ValueError(f"on_failure must be one of {', '.join(get_args(OnFailure))}; got {self.on_failure}")


class RunMetadata(TypedDict):
    """The metadata of a detector file, from which the detector is rebuilt."""

    recipe: PlainData
    class_names: list[str]
    category_ids: list[int]  # id of each class in the data set
    image_hw: list[int]
    data_fingerprint: str
    detkit_version: str
