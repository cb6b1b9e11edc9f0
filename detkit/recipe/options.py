"""Options of a command: read ``key=value`` arguments into a dataclass, by the annotations of its fields."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import has_magic
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from detkit.errors import DetkitError, did_you_mean, nearest_path
from detkit.recipe.faults import Faults
from detkit.recipe.overrides import parse_overrides
from detkit.recipe.plan import Override
from detkit.recipe.read import NULLS
from detkit.recipe.signature import Annotation

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OptionsT = TypeVar("OptionsT", bound="DataclassInstance")


class Between(NamedTuple):
    """The range of a number for ``Annotated``, including both ends."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        return f"from {self.least:g} {f'to {self.most:g}' if self.most < math.inf else 'on'}"


class Option(NamedTuple):
    """One key of a command.

    Args:
        key: the key on the command line; ``outer.inner`` for a field of an inner dataclass.
        owner: dataclass of the field, whose docstring explains it.
        annotation: type of the value.
        default: default value; ``dataclasses.MISSING`` if a value must be given.
        example: a value for error messages, from the metadata of the field; empty: none.
        error_if_missing: raised if the path in the value does not exist; None: the path is not checked.
    """

    key: str
    owner: "type[DataclassInstance]"
    annotation: Annotation
    default: object
    example: str
    error_if_missing: type[DetkitError] | None

    @property
    def is_needed(self) -> bool:
        """Whether a value must be given."""
        return self.default is dataclasses.MISSING


def options_of(cls: "type[DataclassInstance]", prefix: str = "") -> Iterator[Option]:
    """All keys of a dataclass of options, in the order of its fields."""
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        key, annotation = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(annotation):
            yield from options_of(annotation, f"{key}.")  # type: ignore[arg-type]
        else:
            metadata = field.metadata
            yield Option(key, cls, annotation, field.default, metadata.get("example", ""), metadata.get("exists"))


def read_options(
    cls: type[OptionsT], argv: Sequence[str], prefixes: Sequence[str] = ()
) -> tuple[OptionsT, list[Override]]:
    """The options of a command line, and the keys and values of the recipe.

    ``key=value`` sets a value, ``key+=value`` appends to a list, and ``key`` or ``--key`` alone sets a boolean to true.
    The annotation of a field is str, int, float, bool, Path, ``Literal``, ``Annotated`` of a number and ``Between``,
    ``tuple[X, ...]`` (separated by commas, brackets are optional), ``tuple[X, X]`` (one value is used for both), one of
    these or None (``null``), or a dataclass of such fields.

    Args:
        cls: a dataclass; fields without a default must be given.
        argv: the arguments.
        prefixes: prefixes of keys of the recipe, e.g. ``data.``; an empty prefix accepts all other keys.

    Raises:
        RecipeError: with all keys and values that are not valid. Keys of the recipe are not checked.
        DetkitError: if a path that must exist is missing; its class is that of the option.
    """
    known = {option.key: option for option in options_of(cls)}
    faults = Faults()
    texts, appended, rest = _sorted_arguments(known, argv, prefixes, faults)
    for key, option in known.items():
        if option.is_needed and not texts.get(key):
            texts.pop(key, None)
            faults.add(key, f"is missing, e.g. {key}={option.example}")
    values = _values(known, texts, appended, faults)
    pairs = parse_overrides(rest, faults)
    faults.raise_if_any("the arguments")
    for key, value in values.items():
        _require_existing(known[key], value)
    return _instance_of(cls, values), pairs


def describe(annotation: Annotation) -> str:
    """The values that an annotation allows besides null, as text after "must be"."""
    return WORDS[get_origin(annotation) or annotation](annotation)


def _sorted_arguments(
    known: Mapping[str, Option], argv: Sequence[str], prefixes: Sequence[str], faults: Faults
) -> tuple[dict[str, str], list[tuple[str, str]], list[str]]:
    """Texts that set an option, (key, text) pairs that append to one, and the arguments of the recipe."""
    examples = [f"{option.key}={option.example}" for option in known.values() if option.example]
    texts: dict[str, str] = {}
    appended: list[tuple[str, str]] = []
    rest: list[str] = []
    for argument in argv:
        key, equals, text = argument.partition("=")
        name = key.removeprefix("--")
        if not equals and name in known and known[name].annotation is bool:
            texts[name] = "true"
        elif equals and key in known:
            texts[key] = text
            appended = [item for item in appended if item[0] != key]
        elif equals and key.removesuffix("+") in known:
            appended.append((key.removesuffix("+"), text))
        elif key.startswith(tuple(prefixes)):
            rest.append(argument)
        elif not equals:
            faults.add(argument, f"must have the form key=value, e.g. {['key=value', *examples][-1]}")
        else:
            faults.add(key, f"no such key{did_you_mean(key, [*known, *(f'{prefix}*' for prefix in prefixes)])}")
    return texts, appended, rest


def _values(
    known: Mapping[str, Option], texts: Mapping[str, str], appended: Sequence[tuple[str, str]], faults: Faults
) -> dict[str, Any]:
    values = {}
    for key, text, appends in [*((*item, False) for item in texts.items()), *((*item, True) for item in appended)]:
        option = known[key]
        try:
            if appends and get_origin(option.annotation) is not tuple:
                raise ValueError(f"is no list, so += cannot append to it; write {option.key}=")  # noqa: TRY301
            value = _read(text, option.annotation)
            values[key] = (*values.get(key, option.default), *value) if appends else value
        except ValueError as error:
            faults.add(key, str(error))
    return values


def _require_existing(option: Option, value: Any) -> None:
    """Check that the paths of an option exist. URLs, patterns and numbers of cameras are no paths."""
    if option.error_if_missing is None:
        return
    for text in map(str, value if isinstance(value, tuple) else filter(None, (value,))):
        is_path = not ("://" in text or text.isdecimal() or has_magic(text))
        if is_path and not Path(text).expanduser().exists():
            raise option.error_if_missing(f"{option.key}={text}: there is no such file or folder{nearest_path(text)}")


def _instance_of(cls: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    hints, given = get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            given[field.name] = _instance_of(hints[field.name], values, f"{key}.")
        elif key in values:
            given[field.name] = values[key]
    return cls(**given)


def _read(text: str, annotation: Annotation) -> Any:
    """A text as a value of this type; raises ValueError if that is not possible."""
    return READERS[get_origin(annotation) or annotation](text, annotation)


def _number(text: str, annotation: Annotation) -> int | float:
    kind, limits = get_args(annotation) or (annotation, None)
    least, most = limits or (-math.inf, math.inf)
    try:
        number = kind(text.replace("_", "?"))  # Python would accept 1_000
    except ValueError:
        number = math.nan
    if not (least <= number <= most and abs(number) < math.inf):
        raise _wrong_value(text, annotation)
    return number


def _flag(text: str, annotation: Annotation) -> bool:
    if text not in ("true", "false"):
        raise _wrong_value(text, annotation)
    return text == "true"


def _choice(text: str, annotation: Annotation) -> Any:
    choices = {str(choice): choice for choice in get_args(annotation)}
    if text not in choices:
        raise _wrong_value(text, annotation)
    return choices[text]


def _several(text: str, annotation: Annotation) -> tuple[Any, ...]:
    kind, *others = get_args(annotation)
    parts = list(filter(None, text.removeprefix("[").removesuffix("]").replace(" ", "").split(",")))
    if others != [...]:
        kinds = [kind, *others]
        if len(parts) not in (1, len(kinds)):
            raise _wrong_value(text, annotation)
        return tuple(map(_read, parts * len(kinds) if len(parts) == 1 else parts, kinds))
    if get_origin(kind) is Literal and (wrong := [part for part in parts if part not in map(str, get_args(kind))]):
        raise _wrong_value(wrong, annotation)
    return tuple(dict.fromkeys(_read(part, kind) for part in parts))


def _optional(text: str, annotation: Annotation) -> Any:
    return None if text in NULLS else _read(text, _without_none(annotation))


def _wrong_value(got: str | list[str], annotation: Annotation) -> ValueError:
    texts = [got] if isinstance(got, str) else got
    return ValueError(f"must be {describe(annotation)}; got {', '.join(map(repr, texts))}")


def _without_none(annotation: Annotation) -> Annotation:
    [kind] = [kind for kind in get_args(annotation) if kind is not NoneType]
    return kind


def _number_words(annotation: Annotation) -> str:
    kind, limits = get_args(annotation) or (annotation, None)
    return f"{'a whole number' if kind is int else 'a number'}{f' {limits}' if limits else ''}"


def _choice_words(annotation: Annotation) -> str:
    *most, last = map(str, get_args(annotation))
    return f"{', '.join(most)}{' or ' if most else ''}{last}"


def _several_words(annotation: Annotation) -> str:
    kind, *others = get_args(annotation)
    if others != [...]:
        return f"{1 + len(others)} values, or one value for all"
    if get_origin(kind) is Literal:
        return f"some of {','.join(map(str, get_args(kind)))}"
    return f"a list, each {describe(kind)}"


READERS: dict[Annotation, Callable[[str, Annotation], Any]] = {
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
WORDS: dict[Annotation, Callable[[Annotation], str]] = {
    str: lambda _: "text",
    Path: lambda _: "a path",
    bool: lambda _: "true or false",
    int: _number_words,
    float: _number_words,
    Annotated: _number_words,
    Literal: _choice_words,
    tuple: _several_words,
    Union: lambda annotation: describe(_without_none(annotation)),
    UnionType: lambda annotation: describe(_without_none(annotation)),
}
