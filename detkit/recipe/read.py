"""Read YAML text as plain values: maps, lists, text, numbers, booleans and null."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detkit.yaml_text import Fault, fault_of, scan_yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_KEY = 1000
MAX_NUMBER = 2**63
NULLS = ("", "null", "Null", "NULL", "~")


class RecipeText(NamedTuple):
    """The content of a YAML text: values, the line of each place, and faults (line, message).

    If there are faults, there are no values.
    """

    values: dict[str, Any]
    lines: dict[str, int]
    faults: list[Fault]


def read_file(path: Path) -> RecipeText:
    """The content of a recipe file."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return RecipeText({}, {}, [(1, f"a recipe may have at most {MAX_BYTES} bytes; got {size}")])
        with path.open("rb") as file:
            return read_text(file.read(MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        return RecipeText({}, {}, [(1, f"cannot be read: {error.strerror or error}")])
    except UnicodeDecodeError as error:
        return RecipeText({}, {}, [(1, f"must be UTF-8 text; {error}")])


def read_text(text: str) -> RecipeText:
    """The content of a YAML text."""
    looked = scan_yaml(text, MAX_DEPTH)
    if looked.faults:
        return RecipeText({}, *looked)
    try:
        return RecipeText(OmegaConf.to_container(OmegaConf.create(text)), *looked)  # type: ignore[arg-type]
    except yaml.YAMLError as error:
        return RecipeText({}, {}, [fault_of(error)])
    except OmegaConfBaseException as error:
        return RecipeText({}, {}, [(looked.lines.get(str(error.full_key), 1), str(error).splitlines()[0])])


def read_value(text: str) -> Any:
    """The value of a text from the command line.

    A text that starts with a bracket, a brace or a quote is YAML. Numbers, booleans and null are read as in YAML. Any
    other text is used as typed, e.g. ``s3://b/x?y&z``, ``0,1`` or ``a #b``.

    Raises:
        ValueError: if the YAML is not valid, or has values that a recipe must not have.
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


def plain_fault(value: object) -> str | None:
    """Why a value from an unknown source is no valid recipe; None if it is valid."""
    waiting: list[tuple[str, int, object]] = [("", 0, value)]
    count = 0
    while waiting:
        place, depth, value = waiting.pop()
        count += 1 + (len(value) if isinstance(value, dict | list) else 0)
        fault = _value_fault(value, depth) if count <= MAX_VALUES else f"has more than {MAX_VALUES} values"
        if fault:
            return f"{place[1:] or 'the recipe'}: {fault}"
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += [(f"{place}.{key}", depth + 1, item) for key, item in inner]
    return None


def _value_fault(value: object, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"at most {MAX_DEPTH} levels of nesting"
    if value is not None and not isinstance(value, dict | list | str | bool | int | float):
        return f"must be a map, list, text, number, boolean or null; got a {type(value).__name__}"
    if isinstance(value, int) and not -MAX_NUMBER < value < MAX_NUMBER:
        return "a whole number must be within 2**63"
    keys = value if isinstance(value, dict) else ()
    if not all(isinstance(key, str) and len(key) <= MAX_KEY for key in keys):
        return f"keys must be text of at most {MAX_KEY} letters"
    return None
