"""python scripts/inspect_model.py ... is `detkit inspect ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("inspect")
