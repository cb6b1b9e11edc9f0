"""python scripts/evaluate.py ... is `detkit evaluate ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("evaluate")
