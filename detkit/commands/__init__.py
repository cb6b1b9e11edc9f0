"""The command ``detkit``: one file a command, with its options, its help and its calls.

A command answers a typing error before torch is imported, so its file imports torch inside of ``main``.
"""

import importlib
import sys
from pathlib import Path

from detkit.errors import RecipeError, did_you_mean, run_script

COMMANDS = ("train", "evaluate", "predict", "export", "benchmark", "check", "convert", "inspect")
USAGE = """\
detkit COMMAND key=value ...
detkit COMMAND --help           lists the keys of a command

"""


def main() -> None:
    """Run the command that the first argument of this process names; without one, list the commands."""
    run_script(_dispatch)


def run(command: str) -> None:
    """Run ``detkit COMMAND`` with the arguments of this process."""
    run_script(lambda argv: _dispatch([command, *argv]))


def list_commands() -> str:
    """Every command with the first line of its help."""
    docstrings = {name: importlib.import_module(f"detkit.commands.{name}").__doc__ or "" for name in COMMANDS}
    return USAGE + "".join(f"{name:<10} {text.splitlines()[0]}\n" for name, text in docstrings.items())


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(list_commands())
        return
    name, *arguments = argv
    if name not in COMMANDS:
        raise RecipeError(f"no command {name!r}{did_you_mean(name, COMMANDS)}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # so that a user's own class can be imported from the user's folder
    importlib.import_module(f"detkit.commands.{name}").main(arguments)
