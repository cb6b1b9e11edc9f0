"""The command ``detkit``: one file per command, with its options, its help and its calls.

The files import torch inside ``main``, so that a wrong argument is reported without that slow import.
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
    """Run the command in the first argument of this process; without arguments, list the commands."""
    run_script(_dispatch)


def run(command: str) -> None:
    """Run ``detkit COMMAND`` with the arguments of this process."""
    run_script(lambda argv: _dispatch([command, *argv]))


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        docstrings = {name: importlib.import_module(f"detkit.commands.{name}").__doc__ or "" for name in COMMANDS}
        lines = [f"{name:<10} {text.splitlines()[0]}\n" for name, text in docstrings.items()]
        sys.stdout.write(USAGE + "".join(lines))
        return
    name, *arguments = argv
    if name not in COMMANDS:
        raise RecipeError(f"no command {name!r}{did_you_mean(name, COMMANDS)}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # for classes in the user's working directory
    importlib.import_module(f"detkit.commands.{name}").main(arguments)
