"""Read the names of a constructor's arguments from its source, without importing it.

The imports of torch and Lightning take seconds, and the names are enough to find a misspelt key. If the source is not
clear (a metaclass, ``__new__``, an unknown decorator, a name that is bound twice), the result is None, and ``check``
imports the class.
"""

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PLAIN_BASES = ("object", "torch.nn.Module", "typing.Generic")  # neither a metaclass nor __new__
MAX_STEPS = 10  # re-exports and base classes that are followed

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Definition(NamedTuple):
    """A class or function, and its module."""

    node: ast.ClassDef | ast.FunctionDef
    module: str


def names_in_source(path: str) -> tuple[str, frozenset[str]] | None:
    """The name of the class or function at an import path and the names of its arguments; None if not certain."""
    found = _resolve(path)
    if found is None:
        return None
    if isinstance(found.node, ast.ClassDef):
        names = _names_of_class(found)
    else:
        names = _names_of_function(found.node, found.module)
    return None if names is None else (found.node.name, frozenset(names))


def _names_of_class(found: Definition, steps: int = 0) -> list[str] | None:
    node, parents = found.node, _parents_of(found)
    if not isinstance(node, ast.ClassDef) or parents is None or steps > MAX_STEPS:
        return None
    inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    if node.decorator_list:
        return None if inits else _names_of_fields(found)
    if inits:
        names = _names_of_function(inits[-1], found.module)
        return names and names[1:]
    return _names_of_class(parents[0], steps + 1) if len(node.bases) == len(parents) == 1 else None


def _names_of_fields(found: Definition) -> list[str] | None:
    """The fields of a dataclass and its base classes; None if it is not certain that all of them are arguments."""
    node, parents = found.node, _parents_of(found)
    if not isinstance(node, ast.ClassDef) or parents is None:
        return None
    names = []
    if decorators := [ast.unparse(decorator) for decorator in node.decorator_list]:
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
        text = " ".join([*decorators, *map(ast.unparse, fields)])
        is_plain = "init=" not in text and "ClassVar" not in text
        if len(decorators) > 1 or decorators[0].partition("(")[0] != "dataclass" or not is_plain:
            return None
        names = [ast.unparse(field.target) for field in fields]
    for parent in parents:
        inherited = _names_of_fields(parent)
        if inherited is None:
            return None
        names += inherited
    return names


def _names_of_function(function: ast.FunctionDef, module: str) -> list[str] | None:
    arguments = function.args
    if arguments.kwarg or not all(_keeps_signature(decorator, module) for decorator in function.decorator_list):
        return None
    return [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]


def _parents_of(found: Definition, steps: int = 0) -> list[Definition] | None:
    """The base classes; None if one is not found, or if there is a metaclass or ``__new__``."""
    node = found.node
    if not isinstance(node, ast.ClassDef) or node.keywords or steps > MAX_STEPS:
        return None
    if any(isinstance(item, ast.FunctionDef) and item.name == "__new__" for item in node.body):
        return None
    named = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    bases = [_absolute(base, found.module) for base in named]
    parents = [_resolve(base) if base else None for base in bases if base not in PLAIN_BASES]
    plain = [parent for parent in parents if parent and _parents_of(parent, steps + 1) is not None]
    return plain if len(plain) == len(parents) else None


def _keeps_signature(decorator: ast.expr, module: str) -> bool:
    """Whether a decorator uses ``functools.wraps`` and so keeps the signature."""
    path = _absolute(decorator, module)
    found = _resolve(path) if path else None
    functions = [node for node in ast.walk(found.node) if isinstance(node, ast.FunctionDef)] if found else []
    inner = [ast.unparse(each).partition("(")[0] for function in functions for each in function.decorator_list]
    return "wraps" in inner or "functools.wraps" in inner


def _resolve(path: str, steps: int = 0) -> Definition | None:
    """The definition of the class or function at an import path; re-exports are followed."""
    module, _, name = path.rpartition(".")
    if not module or steps > MAX_STEPS:
        return None
    bindings = [node for node, bound in _bindings(module) if bound == name]
    if len(bindings) != 1:
        return None
    node = bindings[0]
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return Definition(node, module)
    target = _absolute(ast.Name(name), module) if isinstance(node, ast.ImportFrom) else None
    return _resolve(target, steps + 1) if target else None


def _absolute(expression: ast.expr, module: str) -> str | None:
    """The import path of an expression in a module; None if it is no plain name."""
    if isinstance(expression, ast.Attribute):
        outer = _absolute(expression.value, module)
        return f"{outer}.{expression.attr}" if outer else None
    if not isinstance(expression, ast.Name):
        return None
    for node, bound in _bindings(module):
        if bound == expression.id and isinstance(node, ast.ImportFrom | ast.Import):
            alias = next(alias for alias in node.names if (alias.asname or alias.name) == bound)
            return alias.name if isinstance(node, ast.Import) else f"{_source_module(node, module)}.{alias.name}"
        if bound == expression.id:
            return f"{module}.{bound}"
    return expression.id if expression.id == "object" else None


def _source_module(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    file = _file_of(module)
    parts = module.split(".") + (["__init__"] if file and file.name == "__init__.py" else [])
    return ".".join([*parts[: -node.level], *([node.module] if node.module else [])])


@functools.cache
def _bindings(module: str) -> tuple[tuple[ast.stmt, str], ...]:
    """All names that a module binds at its top level, and their statements."""
    file = _file_of(module)
    return tuple(_bound(ast.parse(file.read_bytes()).body)) if file else ()


def _bound(statements: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    for node in statements:
        if isinstance(node, ast.ClassDef | Function):
            yield node, node.name
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from ((node, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _bound(node.body)  # lazy imports
        else:
            yield from ((node, name) for inner in ast.walk(node) for name in _bound_names(inner))


def _bound_names(node: ast.AST) -> list[str]:
    """The names that a node in a statement may bind."""
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.alias):
        return [node.asname or node.name]
    return [node.name] if isinstance(node, ast.ClassDef | Function) else []


def _file_of(module: str) -> Path | None:
    """The source file of a module, found without importing its packages."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # the module was not imported from a file
        return None
    places = [] if spec is None else spec.submodule_search_locations or []
    if not inner and spec and spec.origin and not places:
        return Path(spec.origin) if spec.origin.endswith(".py") else None
    for place in places:
        for file in (Path(place, *inner, "__init__.py"), Path(place, *inner).with_suffix(".py")):
            if file.is_file():
                return file
    return None
