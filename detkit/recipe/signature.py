"""Values held against a constructor's signature, before it is called."""

import inspect
import re
import types
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from detkit.errors import did_you_mean
from detkit.recipe.plan import Config, is_node, join

SPECIAL = ("_target_", "_partial_")
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
OPEN = (Any, object, Annotated, inspect.Parameter.empty)

Parameters = dict[str, inspect.Parameter]
Constructor = Callable[..., Any]  # a class or a function that a recipe names
Annotation = Any  # a type hint: a class, a Literal, a union, list[int], ...


def parameters_of(target: Constructor) -> Parameters | None:
    """The parameters that can be named in a call; None where Python does not know them, or any name goes."""
    try:
        parameters = _signature(target).parameters.values()
    except ValueError:  # a builtin without signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def classes_with_bases(target: Constructor) -> tuple[Constructor, ...]:
    """A class and the classes that it inherits from; of a function that function alone."""
    return target.__mro__ if isinstance(target, type) else (target,)


def argument_faults(
    target: Constructor,
    given: Config,
    place: str,
    given_later: bool = False,
    deeper: Callable[[str], str | None] | None = None,
) -> Iterator[tuple[str, str]]:
    """(place, message) of what the constructor would not take.

    Args:
        target: the constructor.
        given: its arguments; nodes among them are not built yet.
        place: of the node in the recipe.
        given_later: whether missing arguments follow at a later call.
        deeper: gives the place inside this one where a word is an argument, if there is one.
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
            yield join(place, key), f"is missing, {name} needs it; give it, or write _partial_: true if it comes later"


def no_such_argument(name: str, key: str, known: Iterable[str], deeper: str | None = None) -> str:
    """The message about an argument that a constructor does not have; ``deeper`` is a place that has it."""
    return f"{name} has no argument {key!r}" + (f"; did you mean {deeper!r}?" if deeper else did_you_mean(key, known))


def fits(value: object, annotation: Annotation) -> bool:
    """Whether a recipe's value can be what the annotation says; yes for annotations it does not know."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(argument) and value == argument for argument in arguments)
    kind = origin or annotation
    if kind in SCALARS:
        return type(value) in SCALARS[kind]
    if is_node(value) or kind in OPEN or not isinstance(kind, type):
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
    """YAML has no tuples: a list becomes one where the annotation says tuple and not list."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    kinds = {get_origin(option) or option for option in (get_args(annotation) if is_union else (annotation,))}
    return tuple(value) if isinstance(value, list) and tuple in kinds and list not in kinds else value


def classes_of(annotation: Annotation) -> list[type]:
    """The classes that an annotation allows, e.g. both of ``First | Second | None`` but None."""
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
    except NameError:  # a name that exists for type checkers only: arguments are checked, types are not
        return inspect.signature(target)
