"""YAML text looked through before its values are used.

A small text can otherwise run code (tags), take all memory (aliases, deep nesting, long numbers), or let one value
hide another (keys given twice).
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
    """The places in a YAML text."""

    lines: dict[str, int]  # of each key and item, by its place, e.g. model.backbone.0
    faults: list[Fault]  # empty: its values may be used


def look_through(text: str, max_depth: int, *, text_keys: bool = True) -> YamlText:
    """The places in a YAML text, and what is wrong with it.

    Args:
        text: must hold keys and values.
        max_depth: levels of nesting that are allowed.
        text_keys: whether every key must be text; else it may be a number too.
    """
    lines: dict[str, int] = {}
    try:
        if faults := list(_unsafe(text, max_depth)):
            return YamlText({}, faults)
        root = yaml.compose(text, Loader=LOADER)
        if not isinstance(root, yaml.MappingNode):
            return YamlText({}, [(1, "must hold keys and values (key: value)")])
        return YamlText(lines, list(_index(root, "", lines, text_keys)))
    except yaml.YAMLError as error:
        return YamlText(lines, [fault_of(error)])


def fault_of(error: yaml.YAMLError) -> Fault:
    """Line and message of what a YAML reader raises."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return 1, f"is no YAML: {str(error).splitlines()[0]}"
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return line, f"is no YAML: {' '.join(filter(None, (error.context, error.problem)))}"


def _unsafe(text: str, max_depth: int) -> Iterator[Fault]:
    """Tags, anchors, aliases, deep nesting and long numbers."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            yield line, f"anchors and aliases are not allowed (got {event.anchor!r}); write the value out"
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            yield line, f"tags are not allowed (got {event.tag!r}); write the plain value"
        elif isinstance(event, yaml.ScalarEvent) and event.implicit[0] and LONG_NUMBER.fullmatch(event.value):
            yield line, f"a number has at most {MAX_DIGITS} digits; got {len(event.value)}"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > max_depth:
            yield line, f"at most {max_depth} levels of nesting"
            return


def _index(node: yaml.Node, place: str, lines: dict[str, int], text_keys: bool) -> Iterator[Fault]:
    """Fill ``lines``; yields the keys that are given twice or may not be keys."""
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
                yield line, f"{inner} is given twice, first in line {lines[inner]}; keep one"
            lines[inner] = line
            yield from _index(value, inner, lines, text_keys)
