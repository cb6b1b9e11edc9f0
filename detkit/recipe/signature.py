"""Check values against the signature of a constructor."""

import inspect
import re
import types
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from detkit.errors import did_you_mean
from detkit.recipe.plan import Config, is_node, join

NODE_KEYS = ("_target_", "_partial_")
SCALARS = {
    int: (int,),
    float: (float, int),
    str: (str,),
    bool: (bool,),
    Path: (str,),
    None: (types.NoneType,),
    types.NoneType: (types.NoneType,),
}
SEQUENCES = (list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection)
MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
UNCHECKED = (Any, object, Annotated, inspect.Parameter.empty)

Parameters = dict[str, inspect.Parameter]
Constructor = Callable[..., Any]  # a class or a function that a recipe names
Annotation = Any  # a type hint: a class, a Literal, a union, list[int], ...


def parameters_of(target: Constructor) -> Parameters | None:
    """The parameters that can be passed by name; None if they are unknown or any name is accepted."""
    try:
        parameters = _signature(target).parameters.values()
    except ValueError:  # a builtin without signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def classes_with_bases(target: Constructor) -> tuple[Constructor, ...]:
    """A class and its base classes; for a function only the function."""
    return target.__mro__ if isinstance(target, type) else (target,)


def argument_faults(
    target: Constructor,
    given: Config,
    place: str,
    given_later: bool = False,
    deeper: Callable[[str], str | None] | None = None,
) -> Iterator[tuple[str, str]]:
    """(place, message) of every argument that the constructor would refuse.

    Args:
        target: the constructor.
        given: its arguments; nodes among them are not built yet.
        place: place of the node in the recipe.
        given_later: whether missing arguments are passed in a later call.
        deeper: name of an argument to a place in this node that has such an argument, or None.
    """
    parameters = parameters_of(target)
    if parameters is None:
        return
    name = getattr(target, "__qualname__", repr(target))
    for key, value in given.items():
        if key not in parameters:
            yield join(place, key), no_such_argument(name, key, parameters, deeper(key) if deeper else None)
        elif not fits(value, parameters[key].annotation):
            yield join(place, key), _type_message(key, value, parameters[key].annotation)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in given and not given_later:
            yield (
                join(place, key),
                f"is missing, {name} needs it; set it, or write _partial_: true to pass it later",
            )


def no_such_argument(name: str, key: str, known: Iterable[str], deeper: str | None = None) -> str:
    """The message about an unknown argument; ``deeper`` is a place that has an argument of this name."""
    return f"{name} has no argument {key!r}" + (f"; did you mean {deeper!r}?" if deeper else did_you_mean(key, known))


def fits(value: object, annotation: Annotation) -> bool:
    """Whether a recipe's value matches an annotation; true for unknown kinds of annotations."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(argument) and value == argument for argument in arguments)
    kind = origin or annotation
    if kind in SCALARS:
        return type(value) in SCALARS[kind]
    if is_node(value) or kind in UNCHECKED or not isinstance(kind, type):
        return True
    return _collection_fits(value, kind, arguments)


def _collection_fits(value: object, kind: type, arguments: tuple[Annotation, ...]) -> bool:
    if isinstance(value, dict):
        return kind in MAPPINGS and all(fits(item, argument) for item in value.values() for argument in arguments[1:])
    if isinstance(value, list) and kind is tuple and arguments and arguments[-1] is not ...:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return (
        isinstance(value, list) and kind in SEQUENCES and all(fits(item, arguments[0]) for item in value if arguments)
    )


def as_annotated(value: object, annotation: Annotation) -> object:
    """A list as a tuple if the annotation allows a tuple and no list, because YAML has no tuples."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    kinds = {get_origin(option) or option for option in (get_args(annotation) if is_union else (annotation,))}
    return tuple(value) if isinstance(value, list) and tuple in kinds and list not in kinds else value


def classes_of(annotation: Annotation) -> list[type]:
    """The classes that an annotation allows, without None."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [option for option in options if isinstance(option, type) and option is not types.NoneType]


def _type_message(key: str, value: object, annotation: Annotation) -> str:
    wanted = re.sub(r"\b[a-z_]\w*\.(?=\w)", "", inspect.formatannotation(annotation))
    remedy = ""
    if fits("", annotation) and type(value) in (int, float, bool):
        remedy = "; put it in quotes to make it text"
    elif isinstance(value, str) and "." in value and fits({"_target_": value}, annotation):
        remedy = f"; write {key}._target_={value} to build one"
    return f"must be {wanted}; got {value!r}{remedy}"


def _signature(target: Constructor) -> inspect.Signature:
    try:
        return inspect.signature(target, eval_str=True)
    except NameError:  # an annotation has a name that is imported for type checkers only
        return inspect.signature(target)
