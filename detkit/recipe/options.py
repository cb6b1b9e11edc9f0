"""Options of a script: ``key=value`` read into a NamedTuple whose annotations say what each key takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from detkit.recipe.faults import Faults, nearest
from detkit.recipe.overrides import pairs_of
from detkit.recipe.read import NULLS

Options = TypeVar("Options", bound=NamedTuple)


class Between(NamedTuple):
    """The range of a number, for ``Annotated``; both ends belong to it."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        return f"from {self.least:g} {f'to {self.most:g}' if self.most < math.inf else 'on'}"


def read_options(cls: type[Options], argv: Sequence[str], examples: Mapping[str, str]) -> Options:
    """The options of a command line.

    The class says all else: fields without a default must be given, and an annotation is one of str, int, float, bool,
    Path, ``Literal``, ``Annotated`` of a number and ``Between``, ``tuple[X, ...]`` (separated by commas, in brackets
    or not), ``tuple[X, X]`` (a single one stands for both), or one of these with None (``null``).

    Args:
        cls: a NamedTuple class.
        argv: ``key=value``.
        examples: of the value of each key that must be given.

    Raises:
        RecipeError: with every key or value that does not fit.
    """
    options, _ = read_options_and_rest(cls, argv, examples, ())
    return options


def read_options_and_rest(
    cls: type[Options], argv: Sequence[str], examples: Mapping[str, str], prefixes: Sequence[str] = ("data.",)
) -> tuple[Options, list[tuple[str, Any]]]:
    """The options, and the keys and values that concern the recipe: others that begin with one of the prefixes.

    An empty prefix leaves all other keys to the recipe.

    Raises:
        RecipeError: with every key or value that does not fit; what the recipe makes of its own is not known here.
    """
    faults = Faults()
    texts: dict[str, str] = {}
    rest: list[str] = []
    for argument in argv:
        key, equals, text = argument.partition("=")
        if equals and key in cls._fields:
            texts[key] = text
        elif key.startswith(tuple(prefixes)):
            rest.append(argument)
        elif not equals:
            faults.add(argument, f"must have the form key=value, e.g. {_example(examples)}")
        else:
            faults.add(key, f"no such key{nearest(key, [*cls._fields, *(f'{prefix}*' for prefix in prefixes)])}")
    for key in cls._fields:
        if key not in cls._field_defaults and not texts.get(key):
            texts.pop(key, None)
            faults.add(key, f"is missing, e.g. {key}={examples[key]}")
    values = _values(texts, get_type_hints(cls, include_extras=True), faults)
    pairs = pairs_of(rest, faults)
    faults.raise_if_any("the arguments")
    make: Any = cls
    return make(**values), pairs


def _example(examples: Mapping[str, str]) -> str:
    *_, (key, value) = [("key", "value"), *examples.items()]
    return f"{key}={value}"


def _values(texts: Mapping[str, str], hints: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    values = {}
    for key, text in texts.items():
        try:
            values[key] = _read(text, hints[key])
        except ValueError as error:
            faults.add(key, str(error))
    return values


def _read(text: str, annotation: Any) -> Any:
    """A text as what the annotation says; ValueError: it is none."""
    return READERS[get_origin(annotation) or annotation](text, annotation)


def _number(text: str, annotation: Any) -> int | float:
    kind, limits = get_args(annotation) or (annotation, None)
    least, most = limits or (-math.inf, math.inf)
    try:
        number = kind(text.replace("_", "?"))  # Python would take 1_000
    except ValueError:
        number = math.nan
    if not (least <= number <= most and abs(number) < math.inf):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"must be {what}{f' {limits}' if limits else ''}; got {text!r}")
    return number


def _flag(text: str, _: Any) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"must be true or false; got {text!r}")
    return text == "true"


def _choice(text: str, annotation: Any) -> Any:
    choices = {str(choice): choice for choice in get_args(annotation)}
    if text not in choices:
        *most, last = choices
        raise ValueError(f"must be {', '.join(most)}{' or ' if most else ''}{last}; got {text!r}")
    return choices[text]


def _several(text: str, annotation: Any) -> tuple[Any, ...]:
    kind, *others = get_args(annotation)
    parts = list(filter(None, text.removeprefix("[").removesuffix("]").replace(" ", "").split(",")))
    if others != [...]:
        return _so_many(text, parts, [kind, *others])
    if get_origin(kind) is Literal:
        choices = list(map(str, get_args(kind)))
        if wrong := [part for part in parts if part not in choices]:
            raise ValueError(f"must be some of {','.join(choices)}; got {', '.join(map(repr, wrong))}")
    return tuple(dict.fromkeys(_read(part, kind) for part in parts))


def _so_many(text: str, parts: list[str], kinds: list[Any]) -> tuple[Any, ...]:
    if len(parts) == 1:
        parts *= len(kinds)
    if len(parts) != len(kinds):
        raise ValueError(f"must be {len(kinds)} values, or one that stands for all; got {text!r}")
    return tuple(map(_read, parts, kinds))


def _optional(text: str, annotation: Any) -> Any:
    [kind] = [kind for kind in get_args(annotation) if kind is not NoneType]
    return None if text in NULLS else _read(text, kind)


READERS: dict[Any, Callable[[str, Any], Any]] = {
    str: lambda text, _: text,
    Path: lambda text, _: Path(text).expanduser(),
    bool: _flag,
    int: _number,
    float: _number,
    Annotated: _number,
    Literal: _choice,
    tuple: _several,
    Union: _optional,
    UnionType: _optional,
}
