"""YAML text to plain values: maps, lists, text, numbers, booleans and null. Nothing else gets through."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_KEY = 1000
MAX_DIGITS = 100
LONG_NUMBER = rf"[-+]?[\da-fA-FxobX_:.]{{{MAX_DIGITS + 1},}}"
MAX_NUMBER = 2**63
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # for events and line numbers; OmegaConf makes the values
NULLS = ("", "null", "Null", "NULL", "~")


class Text(NamedTuple):
    """What a YAML text holds: its values, the line of each place, and (line, message) of what is wrong.

    Where something is wrong there are no values.
    """

    values: dict[str, Any]
    lines: dict[str, int]
    faults: list[tuple[int, str]]


def read_file(path: Path) -> Text:
    """The content of a recipe file."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return Text({}, {}, [(1, f"a recipe holds at most {MAX_BYTES} bytes; got {size}")])
        with path.open("rb") as file:
            return read_text(file.read(MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        return Text({}, {}, [(1, f"cannot be read: {error.strerror or error}")])
    except UnicodeDecodeError as error:
        return Text({}, {}, [(1, f"must be UTF-8 text; {error}")])


def read_text(text: str) -> Text:
    """The content of a YAML text."""
    lines: dict[str, int] = {}
    try:
        faults = list(_unsafe(text))
        if faults:
            return Text({}, {}, faults)
        root = yaml.compose(text, Loader=LOADER)
        if not isinstance(root, yaml.MappingNode):
            return Text({}, {}, [(1, "must hold keys and values (key: value)")])
        faults = list(_index(root, "", lines))
        values = {} if faults else OmegaConf.to_container(OmegaConf.create(text))
        return Text(values, lines, faults)  # type: ignore[arg-type]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return Text({}, {}, [(line, f"is no YAML: {' '.join(filter(None, (error.context, error.problem)))}")])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        line = lines.get(str(getattr(error, "full_key", "")), 1)
        return Text({}, {}, [(line, str(error).splitlines()[0])])


def read_value(text: str) -> Any:
    """The value of a command-line text.

    Brackets, braces and quotes open YAML; numbers, booleans and null are what YAML says; all else is
    text exactly as typed, so that ``s3://b/x?y&z``, ``0,1`` and ``a #b`` survive.

    Raises:
        ValueError: if brackets, braces or quotes are not closed, or hold what a recipe may not.
    """
    if text.startswith(("[", "{", '"', "'")):
        content = read_text(f"value: {text}")
        if content.faults:
            raise ValueError(content.faults[0][1])
        return content.values["value"]
    if text in NULLS:
        return None
    if not re.fullmatch(r"[\w.+-]+", text):
        return text
    try:
        value = OmegaConf.from_dotlist([f"value={text}"])["value"]
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | float) else text


def plain_fault(value: Any) -> str | None:
    """Why a value, wherever it comes from, can be no recipe; None if it can be one."""
    waiting: list[tuple[str, int, Any]] = [("", 0, value)]
    count = 0
    while waiting:
        place, depth, value = waiting.pop()
        count += 1 + (len(value) if isinstance(value, dict | list) else 0)
        fault = _value_fault(value, depth) if count <= MAX_VALUES else f"holds more than {MAX_VALUES} values"
        if fault:
            return f"{place[1:] or 'the recipe'}: {fault}"
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += [(f"{place}.{key}", depth + 1, item) for key, item in inner]
    return None


def _value_fault(value: Any, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"at most {MAX_DEPTH} levels of nesting"
    if value is not None and not isinstance(value, dict | list | str | bool | int | float):
        return f"must be a map, list, text, number, boolean or null; got a {type(value).__name__}"
    if isinstance(value, int) and not -MAX_NUMBER < value < MAX_NUMBER:
        return "a whole number must lie within 2**63"
    keys = value if isinstance(value, dict) else ()
    if not all(isinstance(key, str) and len(key) <= MAX_KEY for key in keys):
        return f"keys must be text of at most {MAX_KEY} letters"
    return None


def _unsafe(text: str) -> Iterator[tuple[int, str]]:
    """What can run code, or make much of a small file: tags, anchors, aliases, deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            yield line, f"anchors and aliases are not allowed (got {event.anchor!r}); write the value out"
        elif getattr(event, "tag", None):
            yield line, f"tags are not allowed (got {event.tag!r}); write the plain value"
        elif isinstance(event, yaml.ScalarEvent) and event.implicit[0] and re.fullmatch(LONG_NUMBER, event.value):
            yield line, f"a number has at most {MAX_DIGITS} digits; got {len(event.value)}"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            yield line, f"at most {MAX_DEPTH} levels of nesting"
            return


def _index(node: yaml.Node, place: str, lines: dict[str, int]) -> Iterator[tuple[int, str]]:
    """Fill ``lines``; what comes out are the keys that are no text or are given twice."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            inner = f"{place}.{number}"
            lines[inner] = item.start_mark.line + 1
            yield from _index(item, inner, lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                yield line, f"a key must be text; got {key.value!r}"
                continue
            inner = f"{place}.{key.value}" if place else key.value
            if inner in lines:
                yield line, f"{inner} is given twice, first in line {lines[inner]}; keep one"
            lines[inner] = line
            yield from _index(value, inner, lines)
