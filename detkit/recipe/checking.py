"""Check a plan against the signatures of its constructors, without building them."""

import importlib
import importlib.util
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from detkit.errors import RecipeError, did_you_mean
from detkit.recipe.faults import Faults
from detkit.recipe.plan import PARTS, WORKING_DIRECTORY, Config, Plan, is_node, join, named_by_user, within
from detkit.recipe.signature import (
    NODE_KEYS,
    Constructor,
    Parameters,
    argument_faults,
    classes_of,
    no_such_argument,
    parameters_of,
)
from detkit.recipe.source_names import names_in_source


def check(plan: Plan) -> None:
    """Check every argument against the signature and the annotations of its constructor.

    Raises:
        RecipeError: with all faults, their places and the nearest valid words.
    """
    faults = Faults(plan.source)
    for part in PARTS:
        for place, message in faults_in(plan.config[part], part, plan.trusted):
            faults.add(place, message)
    faults.raise_if_any(f"recipe {plan.name}")


def check_names(plan: Plan) -> None:
    """Check the names of arguments against the source of their constructors, without slow imports.

    ``check`` finds the same faults and more.

    Raises:
        RecipeError: with all unknown arguments, their places and the nearest valid words.
    """
    faults = Faults(plan.source)
    for part in PARTS:
        for place, node in _nodes_in(plan.config[part], part):
            path = node["_target_"]
            name, known = (isinstance(path, str) and names_in_source(path)) or ("", frozenset(node))
            for key in node:
                if key not in known and key not in NODE_KEYS:
                    deeper = _place_within(key, node, place, _names_in_source)
                    faults.add(join(place, key), no_such_argument(name, key, known, deeper))
    faults.raise_if_any(f"recipe {plan.name}")


def _nodes_in(value: object, place: str) -> Iterator[tuple[str, Config]]:
    if is_node(value):
        yield place, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _nodes_in(item, join(place, key))


def locate(path: str, trusted: Sequence[str] | None = None) -> Constructor:
    """The class or function at an import path.

    Args:
        path: e.g. ``detkit.models.Detector``.
        trusted: the only packages that are imported. Their classes may be used, and functions of those that the user
            named. ``WORKING_DIRECTORY`` stands for all packages in the working directory. None: any package.

    Raises:
        RecipeError: if there is none, or it is not trusted. Errors in a user's module are not caught.
    """
    top = path.partition(".")[0]
    here = (top,) if trusted is not None and WORKING_DIRECTORY in trusted and _is_in_working_directory(top) else ()
    packages = (
        None if trusted is None else here or [package for package in trusted if package not in (WORKING_DIRECTORY, "")]
    )
    if packages is not None and not within(path, {package.partition(".")[0] for package in packages}):
        raise RecipeError(_untrusted(f"{path} is in no trusted package", packages))
    found = _walk(path, packages)
    if not callable(found):
        raise RecipeError(f"{path} is no class or function")
    if packages is not None and not _is_of(found, packages, here or named_by_user(packages)):
        raise RecipeError(_untrusted(f"{path} is no class of a trusted package", packages))
    return found


def _is_of(found: object, packages: Sequence[str], with_functions: Sequence[str]) -> bool:
    """Whether an object is a class of ``packages`` or a function of ``with_functions``."""
    own = with_functions if isinstance(found, FunctionType) else packages if isinstance(found, type) else ()
    return within(found.__module__ if isinstance(found, FunctionType | type) else "", own)


def _walk(path: str, packages: Sequence[str] | None) -> Any:
    """The object at an import path. Only modules in these packages and their parent packages are imported."""
    found: Any = None
    walked = ""
    for name in path.split("."):
        inner = f"{walked}.{name}" if walked else name
        if found is None or not hasattr(found, name):
            if packages is not None and not any(within(inner, (p,)) or within(p, (inner,)) for p in packages):
                raise RecipeError(_untrusted(f"{path} is in no trusted package", packages))
            try:
                found = importlib.import_module(inner)
            except ModuleNotFoundError as error:
                if error.name is None or not within(inner, (error.name,)):
                    raise  # an import in the user's module failed
                hint = did_you_mean(name, (key for key in dir(found) if not key.startswith("_"))) if walked else ""
                raise RecipeError(f"cannot import {path!r}: {walked or 'Python'} has no {name!r}{hint}") from None
        else:
            found = getattr(found, name)
        walked = inner
    return found


def _is_in_working_directory(package: str) -> bool:
    """Whether a package is in the working directory itself, or does not exist."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # the module was not imported from a file
        return False
    if spec is None:
        return True
    places = spec.submodule_search_locations or [spec.origin]
    files = (Path(place) for place in places if place)  # "frozen" and "built-in" are no absolute paths
    return any(file.is_absolute() and file.resolve().parent == Path.cwd() for file in files)


def _untrusted(what: str, packages: Collection[str]) -> str:
    return f"{what} ({', '.join(packages)}); other packages are named with trusted=PACKAGE"


def faults_in(value: object, place: str, trusted: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """(place, message) of every fault in a node, or in a list or map of nodes."""
    if is_node(value):
        yield from _node_faults(value, place, trusted)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from faults_in(item, join(place, key), trusted)


def _node_faults(node: Config, place: str, trusted: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    path, partial = node["_target_"], node.get("_partial_", False)
    if not isinstance(partial, bool):
        yield join(place, "_partial_"), f"must be true or false; got {partial!r}"
    if not isinstance(path, str) or not re.fullmatch(r"\w+(\.\w+)*", path):
        yield join(place, "_target_"), f"must be an import path; got {path!r}"
        return
    try:
        target = locate(path, trusted)
    except RecipeError as error:
        yield join(place, "_target_"), str(error)
        return
    given = {key: value for key, value in node.items() if key not in NODE_KEYS}
    if place == "model.head" and "num_classes" not in given and "num_classes" in (parameters_of(target) or {}):
        yield join(place, "num_classes"), "is missing; set it to null to use the number of the data"
        given["num_classes"] = 1
    if place.startswith("model.") and given.get("num_classes", ...) is None:
        given["num_classes"] = 1  # build sets the number of the data
    yield from argument_faults(
        target,
        given,
        place,
        given_later=bool(partial),
        deeper=lambda word: (
            _place_within(word, node, place, lambda inner: _parameters(inner, trusted))
            or _place_allowed(word, target, place)
        ),
    )


def _place_within(word: str, value: object, place: str, names_of: Callable[[Config], Collection[str]]) -> str | None:
    """The first place in a value at which a node's constructor has an argument with this name."""
    for inner_place, node in _nodes_in(value, place):
        if inner_place != place and word in names_of(node):
            return join(inner_place, word)
    return None


def _place_allowed(word: str, target: Constructor, place: str) -> str | None:
    """The same for the classes that the annotations of ``target``'s arguments allow."""
    for key, parameter in (parameters_of(target) or {}).items():
        if any(word in (parameters_of(option) or {}) for option in classes_of(parameter.annotation)):
            return join(join(place, key), word)
    return None


def _names_in_source(node: Config) -> frozenset[str]:
    path = node["_target_"]
    found = names_in_source(path) if isinstance(path, str) else None
    return found[1] if found else frozenset()


def _parameters(node: Config, trusted: Sequence[str] | None) -> Parameters:
    """The parameters of a node's constructor; empty if the constructor is not found."""
    try:
        return parameters_of(locate(node["_target_"], trusted)) or {}
    except RecipeError:  # reported at its own place
        return {}
