"""python scripts/train.py ... is `detkit train ...`."""

from detkit.commands import run

if __name__ == "__main__":
    run("train")
