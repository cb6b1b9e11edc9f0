"""Tables of recipes, of the keys of a recipe, and of the changes of a run."""

import inspect
import json
import re
import sys
from collections.abc import Iterator

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from detkit.recipe.building import without_demo
from detkit.recipe.checking import locate
from detkit.recipe.loading import recipe_files, recipe_folders
from detkit.recipe.plan import ABSENT, KEY_OF_FIELD, PARTS, Plan, Settings, is_node, join
from detkit.recipe.signature import NODE_KEYS, Constructor, classes_with_bases, parameters_of

WIDE = 100_000  # columns where the output is no terminal: nothing is cut or wrapped


class _Pipe:
    """Standard output without the spaces that rich adds at the ends of lines."""

    encoding = property(lambda _: sys.stdout.encoding)

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        sys.stdout.flush()


def console() -> Console:
    """The console for tables. In a pipe each row is one line, and nothing is cut."""
    return Console() if sys.stdout.isatty() else Console(width=WIDE, file=_Pipe())  # type: ignore[arg-type]


def list_recipes() -> Table:
    """A table of all recipes with the first line of their files; recipes in the working directory come first."""
    table = make_table("recipe", "what it is")
    recipes, folders = recipe_files(), recipe_folders()
    table.columns[0].min_width = max(map(len, recipes), default=0)
    for folder in folders:
        if len(folders) > 1:
            table.add_row("", Text(f"in {folder}:", style="dim"))  # a long path may wrap there
        for name, path in recipes.items():
            if path.parent == folder:
                first = path.read_text(encoding="utf-8").partition("\n")[0]
                table.add_row(Text(name, style="bold"), Text(first.lstrip("# ")))
    return table


def list_keys(plan: Plan) -> Table:
    """A table of all keys of a recipe and its constructors, with value and meaning.

    The values are those for the user's own data. A second column has the values of the demo overlay.
    """
    own = without_demo(plan)
    table = make_table("key", "value", *(["on the demo set"] if plan.demo else []), "meaning")
    table.caption = "(in parentheses: defaults of the constructors, which are not in the recipe)"
    for field, meaning in meanings_of(Settings).items():
        key = KEY_OF_FIELD.get(field, field)
        _add(table, plan, (Text(key), Text(_format_value(own.config[key]), style="bold"), Text(meaning)))
    for part in PARTS:
        table.add_section()
        for row in _key_rows(own.config[part], part):
            _add(table, plan, row)
    return table


def list_changes(plan: Plan) -> Group:
    """A table of the values that a run changes in its recipe, and where they are set."""
    table = make_table("key", "recipe", "this run", "set by")
    for change in plan.changes():
        cells = (change.place, _format_value(change.before), _format_value(change.after), change.source)
        table.add_row(*map(Text, cells))  # Text, because rich reads markup in plain strings
    demo = "data.root is not set: the built-in demo set is used, with the values under demo: in the recipe"
    return Group(
        Text(f"recipe {plan.name}, {'with these changes' if table.rows else 'without changes'}", style="bold"),
        *([table] if table.rows else []),
        *([Text(demo)] if plan.demo else []),
    )


def make_table(*columns: str) -> Table:
    """A table without lines, whose first column is never wrapped."""
    table = Table(box=None, padding=(0, 2, 0, 0), caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    return table


def _add(table: Table, plan: Plan, row: tuple[Text, Text, Text]) -> None:
    """Add the row of a key, with its value in the demo overlay if that differs."""
    key, value, meaning = row
    demo = _value_at(plan.config, key.plain)
    differs = demo != ABSENT and _format_value(demo) != value.plain
    table.add_row(
        key, value, *([Text(_format_value(demo) if differs else "", style="bold")] if plan.demo else []), meaning
    )


def _value_at(value: object, place: str) -> object:
    """The value at a place, or ABSENT."""
    if isinstance(value, dict) and place in value:
        return value[place]  # a key with a dot
    for key in place.split("."):
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return ABSENT
    return value


def _key_rows(value: object, place: str) -> Iterator[tuple[Text, Text, Text]]:
    if not is_node(value):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            yield from _rows_of(item, join(place, key), "")
        return
    target = locate(value["_target_"])
    meanings = meanings_of(target)
    yield Text(place, style="bold"), Text(value["_target_"], style="bold"), Text(_first_sentence(target.__doc__ or ""))
    for key, item in value.items():
        if key not in NODE_KEYS:
            yield from _rows_of(item, join(place, key), meanings.get(key, ""))
    for key, parameter in (parameters_of(target) or {}).items():
        if key not in value and parameter.default is not parameter.empty:
            default = f"({_format_value(parameter.default)})"
            yield Text(join(place, key), style="dim"), Text(default, style="dim"), Text(meanings.get(key, ""))


def _rows_of(item: object, place: str, meaning: str) -> Iterator[tuple[Text, Text, Text]]:
    if is_node(item) or (isinstance(item, list) and any(map(is_node, item))):
        yield from _key_rows(item, place)
    else:
        yield Text(place), Text(_format_value(item), style="bold"), Text(meaning)


def meanings_of(target: Constructor) -> dict[str, str]:
    """The first sentences of the ``Args`` of a class and its base classes."""
    meanings: dict[str, str] = {}
    for source in classes_with_bases(target):
        for docstring in (source.__doc__, getattr(vars(source).get("__init__"), "__doc__", None)):
            for name, meaning in _arguments(inspect.cleandoc(docstring or "")):
                meanings.setdefault(name, meaning)
    return meanings


def _arguments(docstring: str) -> Iterator[tuple[str, str]]:
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    block = inspect.cleandoc(f"\n{section[1]}") if section else ""
    for entry in re.split(r"\n(?=\w)", block):
        match = re.match(r"(\w+)(?: \([^)]*\))?:\s*(.+)", entry, re.DOTALL)
        if match:
            yield match[1], _first_sentence(match[2])


def _first_sentence(text: str) -> str:
    paragraph = re.sub(r" \(default: [^)]*\)", "", " ".join(text.strip().partition("\n\n")[0].split()))
    return re.split(r"(?<=[a-z)\]`\"'\d])\.(?: |$)", paragraph)[0].rstrip(".")


def _format_value(value: object) -> str:
    """A value in one line, in the form of the command line."""
    if is_node(value):
        return str(value["_target_"])
    return value if isinstance(value, str) else json.dumps(value, default=str)
