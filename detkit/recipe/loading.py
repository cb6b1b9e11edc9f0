"""Make a plan from a recipe file and the command line. No class is imported."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detkit.errors import RecipeError, did_you_mean, nearest_path
from detkit.recipe.faults import Faults
from detkit.recipe.overrides import apply, parse_overrides
from detkit.recipe.plan import (
    KEY_OF_FIELD,
    LIBRARIES,
    PARTS,
    TRUSTED,
    Config,
    Override,
    Plan,
    Settings,
    default_settings,
    is_node,
    join,
    setting_faults,
)
from detkit.recipe.read import plain_fault, read_file
from detkit.recipe.signature import argument_faults

IN_WHEEL, IN_CHECKOUT = (Path(__file__).parents[number] / "recipes" for number in (1, 2))
PACKAGED = IN_WHEEL if IN_WHEEL.is_dir() else IN_CHECKOUT  # the recipes of detkit
RUN_RECIPE = "recipe.yaml"  # in the folder of a run
INTERPOLATION = r"\$\{\w+(\.\w+)*\}"
TOP_KEYS = (*default_settings(), *PARTS)


def recipe_folders() -> list[Path]:
    """The folders of recipes: recipes/ in the working directory, then those of detkit."""
    return [folder for folder in dict.fromkeys((Path("recipes").resolve(), PACKAGED)) if folder.is_dir()]


def recipe_files() -> dict[str, Path]:
    """All recipes by name. Recipes in the working directory replace those of detkit with the same name."""
    found: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def load(argv: Sequence[str]) -> Plan:
    """A plan from the arguments ``recipe=NAME trusted=PACKAGE,... key.path=value ...`` in any order.

    Args:
        argv: the arguments; the last one of a repeated key is used.

    Raises:
        RecipeError: with all faults that are found without imports.
    """
    faults = Faults()
    pairs = parse_overrides(argv, faults)
    given = dict(pairs)
    trusted = [package for package in str(given.get("trusted") or "").split(",") if package]
    overrides = [pair for pair in pairs if pair[0] not in ("recipe", "trusted")]
    return _load(str(given.get("recipe") or ""), overrides, trusted, faults)


def load_recipe(name: str, overrides: Sequence[Override] = (), trusted: Sequence[str] = ()) -> Plan:
    """A recipe with some of its values replaced.

    Args:
        name: name of a file in one of the ``recipe_folders``, or path of a .yaml file; empty: the recipe of the run in
            the override "resume".
        overrides: (key, value) from ``parse_overrides``.
        trusted: packages whose classes the recipe may name, besides detkit's, ``LIBRARIES`` and the working directory.

    Raises:
        RecipeError: with all faults that are found without imports.
    """
    return _load(name, list(overrides), trusted, Faults())


def _load(name: str, overrides: list[Override], trusted: Sequence[str], faults: Faults) -> Plan:
    resume = dict(overrides).get("resume")
    run = resume if not name and isinstance(resume, str) else ""
    path = _recipe_of_run(run, faults) if run else _find(name, faults)
    text = read_file(path)
    for line, message in text.faults:
        faults.add(f"{path}, line {line}", message)
    demo = text.values.pop("demo", None) or {}
    if not isinstance(demo, dict):
        faults.add("demo", f"must map keys to values; got {demo!r} ({path}, line {text.lines['demo']})")
        demo = {}
    of_file = path.absolute().parent.parent.name if run else path.stem
    packages = (*TRUSTED, *LIBRARIES, *trusted)
    plan = Plan(of_file, path, text.values, text.values, overrides, text.lines, demo, packages)
    _check_keys(plan, faults)
    if text.faults:
        raise faults.error(f"recipe {plan.name}")
    return _resolved(plan, faults)


def from_dict(config: Config, overrides: Sequence[Override] = (), trusted: Sequence[str] = TRUSTED) -> Plan:
    """A plan from a stored recipe, e.g. in a checkpoint.

    Args:
        config: ``Plan.config`` of the run.
        overrides: (key, value) from ``parse_overrides``.
        trusted: packages whose classes may be built. A file from an unknown source must not name others.

    Raises:
        RecipeError: with all faults that are found without imports.
    """
    faults = Faults()
    if fault := plain_fault(config) if isinstance(config, dict) else "must contain keys and values":
        raise RecipeError(f"stored recipe: {fault}")
    plan = Plan(str(config.get("name") or "stored"), None, config, config, list(overrides), {}, {}, tuple(trusted))
    _check_keys(plan, faults)
    return _resolved(plan, faults)


def _recipe_of_run(resume: str, faults: Faults) -> Path:
    """The recipe file in the folder of a run."""
    path = Path(resume).expanduser()
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if (folder / RUN_RECIPE).is_file():
        return folder / RUN_RECIPE
    faults.add("resume", f"no {RUN_RECIPE} in {str(folder)!r}; give the folder of a run, or its recipe: recipe=NAME")
    raise faults.error("the arguments")


def _find(name: str, faults: Faults) -> Path:
    known, path = recipe_files(), Path(name).expanduser()
    if not name:
        faults.add("recipe", "is missing; give one, e.g. recipe=yolo_csp, or a run to resume, resume=FOLDER")
    elif name in known:
        return known[name]
    elif "/" not in name and not name.endswith((".yaml", ".yml")):
        folders = " or ".join(map(str, recipe_folders()))
        faults.add("recipe", f"no recipe {name!r} in {folders}{did_you_mean(name, known)}")
    elif path.is_file():
        return path
    else:
        faults.add("recipe", f"no file {str(path)!r}{nearest_path(path)}")
    raise faults.error("the arguments")


def _check_keys(plan: Plan, faults: Faults) -> None:
    """Check that a recipe has the first part of every key."""
    faults.source = plan.source
    for key in [*plan.base, *plan.demo, *(key for key, _ in plan.overrides)]:
        top = key.removesuffix("+").partition(".")[0]
        if top not in TOP_KEYS:
            inside = [place for place in plan.lines if place.endswith(f".{key}") and not place.startswith("demo.")]
            hint = f"; did you mean {inside[0]!r}?" if inside else did_you_mean(top, TOP_KEYS)
            faults.add(key, f"no key {top!r} at the top of a recipe{hint}")


def _resolved(plan: Plan, faults: Faults) -> Plan:
    """The plan with overlay, overrides and interpolated values, after all checks that need no import."""
    config = apply(plan.base, plan.overrides, faults)
    data = config.get("data")
    if not (isinstance(data, dict) and data.get("root", ...) is None):
        plan = plan._replace(demo={})
    faults.source = plan.source
    config = apply(apply(plan.base, plan.demo.items(), faults), plan.overrides, faults)
    config = _interpolated(default_settings() | config, faults)
    for part in PARTS:
        if not is_node(config.get(part)):
            faults.add(part, f"must name its constructor in _target_; got {config.get(part)!r}")
    settings = {field: config[KEY_OF_FIELD.get(field, field)] for field in Settings._fields}
    for field, message in argument_faults(Settings, settings, ""):
        faults.add(KEY_OF_FIELD.get(field, field), message)
    for place, message in setting_faults(config):
        faults.add(place, message)
    faults.raise_if_any(f"recipe {plan.name}")
    base = _interpolated(default_settings() | plan.base, Faults())
    return plan._replace(config=config, base=base)


def _interpolated(config: Config, faults: Faults) -> Config:
    """Replace ``${seed}`` by the value of seed. Only references to single values are allowed, and no resolvers."""
    found = len(faults.lines)
    texts = {place: text for place, text in _texts(config, "") if "${" in text}
    for place, text in texts.items():
        if not re.fullmatch(INTERPOLATION, text):
            faults.add(place, f"{text!r} must be ${{key.path}} without other text")
    if len(faults.lines) > found:
        return config
    tree = OmegaConf.create(config)
    for place, text in texts.items():
        try:
            target = OmegaConf.select(tree, text[2:-1], default=...)
            if target is ... or OmegaConf.is_config(target):
                faults.add(place, f"{text!r} must point to a single value of this recipe")
        except OmegaConfBaseException as error:
            faults.add(place, f"{text!r}: {str(error).splitlines()[0]}")
    return config if len(faults.lines) > found else OmegaConf.to_container(tree, resolve=True)  # type: ignore[return-value]


def _texts(value: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _texts(item, join(place, key))
