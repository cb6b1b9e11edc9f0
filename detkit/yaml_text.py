"""Scan YAML text for unsafe constructs before its values are used.

A small text could run code (by tags), use all memory (by aliases, deep nesting or long numbers), or hide a value (by a
repeated key).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml

MAX_DIGITS = 100
LONG_NUMBER = re.compile(rf"[-+]?[\d.][\da-fA-FxobX_:.]{{{MAX_DIGITS},}}")
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

Fault = tuple[int, str]  # line and message


class YamlText(NamedTuple):
    """The result of a scan."""

    lines: dict[str, int]  # line of each key and item by its place, e.g. model.backbone.0
    faults: list[Fault]  # empty if the values may be used


def scan_yaml(text: str, max_depth: int, *, text_keys: bool = True) -> YamlText:
    """The line of each place in a YAML text, and its faults.

    Args:
        text: YAML text with keys and values at its top.
        max_depth: largest allowed depth of nesting.
        text_keys: whether every key must be text; else it may also be a number.
    """
    lines: dict[str, int] = {}
    try:
        if faults := list(_unsafe(text, max_depth)):
            return YamlText({}, faults)
        root = yaml.compose(text, Loader=LOADER)
        if not isinstance(root, yaml.MappingNode):
            return YamlText({}, [(1, "must contain keys and values (key: value)")])
        return YamlText(lines, list(_index(root, "", lines, text_keys)))
    except yaml.YAMLError as error:
        return YamlText(lines, [fault_of(error)])


def fault_of(error: yaml.YAMLError) -> Fault:
    """The line and message of an exception of a YAML reader."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return 1, f"is no YAML: {str(error).splitlines()[0]}"
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return line, f"is no YAML: {' '.join(filter(None, (error.context, error.problem)))}"


def _unsafe(text: str, max_depth: int) -> Iterator[Fault]:
    """Find tags, anchors, aliases, deep nesting and long numbers."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            yield line, f"anchors and aliases are not allowed (got {event.anchor!r}); write the value itself"
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            yield line, f"tags are not allowed (got {event.tag!r}); write the plain value"
        elif isinstance(event, yaml.ScalarEvent) and event.implicit[0] and LONG_NUMBER.fullmatch(event.value):
            yield line, f"a number has at most {MAX_DIGITS} digits; got {len(event.value)}"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > max_depth:
            yield line, f"at most {max_depth} levels of nesting"
            return


def _index(node: yaml.Node, place: str, lines: dict[str, int], text_keys: bool) -> Iterator[Fault]:
    """Fill ``lines`` and yield faults: repeated keys, and keys that are not text."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            inner = f"{place}.{number}"
            lines[inner] = item.start_mark.line + 1
            yield from _index(item, inner, lines, text_keys)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or (text_keys and key.tag != "tag:yaml.org,2002:str"):
                yield line, f"a key must be text; got {key.value!r}"
                continue
            inner = f"{place}.{key.value}" if place else key.value
            if inner in lines:
                yield line, f"{inner} is repeated, first in line {lines[inner]}; keep one of them"
            lines[inner] = line
            yield from _index(value, inner, lines, text_keys)
