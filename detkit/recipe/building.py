"""Build the objects of a run from a checked plan."""

import functools
import linecache
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from detkit.errors import RecipeError
from detkit.recipe.checking import check, faults_in, locate
from detkit.recipe.faults import Faults
from detkit.recipe.loading import TRUSTED, from_dict
from detkit.recipe.plan import PARTS, Config, Plan, is_node, join
from detkit.recipe.signature import NODE_KEYS, Constructor, as_annotated, classes_with_bases, parameters_of

Part = Any  # an object built by a constructor from the recipe; training.Parts has the interfaces


class BuiltParts(NamedTuple):
    """The objects of a recipe. Metrics, optimizer, scheduler and trainer are partial, for their last arguments.

    In ``plan`` every ``num_classes`` of the model is set.
    """

    plan: Plan
    data: Part
    model: Part
    loss: Part
    decode: Part
    metrics: Part
    optimizer: Part
    scheduler: Part
    checkpoint: Part
    trainer: Part


class Partial(functools.partial):
    """A constructor with some of its arguments; its errors name its place in the recipe."""

    place: str

    def __call__(self, *args: object, **kwargs: object) -> Part:
        return _call(self.func, self.place, *self.args, *args, **{**self.keywords, **kwargs})


def build(plan: Plan, **ready: Part) -> BuiltParts:
    """Build all parts; the data first, because it has the classes.

    Args:
        plan: a checked plan.
        ready: objects that replace parts of the plan, by name, e.g. a trained model.

    Raises:
        RecipeError: if a constructor refuses a value.
        DataError: if the data cannot be used.
    """
    config = plan.config
    data = _build(config["data"], "data", plan.trusted)
    data.prepare()
    plan = plan._replace(config={**config, "model": _with_classes(config["model"], len(data.class_names))})
    _require_classes_of_data(plan, len(data.class_names))
    _seed(plan)
    missing = [part for part in PARTS if part != "data" and part not in ready]
    return BuiltParts(plan, data, **ready, **{part: _build(plan.config[part], part, plan.trusted) for part in missing})


def build_model(plan: Plan, num_classes: int) -> Part:
    """Build only the model of a plan, with the same initial weights as by ``build``; no data is read.

    Args:
        plan: plan of a recipe.
        num_classes: value for every ``num_classes`` of the model that is null.

    Raises:
        RecipeError: with all faults that ``check`` finds, or if a constructor refuses a value.
    """
    check(plan)
    _seed(plan)
    return _build(_with_classes(plan.config["model"], num_classes), "model", plan.trusted)


def image_hw_of(plan: Plan) -> tuple[int, int]:
    """(height, width) of a recipe's images, from its data or the default of its data class.

    Raises:
        RecipeError: if there is no such size.
    """
    size_hw = _of_data(plan, "image_hw")
    if not isinstance(size_hw, list | tuple) or len(size_hw) != 2:
        raise RecipeError(f"data.image_hw: must be given as [height, width]; got {plan.config['data'].get('image_hw')}")
    return size_hw[0], size_hw[1]


def resize_of(plan: Plan) -> Literal["letterbox", "squash"]:
    """How a recipe's images are resized, from its data or the default of its data class; else letterbox."""
    return _of_data(plan, "resize") or "letterbox"


def without_demo(plan: Plan) -> Plan:
    """The plan without the demo overlay, for the user's own data."""
    if not plan.demo:
        return plan
    config = from_dict(plan.base, plan.overrides).config
    return plan._replace(config=config, demo={})


def instantiate(node: Config, *, trusted: Sequence[str] | None = TRUSTED, **kwargs: object) -> Part:
    """Build one node and all nodes in it, e.g. the model of a stored recipe.

    Args:
        node: a node with ``_target_``.
        trusted: packages whose classes may be built; None: any.
        kwargs: further arguments, which replace those of the node.

    Raises:
        RecipeError: if a class is not found or not trusted, or refuses a value.
    """
    faults = Faults()
    for place, message in faults_in({**node, "_partial_": True}, "", trusted):
        faults.add(place, message)
    faults.raise_if_any(str(node["_target_"]))
    return _build({**node, **kwargs}, "", trusted)


def _of_data(plan: Plan, name: str) -> Any:
    """An argument of the data or its default; None if there is neither."""
    node = plan.config["data"]
    if name in node:
        return node[name]
    parameter = (parameters_of(locate(node["_target_"], plan.trusted)) or {}).get(name)
    return parameter.default if parameter else None


def _seed(plan: Plan) -> None:
    from lightning import seed_everything  # imported here because it takes seconds

    seed_everything(plan.config["seed"], workers=True, verbose=False)


def _build(value: object, place: str, trusted: Sequence[str] | None) -> Part:
    if isinstance(value, list):
        return [_build(item, join(place, number), trusted) for number, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    built = {key: _build(item, join(place, key), trusted) for key, item in value.items() if key not in NODE_KEYS}
    if not is_node(value):
        return built
    target = locate(value["_target_"], trusted)
    parameters = parameters_of(target) or {}
    for key in built.keys() & parameters.keys():
        built[key] = as_annotated(built[key], parameters[key].annotation)
    if not value.get("_partial_", False):
        return _call(target, place, **built)
    partial = Partial(target, **built)
    partial.place = place
    return partial


def _call(target: Constructor, place: str, /, *args: object, **kwargs: object) -> Part:
    try:
        return target(*args, **kwargs)
    except _refusals() as error:
        if isinstance(error, ValueError) and not _raised_by(error, target):
            raise  # from another module: a bug, which keeps its traceback
        raise RecipeError(f"{place or target.__qualname__}: {error}") from error


def _refusals() -> tuple[type[Exception], ...]:
    """The exceptions by which a constructor refuses a value; only evaluated after an exception."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    return ValueError, MisconfigurationException


def _raised_by(error: ValueError, target: Constructor) -> bool:
    """Whether the module of the constructor or of a base class raised an error, or a ``raise`` line in its folder."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    modules = {base.__module__ for base in classes_with_bases(target)}
    folders = {module.rpartition(".")[0] for module in modules} - {""}
    raised_in = trace.tb_frame.f_globals.get("__name__", "")
    on_purpose = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).lstrip().startswith("raise ")
    return raised_in in modules or (on_purpose and raised_in.rpartition(".")[0] in folders)


def _require_classes_of_data(plan: Plan, num_classes: int) -> None:
    """Compare ``num_classes`` in a recipe file with the data. For a stored recipe the class names are compared."""
    head = plan.config["model"].get("head")
    given = head.get("num_classes", num_classes) if isinstance(head, dict) else num_classes
    if plan.path is not None and given != num_classes:
        place = "model.head.num_classes"
        raise RecipeError(
            f"{place}: must be {num_classes}, the number of classes of the data; got {given} ({plan.source(place)}); "
            "set it to null to use the number of the data"
        )


def _with_classes(value: object, num_classes: int) -> Any:
    if isinstance(value, dict):
        filled = {key: _with_classes(item, num_classes) for key, item in value.items()}
        return filled | {"num_classes": num_classes} if value.get("num_classes", ...) is None else filled
    return [_with_classes(item, num_classes) for item in value] if isinstance(value, list) else value
