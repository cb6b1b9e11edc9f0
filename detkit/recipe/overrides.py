"""Read the arguments ``key.path=value`` and ``key.path+=value``, and apply them to a recipe."""

import re
from collections.abc import Iterable
from typing import Any

from detkit.recipe.faults import Faults
from detkit.recipe.plan import ALLOW_CHANGES, Config, Override, is_node
from detkit.recipe.read import MAX_DEPTH, read_value

KEY = r"\w[\w-]*(\.[\w-]+|\[\d+\])*\+?"
APPEND = "+"  # at the end of a key


def parse_overrides(argv: Iterable[str], faults: Faults) -> list[Override]:
    """Arguments ``key.path=value`` to (key, value); the key ``a[0].b`` becomes ``a.0.b``.

    ``key.path+=value`` appends to a list; its key is ``key.path+``. Arguments of another form are added to ``faults``.
    """
    pairs = []
    for argument in argv:
        key, equals, text = argument.partition("=")
        if not equals or not re.fullmatch(KEY, key):
            faults.add(argument, "must have the form key.path=value, e.g. data.batch_size=8")
            continue
        try:
            pairs.append((re.sub(r"\[(\d+)\]", r".\1", key), read_value(text)))
        except ValueError as error:
            faults.add(key, f"cannot read {text!r}: {error}")
    return pairs


def apply(config: Config, pairs: Iterable[Override], faults: Faults) -> Config:
    """The config with the pairs applied; outer keys first, so that a class is set before its arguments."""
    paths = [(_path_of(key), value) for key, value in pairs]
    for path, value in sorted(paths, key=lambda pair: len(pair[0]) - (pair[0][-1] in ("_target_", APPEND))):
        if len(path) > MAX_DEPTH:
            faults.add(f"{'.'.join(path[:3])}...", f"at most {MAX_DEPTH} levels of nesting; got {len(path)}")
            continue
        try:
            config = _assigned(config, path, value)
        except LookupError as error:
            faults.add(".".join(path).removesuffix(f".{APPEND}"), error.args[0])
    return config


def _path_of(key: str) -> list[str]:
    path = [key] if key == ALLOW_CHANGES else key.removesuffix(APPEND).split(".")
    return [*path, APPEND] if key.endswith(APPEND) else path


def _assigned(old: Any, path: list[str], value: Any) -> Any:
    """A copy of ``old`` with one value replaced or appended."""
    if path == [APPEND]:
        if not isinstance(old, list | None):
            raise LookupError(f"is no list, so += cannot append to it; it is {old!r}")
        return [*(old or []), value]
    if path == ["_target_"] or (not path and is_node(old) and isinstance(value, str)):
        same = is_node(old) and old["_target_"] == value
        return old if same else _replaced(old, {"_target_": value})
    if not path:
        return _replaced(old, value)
    key, *rest = path
    if isinstance(old, list):
        if not key.isdigit() or int(key) >= len(old):
            raise LookupError(f"{key!r} is no index of a list of {len(old)}")
        index = int(key)
        return [*old[:index], _assigned(old[index], rest, value), *old[index + 1 :]]
    if not isinstance(old, dict | None):
        raise LookupError(f"cannot set {key!r} inside {old!r}")
    old = old or {}
    return {**old, key: _assigned(old.get(key), rest, value)}


def _replaced(old: object, new: Any) -> Any:
    """``new`` with ``_partial_`` of ``old``. A new class does not keep the arguments of the old one."""
    if is_node(old) and is_node(new) and "_partial_" in old:
        return {"_partial_": old["_partial_"], **new}
    return new
