"""python scripts/export.py ... is `detkit export ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("export")
