"""The plan of a run: its settings and the parts to build."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

from omegaconf import OmegaConf

PARTS = ("data", "model", "loss", "decode", "metrics", "optimizer", "scheduler", "checkpoint", "trainer")
Config = dict[str, Any]  # values of a recipe, or of one node in it: plain data
Override = tuple[str, Any]  # key and value

ABSENT = "-"
WORKING_DIRECTORY = "."  # as a trusted package: all packages in the working directory
# Packages whose classes a stored recipe may build.
TRUSTED = ("detkit", "torch.optim", "lightning.pytorch.trainer", "lightning.pytorch.callbacks")
# Further packages whose classes a recipe file may build.
LIBRARIES = (
    *("torch.nn", "torchvision.ops", "albumentations.augmentations", "albumentations.core", WORKING_DIRECTORY),
    *(f"lightning.pytorch.{name}" for name in ("loggers", "plugins", "profilers", "strategies", "accelerators")),
)


class Settings(NamedTuple):
    """The keys of a recipe for the whole run.

    Args:
        seed: seed of weights, order and augmentation; 0 to 2**32 - 1.
        wandb: auto: online if a key is found, else offline.
        resume: true: the latest run of this recipe; or a run's folder or checkpoint, whose recipe.yaml is used if no
            recipe is given. Changes that affect the result are refused.
        resume_allow_changes: resume although recipe or data have changed; the result differs from both.
        weights: initial weights: a run's folder or detector file, a .pth, .pt, .ckpt or .safetensors file of the
            model or its backbone, or the name of weights that torchvision or timm publish (DEFAULT).
        weights_except: patterns of names that are not loaded, such as head.* or a classifier's fc.*.
        freeze: parameters that are not trained: backbone; a number, for the backbone's stages up to it (0 is the
            stem); or a list of patterns of names, [backbone.layer1.*]. Frozen batch norms keep their statistics.
        unfreeze_epoch: first epoch, counted from 0, in which frozen parameters train; null: never.
        backbone_lr_factor: learning rate of the backbone, as a factor on the optimizer's.
        layer_decay: factor on the learning rate from each stage of the backbone to the one before it, 1 at the last.
        non_finite: reaction to a loss or gradients that are not finite: stop ends the run with code 70; skip skips
            the step on all devices. A report is written to non_finite/ in the run's folder.
        max_non_finite: largest number of skipped steps in a run.
        name: folder of the run in runs_dir; null: the recipe's name.
        runs_dir: folder of all runs.
    """

    seed: int = 0
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    resume: bool | str | None = None
    resume_allow_changes: bool = False
    weights: str | None = None
    weights_except: str | list[str] = []  # noqa: RUF012, never changed
    freeze: int | str | list[str] | None = None
    unfreeze_epoch: int | None = None
    backbone_lr_factor: float = 1.0
    layer_decay: float = 1.0
    non_finite: Literal["stop", "skip"] = "stop"
    max_non_finite: int = 100
    name: str | None = None
    runs_dir: str = "runs"


ALLOW_CHANGES = "resume.allow_changes"  # one key with a dot, because resume itself has a value
KEY_OF_FIELD = {"resume_allow_changes": ALLOW_CHANGES}  # fields of Settings whose key has another name


def default_settings() -> Config:
    """The keys for the whole run with their defaults."""
    return {KEY_OF_FIELD.get(field, field): value for field, value in Settings()._asdict().items()}


def setting_faults(settings: Config) -> Iterator[tuple[str, str]]:
    """(key, message) of values that have the right type but are out of range or without effect."""
    seed, epoch, freeze = settings["seed"], settings["unfreeze_epoch"], settings["freeze"]
    factor, decay = settings["backbone_lr_factor"], settings["layer_decay"]
    if settings[ALLOW_CHANGES] and settings["resume"] is None:
        yield ALLOW_CHANGES, "nothing is resumed; add resume=true, or the folder of a run"
    limit = settings["max_non_finite"]
    if isinstance(limit, int) and limit < 0:
        yield "max_non_finite", f"must be 0 or more; got {limit}"
    if isinstance(seed, int) and not 0 <= seed < 2**32:
        yield "seed", f"must be 0 to 2**32 - 1; got {seed}"
    if isinstance(epoch, int) and epoch < 0:
        yield "unfreeze_epoch", f"must be 0 or more; got {epoch}"
    if epoch is not None and (freeze is None or freeze == []):
        yield "unfreeze_epoch", "nothing is frozen; set freeze"
    if isinstance(factor, int | float) and not 0 < factor < float("inf"):
        yield "backbone_lr_factor", f"must be positive (freeze=backbone freezes); got {factor}"
    if isinstance(decay, int | float) and not 0 < decay <= 1:
        yield "layer_decay", f"must be above 0 and at most 1; got {decay}"


class Change(NamedTuple):
    """One changed value, and the file and line or the command line that sets it."""

    place: str
    before: object
    after: object
    source: str


class Plan(NamedTuple):
    """A recipe with its overrides for one run; plain data only.

    Args:
        name: name of the recipe.
        path: path of its file; None for a stored recipe.
        config: values of this run, with the ``demo`` overlay if it is applied.
        base: values of the file.
        overrides: (key, value) in the given order.
        lines: line of each place in the file.
        demo: the demo overlay if it is applied, because data.root is null; else empty.
        trusted: packages whose classes may be built; None: any.
    """

    name: str
    path: Path | None
    config: Config
    base: Config
    overrides: list[Override]
    lines: dict[str, int]
    demo: Config
    trusted: tuple[str, ...] | None

    def source(self, place: str) -> str:
        """Where the value of a place is set: the command line, the demo overlay or a line of the file."""
        if any(_covers(key, place) for key, _ in self.overrides):
            return "command line"
        for key in self.demo:
            if _covers(key, place):
                return f"{self._file()}, line {self.lines[f'demo.{key}']}, demo"
        while place not in self.lines and "." in place:
            place = place.rpartition(".")[0]
        return f"{self._file()}, line {self.lines[place]}" if place in self.lines else self._file()

    def changes(self) -> list[Change]:
        """The values that differ from the file, in the order of the file."""
        found = _diff("", self.base, self.config)
        return [Change(place, before, after, self.source(place)) for place, before, after in found]

    def changes_since(self, then: Config) -> list[Change]:
        """The values that differ from a stored config. Settings that it does not have count as their defaults."""
        found = _diff("", default_settings() | then, self.config)
        return [Change(place, before, after, self.source(place)) for place, before, after in found]

    @property
    def settings(self) -> Settings:
        """The keys for the whole run."""
        return Settings(**{field: self.config[KEY_OF_FIELD.get(field, field)] for field in Settings._fields})

    @property
    def named_packages(self) -> list[str]:
        """The trusted packages that the user named, for the command that resumes the run."""
        return named_by_user(self.trusted or ())

    @property
    def packages_of_detector(self) -> list[str]:
        """The packages to name with ``trusted=`` when the detector of this run is used.

        These are the packages that the user named and the packages of the recipe's classes. A recipe file may use
        classes of libraries and of the working directory, but a detector file may come from an unknown source.
        """
        named = self.named_packages
        for target in _targets({key: value for key, value in self.config.items() if key != "trainer"}):
            if not within(target, (*TRUSTED, *named)):
                top = target.partition(".")[0]
                named += [package for package in LIBRARIES if package.partition(".")[0] == top] or [top]
        return named

    def to_store(self) -> Config:
        """The config to store with a run; it is equal for a resumed run."""
        return {**self.config, "resume": None, ALLOW_CHANGES: False}

    def to_yaml(self) -> str:
        """The whole recipe of this run as YAML."""
        return OmegaConf.to_yaml(OmegaConf.create(self.to_store()))

    def _file(self) -> str:
        if self.path is None:
            return "stored recipe"
        return str(self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path)


def named_by_user(trusted: Iterable[str]) -> list[str]:
    """The trusted packages that the user named."""
    return [package for package in trusted if package and package not in (*TRUSTED, *LIBRARIES)]


def within(name: str, packages: Iterable[str]) -> bool:
    """Whether an import path is in one of these packages."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def is_node(value: object) -> TypeGuard[Config]:
    """Whether a value names a constructor."""
    return isinstance(value, dict) and "_target_" in value


def join(place: str, key: str | int) -> str:
    """The place of a key in a place; the place of the recipe itself is empty."""
    return f"{place}.{key}" if place else str(key)


def _covers(key: str, place: str) -> bool:
    key = key.removesuffix("+").removesuffix("._target_")
    return place == key or place.startswith(f"{key}.")


def _diff(place: str, before: object, after: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _diff(join(place, key), before.get(key, ABSENT), after.get(key, ABSENT))
    elif (
        isinstance(before, list)
        and isinstance(after, list)
        and len(before) == len(after)
        and any(isinstance(value, dict) for value in before)
    ):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _diff(join(place, number), old, new)
    elif type(before) is not type(after) or before != after:
        yield place, before, after


def _targets(value: object) -> Iterator[str]:
    """Every ``_target_`` in a value."""
    if is_node(value):
        yield value["_target_"]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _targets(item)
